"""What the bench of plans stands on: simpler planners are valid, comparisons are at equal shortfall, moves are counted right."""

import random
from functools import cache

import pytest
from bench.plan.against import served_by
from bench.plan.baselines import BASELINES
from bench.plan.generator import instance
from bench.plan.measure import gap_of, moves, replicas
from bench.plan.shapes import SIZES, Style

from ergon.fleet.types import Fleet
from ergon.planning import Plan
from tests.planning.fleets import FRESH, random_fleet
from tests.planning.judge import broken_constraints, tiers


@cache
def small(style: Style) -> Fleet:
    """A fleet of a hundred models, which takes longer to draw than to plan."""
    return instance(SIZES["small"], style, 1, 0.8)


@pytest.mark.parametrize("name", BASELINES)
def test_simpler_planners_make_valid_plans(name: str) -> None:
    for seed in range(120):
        fleet = random_fleet(random.Random(seed), FRESH)
        assert broken_constraints(fleet, BASELINES[name](fleet)) == [], seed
    for style in Style:
        fleet = small(style)
        assert broken_constraints(fleet, BASELINES[name](fleet)) == [], style


@pytest.mark.parametrize("name", BASELINES)
def test_what_a_plan_serves_can_be_asked_for_alone(name: str) -> None:
    for style in Style:
        fleet = small(style)
        made = BASELINES[name](fleet)
        asked = served_by(fleet, made)
        assert not any(missing or unserved for _, missing, unserved in tiers(asked, made))


def test_moves_are_loads_and_unloads_and_the_gap_leaves_out_what_always_runs() -> None:
    fleet = small(Style.MIXED)
    first, other = BASELINES["cheapest price"](fleet), BASELINES["first fit by class"](fleet)
    assert moves(replicas(first), first) == 0
    assert moves((), first) == len(first.loads)
    assert moves(replicas(first), other) == moves(replicas(other), first) > 0
    sunk = 6564.585
    assert gap_of(fleet, Plan(watts=sunk + 220, lower_bound_watts=sunk + 200)) == pytest.approx(0.1)
