"""Watt limits of budgets as constraints (planning.md, rule 7): what is in scope, what it draws anyway, what may be drawn."""

import math
from dataclasses import dataclass

import numpy as np

from ergon.fleet.types import Fleet
from ergon.planning.arrays import Bools
from ergon.planning.problem import Problem

HELD_SHARE = 0.95
"""Of a limit: planned power stays below it, so that what varies does not cross the limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """An enforced watt limit. `watts`: what the scope may draw. `pools`, `candidates`: what is in scope.

    `whole_pools`: the pools' whole power counts, not only what models add by executing. `constant`: watts drawn whatever the
    plan; `always_watts`: those with the least servers too. `over_watts`: by how much the servers that are on anyway exceed
    the limit; then nothing is placed in scope.
    """

    name: str
    watts: float
    pools: Bools
    candidates: Bools
    whole_pools: bool
    constant: float
    always_watts: float
    over_watts: float

    @property
    def hopeless(self) -> bool:
        """Whether nothing in scope can be placed without breaking it, and even that does not hold it."""
        return self.over_watts > 0


def build_limits(fleet: Fleet, problem: Problem) -> tuple[Limit, ...]:
    """The fleet's watt limits, by name."""
    return tuple(
        _limit(fleet, problem, index) for index in sorted(range(len(fleet.watt_limits)), key=lambda i: fleet.watt_limits[i].name)
    )


def _limit(fleet: Fleet, problem: Problem, index: int) -> Limit:
    spec, on, c = fleet.watt_limits[index], problem.on, problem.candidates
    pools = np.array([spec.pools is None or spec.pools.matches(pool.labels) for pool in problem.pools], np.bool_)
    candidates = pools[c.pool]
    if spec.namespaces is not None:
        names = {model.key.namespace for model in problem.models}
        inside = {name for name in names if spec.namespaces.matches(fleet.namespace_labels(name))}
        candidates = candidates & np.array([model.key.namespace in inside for model in problem.models], np.bool_)[c.model]
    watts = HELD_SHARE * spec.watts
    constant = always = 0.0
    if spec.namespaces is None:
        scope = np.flatnonzero(pools).tolist()
        constant = math.fsum(always_on_watts(problem, p) for p in scope)
        nodes = -(-on.least // on.per_node)
        always = constant + math.fsum((on.server_watts * on.least + on.node_watts * nodes)[scope])
    over = always - watts
    return Limit(
        name=spec.name,
        watts=watts,
        pools=pools,
        candidates=candidates,
        whole_pools=spec.namespaces is None,
        constant=constant,
        always_watts=always,
        over_watts=over if over > 1e-9 * max(spec.watts, 1.0) else 0.0,
    )


def closed_by(limits: tuple[Limit, ...], problem: Problem) -> Bools:
    """The candidates on pools whose limit is exceeded by the servers that are on anyway."""
    closed = np.zeros(len(problem.candidates.model), np.bool_)
    for limit in limits:
        if limit.hopeless:
            closed |= limit.pools[problem.candidates.pool]
    return closed


def always_on_watts(problem: Problem, p: int) -> float:
    """What a pool that does not scale in draws whatever the plan: host and idle power of all its servers."""
    pool = problem.pools[p]
    if pool.scale_in:
        return 0.0
    return pool.pue * (pool.host_watts * math.ceil(pool.servers_max / pool.servers_per_node) + pool.idle_watts * pool.servers_max)
