"""Generated fleets keep what the bench promises of them, and are the same every time."""

import pytest
from bench.plan.generator import instance, kept
from bench.plan.shapes import SIZES, ZIPFS, Promise, Style


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_a_fleet_keeps_its_promises(size: str, style: Style) -> None:
    for seed, zipf in enumerate(ZIPFS, start=1):
        fleet = instance(SIZES[size], style, seed, zipf)
        found = kept(fleet)
        least, most = Promise.load
        assert least <= found.pop("load") <= most
        assert {name: share for name, share in found.items() if share < getattr(Promise, name)} == {}
        shape = SIZES[size].of_style(style)
        counted = len(fleet.models), len(fleet.pools), sum(pool.servers_max for pool in fleet.pools)
        assert counted == (shape.models, shape.pools, shape.servers)


def test_fleets_hold_boxes_generation_and_limits() -> None:
    fleet = instance(SIZES["small"], Style.TIGHT_WATTS, 1, 0.8)
    assert any(pool.servers_per_node == 8 for pool in fleet.pools)
    assert len(fleet.watt_limits) == 2
    awake = [point for model in fleet.models for variant in model.variants for point in variant.points if point.awake_watts]
    assert awake
    assert {pool.accelerator_class for pool in instance(SIZES["small"], Style.ONE_CLASS, 1, 0.8).pools} == {"gpu"}


def test_the_same_seed_draws_the_same_fleet() -> None:
    assert instance(SIZES["small"], Style.MIXED, 7, 1.2) == instance(SIZES["small"], Style.MIXED, 7, 1.2)
    assert instance(SIZES["small"], Style.MIXED, 7, 1.2) != instance(SIZES["small"], Style.MIXED, 8, 1.2)
