"""Find the servers of every replica: from nothing by way of the pool level, and from what stands."""

from dataclasses import dataclass

from ergon.planning.effort import Effort
from ergon.planning.limits import Limit
from ergon.planning.packing import pack
from ergon.planning.placing import Placer
from ergon.planning.pool_level import PoolLevel, solve_pools
from ergon.planning.problem import Problem
from ergon.planning.servers import Servers
from ergon.planning.settle import settle
from ergon.planning.steady import earns_its_moves, mend


@dataclass(frozen=True, slots=True)
class Found:
    """Servers with their replicas, the pool level that led there (None: the solver had no answer), and what to say of it."""

    servers: Servers
    level: PoolLevel | None
    notes: tuple[str, ...]


def search(problem: Problem, limits: tuple[Limit, ...], effort: Effort) -> Found:
    """The best plan that the effort finds, and that is worth its moves."""
    level = solve_pools(problem, limits, effort)
    notes = (
        ()
        if level is not None
        else ("the solver gave no answer in its time: placed greedily, without a lower bound to speak of",)
    )
    if not problem.standing:
        return Found(anew(problem, limits, level), level, notes)
    mended = mend(problem, limits, effort)
    better = anew(problem, limits, level)
    return Found(better if earns_its_moves(better, mended) else mended, level, notes)


def anew(problem: Problem, limits: tuple[Limit, ...], level: PoolLevel | None) -> Servers:
    """A plan made as if nothing stood, put where most of it stands already."""
    servers = Servers.empty(problem, limits)
    placer = Placer(servers)
    if level is not None:
        pack(placer, level, by_priority=not level.none_short)
    for m in sorted(range(len(problem.models)), key=lambda m: (problem.tier[m], m)):
        placer.place_all(m)
    return settle(servers)
