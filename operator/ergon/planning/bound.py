"""A true lower bound: watts that no plan of the same shortfall is below."""

import math

import numpy as np

from ergon.planning.effort import Effort, Weights
from ergon.planning.limits import Limit, always_on_watts
from ergon.planning.pool_level import PoolLevel, bound_in_watts
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
) -> float:
    """The pool level's bound where it speaks of plans like this one, else one made for this plan's shortfall."""
    always = math.fsum(always_on_watts(problem, p) for p in range(len(problem.pools)))
    least = always + float((problem.on.server_watts * problem.on.least).sum())
    least += float((problem.on.node_watts * -(-problem.on.least // problem.on.per_node)).sum())
    missing, unserved = shortfall(servers)
    missing -= np.minimum(problem.lowest, problem.highest) - problem.need  # what no plan could have
    short = bool(missing.any() or unserved.any())
    bound: float | None = None
    if level is not None and problem.weights == Weights() and not short and level.none_short:
        bound = level.bound
    elif level is not None:
        bound = bound_in_watts(problem, limits, effort, missing, unserved)
    if proof is not None and problem.weights == Weights():
        bound = max(bound or 0.0, proof)
    found = least if bound is None else max(least, always + bound)
    return min(found, counted.watts)
