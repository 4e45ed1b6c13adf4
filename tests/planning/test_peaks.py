"""How busy generating replicas may be, where their peak is known; and models that are kept to a kind of accelerator."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.fleet.types import PEAK_SECONDS, Fleet, ModelKey
from ergon.planning import plan
from tests.simulate.fleets import fleet, model, point, pool

A = ModelKey("n", "a")
GENERATOR = point(32, 500.0, 0.4, 70, 50, tokens=True)


def asked(made: Fleet, work: float, peak: float | None = None) -> Fleet:
    return replace(made, demand={A: work}, peaks={} if peak is None else {A: peak})


def replicas(made: Fleet) -> int:
    return len(plan(made).placements[A])


def test_without_a_peak_the_latency_rule_says_how_busy() -> None:
    made = fleet([model("a", GENERATOR, slo=2.0)], [pool(servers=20)])
    assert replicas(asked(made, 2100.0)) == 8  # (2 - 0.4) / (2 + 0.8) = 0.57 of 500


@pytest.mark.parametrize(("peak", "count"), [(2000.0, 6), (2850.0, 6), (3600.0, 7), (9000.0, 17)])
def test_there_are_places_for_the_peak_and_no_server_is_busier_than_its_pool_allows(peak: float, count: int) -> None:
    made = fleet([model("a", GENERATOR, slo=2.0)], [pool(servers=20)])
    assert replicas(asked(made, 2000.0, peak)) == count  # for 0.93 of it: what finds no place may wait for 1.6 s


def test_where_less_may_be_waited_there_are_more_places() -> None:
    counts = [
        replicas(asked(fleet([model("a", GENERATOR, slo=slo)], [pool(servers=40)]), 2000.0, 9000.0)) for slo in (None, 0.5, 5, 60)
    ]
    assert counts == [18, 18, 15, 12]  # half a span at most


def test_a_model_that_counts_requests_keeps_the_latency_rule() -> None:
    made = fleet([model("a", point(8, 400.0, 0.02, 60), slo=0.05)], [pool(servers=20)])
    assert replicas(asked(made, 1000.0, 9000.0)) == replicas(asked(made, 1000.0))


def test_a_model_keeps_to_its_kind_of_accelerator_and_says_what_another_would_cost() -> None:
    other = replace(GENERATOR, product="Q")
    made = fleet([model("a", GENERATOR, other, slo=2.0)], [pool("dear", host_watts=300.0), pool("cheap", product="Q")])
    free, kept = plan(asked(made, 200.0)), plan(replace(asked(made, 200.0), kept_to={A: "P"}))
    assert [replica.server.pool for replica in free.placements[A]] == ["cheap"]
    assert [replica.server.pool for replica in kept.placements[A]] == ["dear"]
    assert {a.pool: a.verdict for a in kept.alternatives[A]} == {"dear": "Chosen", "cheap": "Feasible"}


@given(st.floats(1, 5000), st.floats(0.5, 30))
@settings(max_examples=40, deadline=None)
def test_replicas_carry_the_peak_whatever_it_is(work: float, ratio: float) -> None:
    made = asked(fleet([model("a", GENERATOR, slo=2.0)], [pool(servers=400)]), work, work * ratio)
    count = replicas(made)
    needed = max(work / (0.7 * 500.0), min(work * ratio / (1 + 1.6 / PEAK_SECONDS), work / 0.05) / 500.0)
    assert needed - 1e-6 <= count <= needed + 1
