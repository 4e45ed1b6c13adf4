"""The planner against exact optima of tiny fleets. `python -m bench.plan --only exact` tries a thousand of each kind."""

import random

import pytest
from bench.plan.generator import instance
from bench.plan.shapes import SIZES, Style

from ergon.fleet.types import Fleet
from ergon.planning import plan
from tests.examples import examples
from tests.planning.compare import Compared, compared
from tests.planning.fleets import SOLVABLE, random_fleet
from tests.planning.judge import violations

WORST_GAP = 0.1


def checked(fleet: Fleet, seed: object) -> Compared:
    """The plan's distance from the optimum, the plan being valid and its bound a bound."""
    made = plan(fleet)
    assert violations(fleet, made) == [], seed
    found = compared(fleet, made, seconds=30.0)
    assert not found.failure.startswith("bound"), (seed, found.failure)
    return found


@pytest.mark.parametrize("first", range(0, examples(30), 30))
def test_plans_of_tiny_fleets_are_optimal_or_close(first: int) -> None:
    found = [checked(random_fleet(random.Random(seed), SOLVABLE), seed) for seed in range(first, first + 30)]
    assert max(one.gap for one in found) <= WORST_GAP
    assert sum(one.optimal for one in found) >= 0.95 * len(found)


@pytest.mark.parametrize("style", Style)
def test_plans_of_generated_tiny_fleets_are_optimal_or_close(style: Style) -> None:
    found = [checked(instance(SIZES["tiny"], style, seed, 0.8), (style, seed)) for seed in range(1, 1 + examples(1))]
    assert max(one.gap for one in found) <= WORST_GAP
    assert [one.failure for one in found if one.failure] == []
