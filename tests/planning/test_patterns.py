"""Patterns of whole servers: always something that a server can hold, as good as the best where that is known, and of use."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from bench.plan.generator import instance
from bench.plan.shapes import SIZES, Size, Style

from ergon.fleet.types import Fleet
from ergon.planning import Effort, Weights, plan
from ergon.planning.arrays import Floats
from ergon.planning.problem import Problem, build_problem
from ergon.planning.shelves import Pattern, Shelf
from tests.planning.fleets import SOUND, random_fleet
from tests.planning.judge import violations


def shelves(fleet: Fleet) -> tuple[Problem, list[Shelf]]:
    problem = build_problem(fleet, Weights())
    useful = problem.candidates.useful
    return problem, [Shelf(problem, p, useful) for p in range(len(problem.pools))]


def prices(chance: random.Random, shelf: Shelf) -> tuple[Floats, Floats, Floats]:
    """J of busy share and of replicas, and what is left of demands, by candidate."""
    count = len(shelf.candidates)
    worth = np.array([chance.choice((0.0, chance.uniform(1, 100))) for _ in range(count)])
    replica = np.array([chance.choice((0.0, 0.0, chance.uniform(-5, 20))) for _ in range(count)])
    return worth, replica, np.array([chance.choice((1.0, chance.random())) for _ in range(count)])


def broken(problem: Problem, shelf: Shelf, pattern: Pattern, left: Floats) -> list[str]:
    """Every way in which no server could hold the pattern."""
    c, k = problem.candidates, pattern.candidates
    found = []
    if (c.pool[k] != shelf.pool).any() or pattern.pool != shelf.pool:
        found.append("another pool's")
    if len(set(c.model[k].tolist())) < len(k):
        found.append("two of a model")
    if c.memory_bytes[k].sum() > problem.on.memory_bytes[shelf.pool] * (1 + 1e-9) or len(k) > problem.on.slots[shelf.pool]:
        found.append("memory or places")
    if pattern.busy.sum() > c.rho[k].min(initial=1.0) * (1 + 1e-9):
        found.append("busy share")
    at = np.searchsorted(shelf.candidates, k)
    if (pattern.busy > np.minimum(c.rho[k], shelf.whole[at] * left[at]) * (1 + 1e-9)).any() or (pattern.busy < 0).any():
        found.append("more than is asked for")
    return found


@pytest.mark.parametrize("seed", range(60))
def test_a_server_can_hold_every_pattern(seed: int) -> None:
    chance = random.Random(seed)
    problem, all_shelves = shelves(random_fleet(chance, SOUND))
    for shelf in all_shelves:
        worth, replica, left = prices(chance, shelf)
        for pattern in shelf.patterns(worth, replica, 1.0, left, 30):
            assert broken(problem, shelf, pattern, left) == []


@pytest.mark.parametrize("style", [Style.MIXED, Style.TIGHT_MEMORY])
def test_a_server_can_hold_every_pattern_of_a_larger_fleet(style: Style) -> None:
    problem, all_shelves = shelves(instance(SIZES["small"], style, 1, 0.8))
    chance = random.Random(1)
    for shelf in all_shelves:
        worth, replica, left = prices(chance, shelf)
        made = shelf.patterns(worth, replica, 1.0, left, 30)
        assert made
        assert [broken(problem, shelf, pattern, left) for pattern in made] == [[]] * len(made)


def best_of_few(problem: Problem, shelf: Shelf, worth: Floats) -> float:
    """What is worth most on a server, every set tried; candidates have no awake watts, and replicas are worth nothing."""
    c, most = problem.candidates, 0.0
    cap = np.minimum(shelf.rho, shelf.whole)
    for size in range(1, len(shelf.candidates) + 1):
        for some in itertools.combinations(range(len(shelf.candidates)), size):
            k = np.array(some)
            models = set(shelf.model[k].tolist())
            fits = shelf.memory[k].sum() <= 1 and size <= problem.on.slots[shelf.pool] and len(models) == size
            if not fits:
                continue
            order = k[np.argsort(-worth[k])]
            before = np.cumsum(cap[order]) - cap[order]
            busy = np.clip(np.minimum(c.rho[shelf.candidates[k]].min() - before, cap[order]), 0.0, None)
            most = max(most, float((busy * worth[order]).sum()))
    return most


@pytest.mark.parametrize("seed", range(40))
def test_the_worthiest_pattern_is_close_to_the_best_of_all(seed: int) -> None:
    chance = random.Random(seed)
    problem, all_shelves = shelves(random_fleet(chance, replace(SOUND, models=6)))
    for shelf in all_shelves:
        if not len(shelf.candidates) or len(shelf.candidates) > 8 or shelf.awake.any() or not shelf.carries.all():
            continue
        worth, _, _ = prices(chance, shelf)
        none, every = np.zeros(len(worth)), np.ones(len(worth))
        found = [
            float((pattern.busy * worth[np.searchsorted(shelf.candidates, pattern.candidates)]).sum())
            for pattern in shelf.patterns(worth, none, 1.0, every, 200)
        ]
        assert max(found, default=0.0) >= 0.99 * best_of_few(problem, shelf, worth)


def test_plans_by_patterns_are_valid_and_never_worse() -> None:
    fleet = instance(Size(40, 5, 25), Style.TIGHT_MEMORY, 1, 1.2)
    effort = replace(Effort.normal(), caps=0, fills=(), closings=40, rounds=20, exact_binaries=0)
    without, made = (plan(fleet, effort=replace(effort, pattern_rounds=rounds)) for rounds in (0, 4))
    assert violations(fleet, made) == []
    assert not made.short
    assert made.watts <= without.watts
