"""Find the servers of every replica: from nothing by way of the pool level, and from what stands."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ergon.planning.effort import Effort
from ergon.planning.exact import solve_whole
from ergon.planning.improve import improve
from ergon.planning.limits import Limit
from ergon.planning.packing import pack
from ergon.planning.placing import Placer
from ergon.planning.pool_level import PoolLevel, solve_pools
from ergon.planning.power import figures
from ergon.planning.problem import Problem
from ergon.planning.servers import Servers, less_short
from ergon.planning.settle import settle
from ergon.planning.shares import share_out
from ergon.planning.shed import hold_limits
from ergon.planning.steady import earns_its_moves, mend, rank_of_shortfall


@dataclass(frozen=True, slots=True)
class Found:
    """Servers with their replicas, the pool level that led there (None: the solver had no answer), and what to say of it.

    `proof`: J that no plan of this shortfall is below, where more is known than the pool level says.
    """

    servers: Servers
    level: PoolLevel | None
    notes: tuple[str, ...]
    proof: float | None = None


def search(problem: Problem, limits: tuple[Limit, ...], effort: Effort) -> Found:
    """The best plan that the effort finds, and that is worth its moves."""
    level = solve_pools(problem, limits, effort)
    notes = (
        ()
        if level is not None
        else ("the solver gave no answer in its time: placed greedily, without a lower bound to speak of",)
    )
    if not problem.standing:
        return replace(anew(problem, limits, level, effort), notes=notes)
    mended = mend(problem, limits, effort)
    hold_limits(mended)
    better = anew(problem, limits, level, effort)
    if earns_its_moves(better.servers, mended):
        return replace(better, notes=notes)
    same = not less_short(rank_of_shortfall(better.servers), rank_of_shortfall(mended))
    return Found(mended, level, notes, better.proof if same else None)


def anew(problem: Problem, limits: tuple[Limit, ...], level: PoolLevel | None, effort: Effort) -> Found:
    """A plan made as if nothing stood, put where most of it stands already."""
    best = _packed(problem, limits, level, effort, by_rho=False)
    for guide, by_rho in _guides(problem, limits, level, effort):
        placer = _packed(problem, limits, guide, effort, by_rho=by_rho)
        if _better(placer.servers, best.servers):
            best = placer
    proof = _exactly(best, effort)
    settled = settle(best.servers)
    hold_limits(settled)
    return Found(settled, level, (), proof)


def _guides(
    problem: Problem, limits: tuple[Limit, ...], level: PoolLevel | None, effort: Effort
) -> Iterator[tuple[PoolLevel, bool]]:
    """Other pool levels to pack, and whether those of like rho go together: with some room left for what packing loses."""
    if level is None:
        return
    for fill in effort.fills:
        guide = solve_pools(problem, limits, effort, fill) if fill < 1 else level
        if guide is not None and guide.none_short == level.none_short:
            yield guide, False
            yield guide, True


def _packed(problem: Problem, limits: tuple[Limit, ...], level: PoolLevel | None, effort: Effort, *, by_rho: bool) -> Placer:
    placer = Placer(Servers.empty(problem, limits), level)
    if level is not None:
        pack(placer, level, by_priority=not level.none_short, by_rho=by_rho)
    for m in sorted(range(len(problem.models)), key=lambda m: (problem.tier[m], m)):
        placer.place_all(m)
    if effort.closings or effort.rounds:
        improve(placer, effort)
    return placer


def _better(one: Servers, other: Servers) -> bool:
    """Whether the first lacks less, or as little for less J."""
    mine, theirs = rank_of_shortfall(one), rank_of_shortfall(other)
    return less_short(mine, theirs) or (not less_short(theirs, mine) and one.total < other.total)


def _exactly(placer: Placer, effort: Effort) -> float | None:
    """Solve a tiny fleet whole where that is better; J that no plan of this shortfall is below, None where nobody knows."""
    servers = placer.servers
    mark, short = len(servers.journal), rank_of_shortfall(servers)
    before = figures(settle(servers)).cost
    lacking = [tier for tier, (missing, work) in enumerate(short) if missing or work]
    proof = solve_whole(placer, effort, lacking)
    if proof is None:
        return None
    share_out(servers, effort, only_busy_places=True)
    after = rank_of_shortfall(servers)
    if less_short(short, after) or (not less_short(after, short) and figures(servers).cost > before):
        servers.undo(mark)
        return None if less_short(short, after) else proof
    return proof
