"""What goes, what stays and what is worth the way."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.fleet.types import Fleet, ModelKey, Replica, ServerKey
from ergon.planning import Effort, Plan, plan
from ergon.reconcile import rearranging
from ergon.reconcile.rearranging import improve, mend, standing, way_joules
from tests.simulate.fleets import fleet, model, point, pool

ENCODER = (point(1, 80.0, 0.0125, 40), point(8, 400.0, 0.02, 60))
GENERATOR = (point(32, 500.0, 0.2, 70, 50, tokens=True), replace(point(64, 500.0, 0.2, 70, 50, tokens=True), product="Q"))
WORK = st.lists(st.floats(0, 900).map(lambda work: round(work, 1)), min_size=6, max_size=6)
A, B = ModelKey("n", "a"), ModelKey("n", "b")


def asked(made: Fleet, before: Plan | None = None, **work: float) -> Fleet:
    demand = {ModelKey("n", name): rate for name, rate in work.items()}
    return replace(made, demand=demand, current=standing(before) if before else ())


def made_for(made: Fleet, **work: float) -> Plan:
    return plan(asked(made, **work))


def count(made: Plan, key: ModelKey = A) -> int:
    return len(made.placements[key])


def test_replicas_and_servers_that_nothing_needs_go_with_no_load() -> None:
    made = fleet([model("a", *ENCODER, slo=1.0)], [pool(servers=8)])
    busy = made_for(made, a=1000.0)
    assert count(busy) == 4
    lean = mend(asked(made, busy, a=500.0), busy)
    assert count(lean) == 2
    assert set(standing(lean)) < set(standing(busy))
    assert lean.servers == {"p": 2}


def test_nothing_goes_before_the_demand_is_known() -> None:
    made = fleet([model("a", *ENCODER, slo=1.0)], [pool(servers=8)])
    busy = made_for(made, a=1000.0)
    assert standing(mend(asked(made, busy, a=500.0), busy, lean=False)) == standing(busy)


def test_a_model_on_its_way_is_left_alone() -> None:
    made = fleet([model("a", *ENCODER, slo=1.0)], [pool(servers=8)])
    busy = made_for(made, a=1000.0)
    assert standing(mend(asked(made, busy, a=500.0), busy, frozenset({A}))) == standing(busy)


def test_the_highest_server_is_emptied_where_the_others_have_room() -> None:
    made = fleet([model("a", *ENCODER, slo=1.0), model("b", *ENCODER, slo=1.0)], [pool(servers=4)])
    apart = replace(
        asked(made, a=50.0, b=50.0), current=tuple(Replica(key, "v", ServerKey("p", n)) for n, key in enumerate((A, B)))
    )
    lean = mend(apart, None)
    assert lean.servers == {"p": 1}
    assert {replica.server.ordinal for replica in standing(lean)} == {0}


def test_what_is_leaving_is_had_back_before_anything_is_loaded() -> None:
    made = fleet([model("a", *ENCODER, slo=1.0)], [pool(servers=8)])
    two = made_for(made, a=500.0)
    gone = Replica(A, "v", ServerKey("p", 5))
    grown = mend(replace(asked(made, two, a=750.0), leaving=(gone,)), two, lean=False)
    assert set(standing(grown)) == {*standing(two), gone}


def test_room_that_is_not_free_yet_is_not_given_away() -> None:
    small = pool(servers=3, memory_bytes=int(1.5 * 2**30))
    made = fleet([model("a", *ENCODER, slo=1.0), model("b", *ENCODER, slo=1.0)], [small])
    stands = replace(asked(made, a=50.0, b=50.0), current=(Replica(B, "v", ServerKey("p", 1)),))
    free = mend(stands, None)
    taken = mend(replace(stands, leaving=(Replica(B, "v", ServerKey("p", 0)),)), None, lean=False)
    assert free.placements[A][0].server.ordinal == 0
    assert taken.placements[A][0].server.ordinal == 2


def test_a_generating_model_has_its_load_on_one_kind_of_accelerator() -> None:
    """A balancer gives a replica of 32 places as much as one of 512, and the small one is full at a sixteenth."""
    pools = [pool("small", servers=2), pool("large", servers=9, host_watts=130.0, product="Q")]
    made = fleet([model("a", *GENERATOR, slo=5.0)], pools)
    mixed = plan(asked(made, a=1200.0))
    assert {replica.server.pool for replica in standing(mixed)} == {"small", "large"}
    one = mend(asked(made, a=1200.0), None)
    assert len({replica.server.pool for replica in standing(one) if one.loads[replica].work_per_second > 0}) == 1
    assert not one.short


@pytest.mark.parametrize(("off_delay", "moved"), [(0.0, True), (36000.0, False)])
def test_a_better_plan_must_pay_for_the_way(off_delay: float, moved: bool) -> None:
    dear = replace(pool("dear", servers=2, host_watts=250.0), off_delay_seconds=off_delay, boot_delay_seconds=10.0)
    cheap = replace(pool("cheap", servers=2), boot_delay_seconds=10.0)
    made = fleet([model("a", *ENCODER, slo=1.0)], [dear, cheap])
    stands = replace(asked(made, a=100.0), current=(Replica(A, "v", ServerKey("dear", 0)),))
    way = improve(stands, None, Effort.normal())
    assert (way.plan.placements[A][0].server.pool == "cheap") is moved


def test_the_way_costs_what_new_servers_and_old_ones_draw_meanwhile() -> None:
    one = replace(pool("p", servers=4, idle_watts=100.0, host_watts=0.0), boot_delay_seconds=60.0, off_delay_seconds=300.0)
    made = fleet([model("a", *ENCODER, slo=1.0)], [one])
    few, many = made_for(made, a=250.0), made_for(made, a=500.0)
    pue = one.pue
    assert way_joules(made, many, few) == pytest.approx(pue * 100.0 * (rearranging.DRAIN_SECONDS + 300.0))
    seconds = 2**30 / rearranging.LOAD_BYTES_PER_SECOND
    load = max(one.busy_watts or 0.0, one.idle_watts) * seconds
    assert way_joules(made, few, many) == pytest.approx(pue * (100.0 * (60.0 + seconds) + load))


@given(WORK, WORK)
@settings(max_examples=30, deadline=None)
def test_mending_serves_what_a_plan_serves_and_draws_no_more_than_what_stood(first: list[float], then: list[float]) -> None:
    names = [f"m{n}" for n in range(6)]
    made = fleet([model(name, *ENCODER, slo=1.0) for name in names], [pool(servers=30)])
    stood = plan(asked(made, **dict(zip(names, first, strict=True))))
    now = asked(made, stood, **dict(zip(names, then, strict=True)))
    lean, kept = mend(now, stood), mend(now, stood, lean=False)
    assert not lean.short
    assert lean.watts <= kept.watts * (1 + 1e-9)
    assert all(len(lean.placements[m.key]) >= m.min_replicas for m in made.models)
