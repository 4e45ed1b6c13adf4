"""What a server and a pool draw by profile, and how long a node that went still counts."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.energy.accounts import Account, Provenance, weakest
from ergon.energy.on import OnState, OnTracker, ServersOn
from ergon.energy.power import (
    PowerCurve,
    ReplicaLoad,
    device_watts,
    nameplate_watts,
    pool_power,
    power_curve,
)
from ergon.fleet.types import OperatingPoint, Variant
from tests.energy.world import pool, variant


def point(batch: int, watts: float | None, awake: float | None = None, **of: Any) -> OperatingPoint:
    where = {"product": None, "accelerator_class": "gpu", **of}
    return OperatingPoint(batch=batch, work_per_second=100.0 * batch, watts=watts, awake_watts=awake, **where)


@pytest.mark.parametrize(("batch", "watts"), [(0, 30), (1, 30), (2.5, 40), (4, 50), (6, 55), (8, 60), (64, 60)])
def test_watts_lie_between_the_measured_points_and_level_beyond_them(batch: float, watts: float) -> None:
    curve = power_curve(variant(point(8, 60), point(1, 30), point(4, 50)), pool())
    assert curve.executing_watts(batch) == pytest.approx(watts)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ((), (72.0, 16.0)),
        ((point(1, None),), (72.0, 16.0)),
        ((point(1, 5),), (16.0, 16.0)),
        ((point(1, 60, 40),), (60.0, 40.0)),
        ((point(1, 60, 90),), (60.0, 60.0)),
        ((point(1, 50), point(1, 65, product="NVIDIA-L4", accelerator_class=None)), (65.0, 16.0)),
        ((point(1, 50), point(1, 65, product="NVIDIA-H100", accelerator_class=None)), (50.0, 16.0)),
        ((point(1, math.inf),), (72.0, 16.0)),
        ((point(1, 50, accelerator_class="cpu"),), (72.0, 16.0)),
    ],
)
def test_a_curve_is_what_the_profile_says_there_else_the_pools_busy_watts(
    points: tuple[OperatingPoint, ...], expected: tuple[float, float]
) -> None:
    curve = power_curve(variant(*points), pool())
    assert (curve.executing_watts(1), curve.awake_at(1)) == expected


def flat(watts: float, awake: float) -> PowerCurve:
    return PowerCurve((1.0,), (watts,), (awake,), measured=True)


def test_a_server_is_idle_and_awake_once_and_adds_what_executes() -> None:
    loads = [ReplicaLoad(0.5, 1, flat(60, 20)), ReplicaLoad(0.25, 1, flat(100, 40)), ReplicaLoad(0, 1, flat(500, 400))]
    assert device_watts(16, loads) == pytest.approx(40 + 0.5 * 40 + 0.25 * 60)
    assert device_watts(16, []) == 16
    assert device_watts(16, [ReplicaLoad(2.0, 1, flat(60, 16))]) == pytest.approx(60), "no more than the whole time"


def test_a_pool_counts_hosts_pue_and_servers_that_do_not_answer() -> None:
    drawn = pool_power(pool(host_watts=90, pue=1.2), ServersOn(3, 2), [30.0, 40.0])
    assert (drawn.device_watts, drawn.host_watts) == (86.0, 180.0)
    assert drawn.watts == pytest.approx(1.2 * 266)


def test_a_meter_is_believed_up_to_half_more_than_any_point_says() -> None:
    assert nameplate_watts(pool(), [variant(point(1, 80))]) == 120
    assert nameplate_watts(pool(idle_watts=0, busy_watts=None)) is None


def test_a_server_counts_from_its_asking_until_off_delay_after_it_went() -> None:
    tracker, l4 = OnTracker(600), pool(servers_per_node=2)
    seen = [(0, 1), (10, 5), (20, 2), (300, 3), (609, 3), (615, 2), (880, 2), (1209, 2), (1210, 2)]
    on = [tracker.observe(l4, asked, at) for at, asked in seen]
    assert [o.servers for o in on] == [1, 5, 5, 5, 5, 3, 3, 3, 2]
    assert [o.nodes for o in on] == [1, 3, 3, 3, 3, 2, 2, 2, 1]


def test_nodes_that_stay_count_always() -> None:
    assert OnTracker(600).observe(pool(scale_in=False, servers_max=8, servers_per_node=4), 0, 0) == ServersOn(8, 2)


def test_a_node_that_shuts_down_is_remembered_over_a_restart() -> None:
    tracker = OnTracker(600)
    tracker.observe(pool(), 5, 0)
    tracker.observe(pool(), 1, 100)
    state = OnState.model_validate_json(tracker.to_state(100).model_dump_json())
    restored = OnTracker.from_state(state, 600, now_seconds=7.0, gap_seconds=30)
    assert [restored.observe(pool(), 1, at).servers for at in (7.0, 476.0, 478.0)] == [5, 5, 1]


@given(st.lists(st.floats(0, 1e6), max_size=200))
def test_an_account_loses_nothing(joules: list[float]) -> None:
    account = Account()
    for amount in joules:
        account.add(amount)
    assert account.joules == pytest.approx(math.fsum(joules), rel=1e-15)


def test_a_figure_is_assumed_where_a_twentieth_of_it_was() -> None:
    account = Account()
    account.add(96, 0)
    account.add(4, 4)
    assert account.provenance() is Provenance.DERIVED
    account.add(4, 4)
    assert account.provenance(Provenance.MEASURED) is Provenance.ASSUMED
    assert weakest([Provenance.MEASURED, Provenance.DERIVED]) is Provenance.DERIVED
    assert weakest([]) is Provenance.ASSUMED


def test_a_variant_nobody_knows_draws_what_the_pool_says() -> None:
    nobody: Variant | None = None
    assert not power_curve(nobody, pool()).measured
