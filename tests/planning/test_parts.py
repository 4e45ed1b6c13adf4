"""The planner's parts, each alone: candidates, operating points, the bound, steadiness, limits, bad input, effort."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from ergon.fleet.types import Fleet, Model, ModelKey, OperatingPoint, Pool, Replica, ServerKey, WattLimit
from ergon.planning import Effort, Plan, Reason, Weights, judge, plan
from ergon.planning.candidates import ORDER
from ergon.planning.linear import Programme
from ergon.planning.points import busy_share_limit
from ergon.planning.problem import build_problem
from tests.planning.fleets import ANY, random_fleet
from tests.planning.test_planner import fleet, model, pool, variant


def point(rate: float, watts: float, **more: object) -> OperatingPoint:
    fields: dict[str, object] = {"product": None, "accelerator_class": "cpu", "batch": 1, "work_per_second": rate, "watts": watts}
    return OperatingPoint(**{**fields, **more})  # type: ignore[arg-type]


def running(name: str, *points: OperatingPoint, memory: int = 100, **more: object) -> Model:
    return model(name, replace(variant(memory=memory), points=points), **more)  # type: ignore[arg-type]


def asked(pools: list[Pool], demand: dict[Model, float], **more: object) -> Fleet:
    return replace(fleet(pools, list(demand)), demand={m.key: work for m, work in demand.items()}, **more)


def standing(made: Plan) -> tuple[Replica, ...]:
    return tuple(replica for replicas in made.placements.values() for replica in replicas)


@pytest.mark.parametrize("seed", range(40))
def test_reasons_of_all_pairs_at_once_are_those_of_each_pair(seed: int) -> None:
    drawn = random_fleet(random.Random(seed), ANY)
    problem = build_problem(drawn, Weights())
    for v, chosen in enumerate(problem.variants):
        owner = problem.models[problem.model_of_variant[v]]
        for p, holder in enumerate(problem.pools):
            said = judge(drawn, owner, chosen, holder)
            assert problem.reason[v, p] == (len(ORDER) if said is None else ORDER.index(said.reason))


def test_the_least_marginal_energy_decides_and_the_larger_rate_where_it_ties() -> None:
    m = running("m", point(10, 110, batch=1), point(20, 210, batch=2), point(40, 610, batch=3))
    problem = build_problem(asked([pool("a", idle=10)], {m: 1.0}), Weights())
    assert problem.candidates.mu.tolist() == [20]


def test_queueing_takes_its_part_of_a_tight_latency() -> None:
    holder = pool("a")
    assert busy_share_limit(holder, None, 0.5) == 0.7
    assert busy_share_limit(holder, 0.2, 0.1) == pytest.approx(0.25)
    assert busy_share_limit(holder, 0.2, 0.2) is None
    assert busy_share_limit(holder, 0.2, 0.18) is None
    slow = running("m", point(10, 20, latency_seconds=0.18), slo_latency_seconds=0.2)
    told = plan(asked([holder], {slow: 1.0})).alternatives[slow.key]
    assert [a.reason for a in told] == [Reason.LATENCY_TOO_HIGH]


def test_a_second_generative_model_joins_the_awake_server() -> None:
    awake = [running(f"g{n}", point(100, 690, awake_watts=500)) for n in range(2)]
    made = plan(asked([pool("a", idle=70, servers=4, servers_min=2)], dict.fromkeys(awake, 10.0)))
    assert {replica.server for replica in standing(made)} == {ServerKey("a", 0)}
    assert made.watts == pytest.approx(2 * 70 + 430 + 2 * 0.1 * 190)
    assert made.gap < 1e-5


@pytest.mark.parametrize("work", [math.nan, -1.0, -math.inf, math.inf])
def test_demand_that_is_no_number_counts_as_none_and_is_told(work: float) -> None:
    good, bad = running("good", point(10, 20)), running("bad", point(10, 20))
    made = plan(asked([pool("a")], {good: 2.0, bad: work}))
    assert made.unserved == {}
    assert "team/bad" in made.notes[0]


def test_huge_demand_is_served_as_far_as_there_are_servers() -> None:
    m = running("m", point(10, 20))
    made = plan(asked([pool("a", servers=3)], {m: 1e30}))
    assert sum(load.work_per_second for load in made.loads.values()) == pytest.approx(21)
    assert made.unserved[m.key] == pytest.approx(1e30)


def test_the_higher_priority_is_served_first_under_a_watt_limit() -> None:
    low, high = running("a-low", point(10, 110)), running("z-high", point(10, 110), priority=900)
    limited = asked([pool("a", idle=10, servers=2)], {low: 5.0, high: 5.0}, watt_limits=(WattLimit("site", 80.0),))
    made = plan(limited)
    assert high.key not in made.unserved
    assert made.unserved[low.key] > 0
    assert made.watts <= 0.95 * 80 * (1 + 1e-9)
    assert made.over_limit_watts == {}


def test_servers_that_run_always_may_exceed_a_limit_alone() -> None:
    m = running("m", point(10, 110))
    made = plan(asked([pool("a", idle=100, servers_min=2)], {m: 1.0}, watt_limits=(WattLimit("site", 100.0),)))
    assert made.placements[m.key] == ()
    assert made.over_limit_watts == {"site": pytest.approx(200 - 95)}
    assert [a.reason for a in made.alternatives[m.key]] == [Reason.WATT_LIMIT]


def test_one_broken_model_does_not_keep_the_others_out() -> None:
    broken = model("broken", replace(variant(memory=99999), points=(point(math.nan, -1.0),)))
    good = [running(f"m{n}", point(10, 20)) for n in range(5)]
    made = plan(asked([pool("a")], dict.fromkeys((*good, broken), 1.0)))
    assert made.missing_replicas == {broken.key: 1}
    assert set(made.unserved) == {broken.key}


def test_nobody_moves_for_a_saving_that_does_not_pay() -> None:
    m = running("m", point(10, 20), point(10, 19, product="new"))
    pools = [pool("a", idle=10), pool("b", idle=10, product="new")]
    stands = Replica(m.key, "v", ServerKey("a", 0))
    kept = plan(replace(asked(pools, {m: 1.0}), current=(stands,)))
    assert kept.placements[m.key] == (stands,)
    assert [a.reason for a in kept.alternatives[m.key]] == [Reason.KEPT, Reason.MORE_ENERGY]


def test_after_a_lost_server_only_its_replicas_move() -> None:
    models = {running(f"m{n}", point(10, 20), memory=150): 1.0 for n in range(20)}
    start = asked([pool("a", servers=6)], models)
    before = plan(start)
    lost = replace(start, pools=(pool("a", servers=6, unavailable=frozenset({0})),), current=standing(before))
    after = plan(lost)
    gone = {replica for replica in standing(before) if replica.server.ordinal == 0}
    assert set(standing(before)) - set(standing(after)) == gone
    assert not after.short


def test_more_effort_is_never_worse() -> None:
    for seed in range(10):
        drawn = replace(random_fleet(random.Random(seed)), current=(), watt_limits=())
        quick, normal = plan(drawn, effort=Effort.quick()), plan(drawn, effort=Effort.normal())
        if not quick.short:
            assert normal.watts <= quick.watts * (1 + 1e-6)


def test_price_alone_may_be_what_counts() -> None:
    m = running("m", point(10, 20))
    cheap, frugal = pool("cheap", idle=50, price_per_server_hour=1.0), pool("frugal", idle=5, price_per_server_hour=9.0)
    start = asked([cheap, frugal], {m: 1.0})
    by_price = plan(start, weights=Weights(energy=0.0, price=1.0))
    assert (plan(start).servers, by_price.servers) == ({"cheap": 0, "frugal": 1}, {"cheap": 1, "frugal": 0})
    assert by_price.lower_bound_watts <= by_price.watts


def test_no_demand_places_the_least_replicas_and_no_more() -> None:
    waiting, asleep = model("waiting", replicas=1), model("asleep", replicas=0)
    made = plan(fleet([pool("a")], [waiting, asleep]))
    assert {key.name: len(replicas) for key, replicas in made.placements.items()} == {"waiting": 1, "asleep": 0}
    assert not made.short


def test_a_bound_from_row_prices_is_one_whatever_the_prices() -> None:
    programme = Programme()
    x = programme.add_columns(np.array([1.0, 2.0]), 10.0)
    row = programme.add_rows(1, lower=3.5)
    programme.put(np.array([row[0], row[0]]), x, 1.0)
    answer = programme.solver(5.0).relaxed()
    assert answer is not None
    assert (answer.cost, answer.bound) == (pytest.approx(3.5), pytest.approx(3.5))


def test_a_solver_without_time_is_told_and_a_plan_is_made_all_the_same() -> None:
    models = {running(f"m{n}", point(10, 20)): 1.0 for n in range(10)}
    made = plan(asked([pool("a", servers=6)], models), effort=replace(Effort.quick(), solver_seconds=0.0))
    assert not made.short
    assert any("solver" in note for note in made.notes)
    assert 0 <= made.lower_bound_watts <= made.watts


def test_alternatives_are_a_mapping_over_all_models() -> None:
    drawn = fleet([pool("a"), pool("b", "gpu")], [model("m"), model("n")])
    told = plan(drawn).alternatives
    assert list(told) == [ModelKey("team", "m"), ModelKey("team", "n")]
    assert told == dict(told)
    assert told == plan(drawn).alternatives
