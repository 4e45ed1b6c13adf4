"""The optimum over whole pools: which share of each model goes where, how many servers and nodes are on, and what that bounds."""

from dataclasses import replace

import numpy as np

from ergon.planning.arrays import Floats, Ints
from ergon.planning.effort import Effort
from ergon.planning.limits import Limit
from ergon.planning.linear import INFINITY, Answer, Prices
from ergon.planning.pool_programme import SIFTED_FROM, PoolLevel, PoolProgramme
from ergon.planning.problem import Problem

__all__ = ["PoolLevel", "bound_at_prices", "bound_in_watts", "guide", "is_large", "solve_pools"]

_FILL_OF_LARGE = 0.96
"""Of a server's busy share what the pool level gives away in large fleets."""

_PATIENCE_OF_LARGE = 4.0
"""Times the guard of others: a relaxation takes 3 s of a core, which on a machine that is kept busy is many."""


def solve_pools(problem: Problem, limits: tuple[Limit, ...], effort: Effort) -> PoolLevel | None:
    """The pool-level optimum, with its bound; None when the solver has no answer in its time."""
    if not len(problem.candidates.model):
        none, pools = np.zeros(0), np.zeros(len(problem.pools))
        nodes = -(-problem.on.least // problem.on.per_node)
        sunk = float((problem.on.server_cost * problem.on.least + problem.on.node_cost * nodes).sum())
        models = np.zeros(len(problem.models))
        least = problem.on.least.astype(float)
        return PoolLevel(none, none, least, pools, pools, pools, models, models, sunk, none_short=True)
    if is_large(problem):
        return _solve_large(problem, limits, effort)
    model = PoolProgramme(problem, limits, effort, lenient=False)
    relaxed = model.relaxed()
    if relaxed is None:
        return None
    if model.lacks(relaxed):
        return _solve_short(problem, limits, effort)
    for column in (*model.columns.unserved.tolist(), *model.columns.missing.tolist()):
        model.solver.set_column(column, 0.0, 0.0)
    return _in_whole(model, relaxed, effort, none_short=True)


def guide(
    problem: Problem, limits: tuple[Limit, ...], effort: Effort, *, fill: float = 1.0, most: Ints | None = None
) -> PoolLevel | None:
    """Another pool level to pack, without whole numbers; None where something would be short. Its bound is none for plans.

    `fill`: of a server's busy share what is given away; below 1 it leaves room for what packing loses. `most`: servers by pool.
    """
    model = PoolProgramme(problem, limits, effort, lenient=False, fill=fill)
    if most is not None:
        for column, least, count in zip(model.columns.servers.tolist(), problem.on.least.tolist(), most.tolist(), strict=True):
            model.solver.set_column(column, float(least), float(max(least, count)))
    relaxed = model.relaxed()
    if relaxed is None or model.lacks(relaxed):
        return None
    return model.read(relaxed, relaxed.prices, relaxed.bound, none_short=True)


def _in_whole(model: PoolProgramme, relaxed: Answer, effort: Effort, *, none_short: bool) -> PoolLevel:
    solved = relaxed
    bound = relaxed.bound
    if effort.mip_nodes and len(model.solver.cost) <= effort.mip_columns:
        if len(model.solver.cost) > effort.whole_columns:
            model.awake_in_parts()
        whole = model.solver.in_whole(effort.mip_nodes, gap=1e-4)
        if whole is not None:
            solved, bound = whole, max(bound, whole.bound)
    level = model.read(solved, relaxed.prices, bound, none_short=none_short)
    return replace(level, in_whole=solved is not relaxed)


def _solve_large(problem: Problem, limits: tuple[Limit, ...], effort: Effort) -> PoolLevel | None:
    """The same with one relaxation for packing and for the bound, where each takes seconds.

    A part of each server is kept back for what packing loses; at prices for whole servers the relaxation's are a bound all the
    same. Where something lacks, packing goes by priority: a relaxation for each would take minutes.
    """
    patient = replace(effort, solver_seconds=_PATIENCE_OF_LARGE * effort.solver_seconds)
    model = PoolProgramme(problem, limits, patient, lenient=False, fill=_FILL_OF_LARGE)
    relaxed = model.relaxed()
    if relaxed is None:
        return None
    named = model.name_prices(relaxed.prices)
    prices = {
        name: (of, priced * _FILL_OF_LARGE if name in ("pool busy", "level load") else priced)
        for name, (of, priced) in named.items()
    }
    bound = PoolProgramme(problem, limits, effort, lenient=False).bound_at(prices, None)
    level = model.read(relaxed, relaxed.prices, bound, none_short=not model.lacks(relaxed))
    return replace(level, prices=prices)


def _solve_short(problem: Problem, limits: tuple[Limit, ...], effort: Effort) -> PoolLevel | None:
    """The same where not everything can be served: least shortfall first, priority by priority from the highest."""
    model = PoolProgramme(problem, limits, effort, lenient=True)
    solver = model.solver
    solver.set_tolerance(1e-9)  # at 1e-7 a tier held to its optimum was infeasible for the next in 40 % of small, short fleets
    for tier in model.tiers:
        worth = np.zeros(len(solver.cost))
        worth[tier.columns] = tier.weights
        solver.set_cost(worth)
        best = solver.relaxed()
        if best is None:
            return None
        solver.set_row(tier.row, -INFINITY, max(0.0, best.cost) * (1 + 1e-9) + 1e-7)
    solver.set_cost(model.cost_of_running())
    relaxed = solver.relaxed()
    return None if relaxed is None else model.read(relaxed, relaxed.prices, relaxed.bound, none_short=False)


def bound_in_watts(
    problem: Problem, limits: tuple[Limit, ...], effort: Effort, missing: Floats, unserved: Floats
) -> tuple[float, Prices] | None:
    """Watts, those that are drawn anyway left out, that no plan is below that lacks no more than this in any tier; the prices."""
    model = PoolProgramme(problem, limits, effort, lenient=True, watts=True)
    for number, tier in enumerate(model.tiers):
        lacking = float((missing if number % 2 == 0 else unserved)[tier.models].sum()) / tier.unit
        model.solver.set_row(tier.row, -INFINITY, lacking * (1 + 1e-9) + 1e-9)
    model.solver.set_cost(model.cost_of_running())
    relaxed = model.relaxed()
    return None if relaxed is None else (relaxed.bound, model.name_prices(relaxed.prices))


def bound_at_prices(
    problem: Problem, limits: tuple[Limit, ...], effort: Effort, prices: Prices, lacking: tuple[Floats, Floats] | None
) -> float:
    """The same from prices that were found for another fleet, without solving anything.

    `lacking`: replicas missing and work unserved by model, None where nothing lacks. Any prices give a true bound (weak
    duality); those of a fleet much like this one a good one. What a model's demand, or shortfall, is worth is found anew.
    """
    model = PoolProgramme(problem, limits, effort, lenient=lacking is not None, watts=True)
    return model.bound_at(prices, lacking)


def is_large(problem: Problem) -> bool:
    """Whether the programme is solved by sifting, and as seldom as may be."""
    return len(problem.candidates.model) > SIFTED_FROM
