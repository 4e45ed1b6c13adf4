"""What holds for every plan, on fleets drawn by hypothesis.

Each is tried on the same few in every run, and on ten times as many by `make test-thorough`. A fleet that fails is not made
smaller, which takes minutes, unless ERGON_PLAN_SHRINK is set.
"""

import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica
from ergon.planning import Plan, plan
from tests.examples import examples
from tests.planning.fleets import ANY, FRESH, SOUND, Shape, fleets
from tests.planning.judge import tiers, violations
from tests.planning.law import Law

T = TypeVar("T")
PHASES = [Phase.explicit, Phase.generate, *([Phase.shrink] if "ERGON_PLAN_SHRINK" in os.environ else [])]
tried = settings(
    max_examples=examples(30),
    derandomize=True,
    deadline=None,
    database=None,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
)
Tiers = list[tuple[int, int, float]]


def placed(made: Plan) -> set[Replica]:
    """Every replica of a plan."""
    return {replica for replicas in made.placements.values() for replica in replicas}


def worse(shortfall: Tiers, than: Tiers) -> str:
    """The highest tier in which one shortfall is worse than another, empty where it is not. Unserved work: to a millionth."""
    for (priority, missing, unserved), (_, before, unserved_before) in zip(shortfall, than, strict=True):
        if missing != before:
            return f"priority {priority}: {missing} replicas missing, {before} before" if missing > before else ""
        if not math.isclose(unserved, unserved_before, rel_tol=1e-6, abs_tol=1e-9):
            return f"priority {priority}: {unserved} unserved, {unserved_before} before" if unserved > unserved_before else ""
    return ""


@tried
@given(fleets(ANY))
def test_every_plan_keeps_the_contract_whatever_is_asked(fleet: Fleet) -> None:
    assert violations(fleet, plan(fleet)) == []


@tried
@given(fleets(Shape(models=12, pools=4, servers=6, odd=False)))
def test_plans_of_larger_fleets_keep_the_contract(fleet: Fleet) -> None:
    assert violations(fleet, plan(fleet)) == []


def shuffled(chance: random.Random, fleet: Fleet) -> Fleet:
    """The same fleet, everything in it in another order."""

    def mixed(parts: Sequence[T]) -> tuple[T, ...]:
        return tuple(chance.sample(list(parts), len(parts)))

    models = [
        replace(model, variants=mixed([replace(variant, points=mixed(variant.points)) for variant in model.variants]))
        for model in fleet.models
    ]
    return replace(
        fleet,
        pools=mixed(fleet.pools),
        models=mixed(models),
        current=mixed(fleet.current),
        watt_limits=mixed(fleet.watt_limits),
        demand=dict(mixed(list(fleet.demand.items()))),
    )


def in_order(made: Plan) -> tuple[object, ...]:
    """A plan, so that two that say the same are equal."""
    return (
        placed(made),
        made.servers,
        made.missing_replicas,
        made.loads,
        made.unserved,
        made.over_limit_watts,
        (made.watts, made.price_per_hour, made.grams_per_hour, made.lower_bound_watts),
        {key: sorted(map(repr, told)) for key, told in made.alternatives.items()},
    )


@tried
@given(fleets(SOUND), st.randoms(use_true_random=False, note_method_calls=False))
def test_the_same_fleet_gives_the_same_plan_in_any_order(fleet: Fleet, chance: random.Random) -> None:
    first = in_order(plan(fleet))
    assert in_order(plan(fleet)) == first
    assert in_order(plan(shuffled(chance, fleet))) == first


@tried
@given(fleets(FRESH))
def test_planning_again_from_a_plan_moves_nothing(fleet: Fleet) -> None:
    first = plan(fleet)
    again = plan(replace(fleet, current=tuple(sorted(placed(first), key=str))))
    assert placed(again) == placed(first)
    assert again.servers == first.servers


@tried
@given(fleets(Shape(odd=False, limits=False)))
def test_what_stands_never_costs_shortfall(fleet: Fleet) -> None:
    fresh = plan(replace(fleet, current=()))
    assert worse(tiers(fleet, plan(fleet)), tiers(fleet, fresh)) == ""


@tried
@given(fleets(Shape(odd=False, past=False, limits=False)), st.integers(0, 10))
def test_one_more_server_adds_no_shortfall(fleet: Fleet, which: int) -> None:
    larger = replace(fleet, pools=_one_more(fleet.pools, which % len(fleet.pools)))
    assert worse(tiers(larger, plan(larger)), tiers(fleet, plan(fleet))) == ""


def _one_more(pools: tuple[Pool, ...], which: int) -> tuple[Pool, ...]:
    return tuple(
        replace(pool, servers_max=pool.servers_max + 1) if number == which else pool for number, pool in enumerate(pools)
    )


@tried
@given(fleets(FRESH))
def test_who_is_below_takes_nothing_from_who_is_above(fleet: Fleet) -> None:
    known = Law(fleet)
    levels = sorted({known.priority(model.key) for model in fleet.models}, reverse=True)
    whole = tiers(fleet, plan(fleet))
    for number, level in enumerate(levels[:-1], start=1):
        alone = without(fleet, lambda model, level=level: known.priority(model.key) < level)
        assert worse(whole[:number], tiers(alone, plan(alone))) == ""


def without(fleet: Fleet, gone: Callable[[Model], bool]) -> Fleet:
    """The fleet without some of its models."""
    return replace(fleet, models=tuple(model for model in fleet.models if not gone(model)))


@tried
@given(fleets(SOUND))
def test_every_model_is_told_why_it_is_where_it_is(fleet: Fleet) -> None:
    made = plan(fleet)
    short: set[ModelKey] = {*made.missing_replicas, *(key for key, work in made.unserved.items() if work > 0)}
    for model in fleet.models:
        told = made.alternatives.get(model.key, ())
        assert len(told) == len(model.variants) * len(fleet.pools)
        assert any(said.verdict == "Chosen" for said in told) == bool(made.placements.get(model.key))
    assert made.short == bool(short)
