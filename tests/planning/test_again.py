"""Planning again from the plan before: true and valid whatever changed, quick because hardly anything is worked out anew."""

import random
from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from ergon.fleet.types import Fleet, ModelKey, OperatingPoint, Replica, ServerKey, Variant
from ergon.planning import Effort, Plan, Reason, Weights, plan
from ergon.planning.problem import build_problem
from ergon.reconcile.rearranging import mend
from tests.planning.fleets import SOUND, Shape, fleets
from tests.planning.judge import tiers, violations
from tests.planning.test_planner import fleet as asked
from tests.planning.test_planner import model, pool, variant
from tests.planning.test_properties import in_order, placed, shuffled, tried, worse

CALM = Shape(models=12, pools=4, servers=6, odd=False, past=False)


def changed(chance: random.Random, fleet: Fleet, made: Plan) -> Fleet:
    """The fleet with a plan standing, and one thing in it another: a demand, a server, a model, what may be where."""
    fleet = replace(fleet, current=tuple(sorted(placed(made), key=str)))
    models, pools = list(fleet.models), list(fleet.pools)
    kind = chance.choice(["more", "less", "none", "lost", "gone", "newer", "avoids"])
    key = chance.choice(models).key if models else ModelKey("none", "none")
    if kind in ("more", "less"):
        factor = 2.0 if kind == "more" else 0.4
        return replace(fleet, demand={**fleet.demand, key: fleet.demand.get(key, 0.0) * factor})
    if kind == "lost" and pools:
        which = chance.randrange(len(pools))
        lost = chance.randrange(max(1, pools[which].servers_max))
        pools[which] = replace(pools[which], unavailable=pools[which].unavailable | {lost})
        return replace(fleet, pools=tuple(pools))
    if kind == "gone":
        return replace(fleet, models=tuple(m for m in models if m.key != key))
    if kind == "newer":
        bigger = [replace(m, min_replicas=m.min_replicas + 1, max_replicas=None) if m.key == key else m for m in models]
        return replace(fleet, models=tuple(bigger))
    if kind == "avoids" and fleet.current:
        replica = chance.choice(fleet.current)
        revision = next(
            v.load_revision for m in models if m.key == replica.model for v in m.variants if v.name == replica.variant
        )
        return replace(fleet, avoided=frozenset({(replica.model, revision, replica.server)}))
    return fleet


@tried
@given(fleets(CALM), st.randoms(use_true_random=False, note_method_calls=False))
def test_planning_again_after_a_change_keeps_the_contract_and_owes_nothing_to_order(fleet: Fleet, chance: random.Random) -> None:
    before = plan(fleet)
    after = changed(chance, fleet, before)
    again = plan(after, effort=Effort.quick(), before=before)
    assert violations(after, again) == []
    assert in_order(plan(shuffled(chance, after), effort=Effort.quick(), before=before)) == in_order(again)
    assert worse(tiers(after, again), tiers(after, plan(after, effort=Effort.quick()))) == ""


@tried
@given(fleets(CALM), st.randoms(use_true_random=False, note_method_calls=False))
def test_its_bound_is_true_for_every_plan_that_serves_as_much(fleet: Fleet, chance: random.Random) -> None:
    before = plan(fleet)
    after = changed(chance, fleet, before)
    again, best = plan(after, effort=Effort.quick(), before=before), plan(replace(after, current=()))
    if tiers(after, again) == tiers(after, best):
        assert again.lower_bound_watts <= best.watts * (1 + 1e-9) + 1e-9


@tried
@given(fleets(SOUND))
def test_planning_again_from_a_plan_with_what_it_knows_moves_nothing(fleet: Fleet) -> None:
    first = plan(replace(fleet, current=()))
    again = plan(replace(fleet, current=tuple(sorted(placed(first), key=str))), effort=Effort.quick(), before=first)
    assert placed(again) == placed(first)
    assert again.servers == first.servers


@tried
@given(fleets(CALM), st.randoms(use_true_random=False, note_method_calls=False))
def test_arrays_that_were_taken_over_are_those_that_would_be_made(fleet: Fleet, chance: random.Random) -> None:
    after = changed(chance, fleet, plan(fleet))
    carried = build_problem(after, Weights(), build_problem(fleet, Weights()))
    made = build_problem(after, Weights())
    assert carried.variants == made.variants
    assert (carried.reason == made.reason).all()
    for field in fields(made.candidates):
        assert (getattr(carried.candidates, field.name) == getattr(made.candidates, field.name)).all(), field.name
    assert (carried.standing, carried.refused) == (made.standing, made.refused)


def test_a_large_fleet_is_mended_with_few_moves_and_never_planned_anew_at_once() -> None:
    models = [model(f"m{n:03}", variant(memory=300)) for n in range(300)]
    large = asked([pool(f"p{n}", memory=1000, servers=15) for n in range(8)], models)
    before = plan(large, effort=Effort.quick())
    assert not before.short
    stands = tuple(placed(before))
    lost = next(r.server for r in stands)
    pools = tuple(replace(p, unavailable=frozenset({lost.ordinal})) if p.name == lost.pool else p for p in large.pools)
    again = plan(replace(large, pools=pools, current=stands), effort=Effort.quick(), before=before)
    assert not again.short
    assert len(placed(again) - set(stands)) == sum(r.server == lost for r in stands)


def test_room_is_made_by_moving_who_has_another_place() -> None:
    """A model of 800 MiB finds no server with room; one of 300 goes from one server to the other."""
    small = [model(f"s{n}", variant(memory=300)) for n in range(2)]
    stands = tuple(Replica(m.key, "v", ServerKey("a", n)) for n, m in enumerate(small))
    before = plan(asked([pool("a")], small, stands), effort=Effort.quick())
    assert placed(before) == set(stands)
    again = plan(asked([pool("a")], [*small, model("big", variant(memory=800))], stands), effort=Effort.quick(), before=before)
    assert not again.missing_replicas
    assert len(placed(again) ^ set(stands)) == 3


def test_who_matters_more_takes_the_room_of_those_who_idle() -> None:
    low = [model(f"low{n}", variant(memory=400), priority=10) for n in range(4)]
    full = [pool("a", memory=1000, servers=2)]
    before = plan(asked(full, low))
    stands = tuple(sorted(placed(before), key=str))
    high = model("high", variant(memory=900), priority=900)
    for known in (None, before):
        again = plan(asked(full, [*low, high], stands), effort=Effort.quick(), before=known)
        assert [replica.server.pool for replica in again.placements[high.key]] == ["a"]
        assert sum(again.missing_replicas.values()) == 2
        assert set(again.missing_replicas) < {m.key for m in low}
        out = next(iter(again.missing_replicas))
        assert [a.reason for a in again.alternatives[out]] == [Reason.NO_ROOM]
        assert len(placed(again) & set(stands)) == 2


def test_what_keeps_failing_goes_elsewhere_and_stays_where_nothing_else_has_room() -> None:
    m = model("m")
    stands = Replica(m.key, "v", ServerKey("a", 0))
    avoided = frozenset({(m.key, "l-v", ServerKey("a", 0))})
    moved = plan(asked([pool("a")], [m], (stands,), avoided=avoided))
    assert [replica.server.ordinal for replica in moved.placements[m.key]] == [1]
    alone = plan(asked([pool("a", servers=1)], [m], (stands,), avoided=avoided))
    assert alone.placements[m.key] == (stands,)
    twice = avoided | {(m.key, "l-v", ServerKey("a", 1))}
    assert [r.server.ordinal for r in plan(asked([pool("a", servers=3)], [m], avoided=twice)).placements[m.key]] == [2]


def measured() -> Variant:
    """Serves 100 a second with a server of its own, for 100 W."""
    point = OperatingPoint(None, "cpu", 1, 100.0, 0.01, 100.0, None)
    return replace(variant(), points=(point,))


def test_a_replica_that_others_can_stand_in_for_goes_and_its_server_is_shut() -> None:
    """Three servers carried the morning's demand; in the evening one has room for it, and a little more."""
    one = model("m", measured())
    morning = asked([pool("a", servers=3, idle=50)], [one], demand={one.key: 190.0})
    before = plan(morning)
    assert len(placed(before)) == 3
    evening = replace(morning, current=tuple(sorted(placed(before), key=str)), demand={one.key: 50.0})
    again = mend(evening, before)
    assert violations(evening, again) == []
    assert placed(again) == {Replica(one.key, "v", ServerKey("a", 0))}
    assert again.servers == {"a": 1}


def test_a_server_with_room_is_used_before_another_is_opened() -> None:
    first, second = model("first", measured()), model("second", measured())
    small = asked([pool("a", servers=3, idle=50)], [first], demand={first.key: 20.0})
    before = plan(small)
    both = replace(small, models=(first, second), current=tuple(placed(before)), demand={first.key: 20.0, second.key: 30.0})
    again = plan(both, effort=Effort.quick(), before=before)
    assert not again.short
    assert again.servers == {"a": 1}
