"""A true lower bound: watts that no plan of the same shortfall is below."""

import math

import numpy as np

from ergon.planning.effort import Effort, Weights
from ergon.planning.ground import Ground
from ergon.planning.limits import Limit, always_on_watts
from ergon.planning.linear import Prices
from ergon.planning.pool_level import PoolLevel, bound_at_prices, bound_in_watts, is_large
from ergon.planning.power import Figures
from ergon.planning.problem import Problem
from ergon.planning.servers import Servers, shortfall


def lower_bound_watts(
    problem: Problem,
    limits: tuple[Limit, ...],
    effort: Effort,
    servers: Servers,
    counted: Figures,
    level: PoolLevel | None,
    proof: float | None,
    before: Ground | None = None,
) -> tuple[float, Prices]:
    """The pool level's bound where it speaks of plans like this one, else one made for this plan's shortfall; and its prices.

    Where no pool level was solved it is made of an earlier plan's prices.
    """
    always = math.fsum(always_on_watts(problem, p) for p in range(len(problem.pools)))
    least = always + float((problem.on.server_watts * problem.on.least).sum())
    least += float((problem.on.node_watts * -(-problem.on.least // problem.on.per_node)).sum())
    missing, unserved = shortfall(servers)
    missing -= np.minimum(problem.lowest, problem.highest) - problem.need  # what no plan could have
    short = bool(missing.any() or unserved.any())
    bound: float | None = None
    prices: Prices = {}
    if level is not None and problem.weights == Weights() and not short and level.none_short:
        bound, prices = level.bound, level.prices
    elif level is not None and is_large(problem):
        prices = level.prices if problem.weights == Weights() else {}
        bound = bound_at_prices(problem, limits, effort, prices, (missing, unserved) if short else None)
    elif level is not None:
        bound, prices = bound_in_watts(problem, limits, effort, missing, unserved) or (None, prices)
    elif before is not None and before.prices:
        prices = before.prices_for(problem)
        bound = bound_at_prices(problem, limits, effort, prices, (missing, unserved) if short else None)
    if proof is not None and problem.weights == Weights():
        bound = max(bound or 0.0, proof)
    found = least if bound is None else max(least, always + bound)
    return min(found, counted.watts), prices
