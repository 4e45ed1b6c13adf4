"""Find the servers of every replica: from nothing by way of the pool level, and from what stands."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cmp_to_key

import numpy as np

from ergon.planning.again import mend_again, newly_short
from ergon.planning.dive import Dive, patterns_of
from ergon.planning.effort import Effort
from ergon.planning.exact import may_be_whole, solve_whole
from ergon.planning.improve import improve, serve_lacking
from ergon.planning.limits import Limit
from ergon.planning.master import Master
from ergon.planning.packing import pack
from ergon.planning.placing import Placer
from ergon.planning.plan import Plan
from ergon.planning.pool_level import PoolLevel, guide, is_large, solve_pools
from ergon.planning.power import figures
from ergon.planning.problem import Problem
from ergon.planning.servers import Servers, any_lacks, less_short, rank_of_shortfall
from ergon.planning.settle import settle
from ergon.planning.shares import share_out_among_busy
from ergon.planning.shed import hold_limits
from ergon.planning.steady import drop_idle, earns_its_moves, mend

SMALL = 2000
"""Candidates up to which a fleet that stays short when it is mended is planned anew at once, and is packed in many ways."""

FEW_FILLS = 2
"""Parts of a server given away, each packed: where one takes long, or where a tiny fleet is solved exactly anyway."""
_MOST_A_SERVER = 4
"""Models for each server up to which patterns are tried: of very many small replicas, one pattern is as good as another."""


@dataclass(frozen=True, slots=True)
class Found:
    """Servers with their replicas, the pool level that led there (None: the solver had no answer), and what to say of it.

    `proof`: J that no plan of this shortfall is below, where more is known than the pool level says.
    """

    servers: Servers
    level: PoolLevel | None
    notes: tuple[str, ...]
    proof: float | None = None


def search(problem: Problem, limits: tuple[Limit, ...], effort: Effort, before: Plan | None = None) -> Found:
    """The best plan that the effort finds, and that is worth its moves.

    Where only mending is asked for and the last plan is known, a large fleet that stays short is not planned anew at once.
    """
    if effort.only_mend and before is not None and _priced(before) and problem.standing:
        again = mend_again(problem, limits, before)
        if again is not None:
            hold_limits(again)
            if not _short(again):
                return Found(again, None, ())
            if _is_large(problem):
                return Found(_less_short(again, problem, limits, effort, before), None, ())
    level = solve_pools(problem, limits, effort)
    notes = () if level is not None else ("the solver gave no answer: placed greedily, without a lower bound to speak of",)
    if not problem.standing:
        return replace(anew(problem, limits, level, effort), notes=notes)
    mended = mend(problem, limits, effort)
    hold_limits(mended)
    if effort.only_mend and not _short(mended):
        return Found(mended, level, notes)
    better = anew(problem, limits, level, effort)
    if earns_its_moves(better.servers, mended):
        return replace(better, notes=notes)
    same = not less_short(rank_of_shortfall(better.servers), rank_of_shortfall(mended))
    return Found(mended, level, notes, better.proof if same else None)


def _less_short(again: Servers, problem: Problem, limits: tuple[Limit, ...], effort: Effort, before: Plan) -> Servers:
    """The same, or where something new stays short, mended with shares that are solved for, if that serves more."""
    if not newly_short(again, before):
        return again
    mended = mend(problem, limits, effort)
    hold_limits(mended)
    return mended if less_short(rank_of_shortfall(mended), rank_of_shortfall(again)) else again


def _short(servers: Servers) -> bool:
    return any(missing or work for missing, work in rank_of_shortfall(servers))


def _is_large(problem: Problem) -> bool:
    """Whether planning anew takes long and moves much: that is for when all is quiet, and by stages.

    Not so where most is yet to be placed.
    """
    return len(problem.candidates.model) > SMALL and 2 * len(problem.standing) >= int(problem.need.sum())


def _priced(before: Plan) -> bool:
    return before.ground is not None and bool(before.ground.prices)


def anew(problem: Problem, limits: tuple[Limit, ...], level: PoolLevel | None, effort: Effort) -> Found:
    """A plan made as if nothing stood, put where most of it stands already.

    Packed in several ways, the best of them with fewer servers in one pool after the other, then the best ones improved by
    small steps; a tiny fleet is solved exactly.
    """
    ways = [_packed(problem, limits, level, by_rho=True)]
    for start, by_rho in _other_starts(problem, limits, level, effort):
        if _is_optimal(ways[-1], level):
            break
        ways.append(_packed(problem, limits, start, by_rho=by_rho))
    ways.sort(key=cmp_to_key(_order))
    best, proof = ways[0], None
    if not _is_optimal(best, level):
        if level is not None and level.none_short:
            ways[0] = _with_fewer_servers(problem, limits, best, effort)
        chosen = [*ways[: effort.starts], *_by_patterns(problem, limits, level, ways, effort)]
        for placer in chosen:
            improve(placer, effort)
        best = min(chosen, key=cmp_to_key(_order))
        proof = _exactly(best, effort)
    drop_idle(best.servers)
    settled = settle(best.servers)
    hold_limits(settled)
    return Found(settled, level, (), proof)


def _is_optimal(best: Placer, level: PoolLevel | None) -> bool:
    """Whether the bound says that there is nothing left to find."""
    if level is None or not level.none_short or best.servers.problem.refused or any_lacks(best.servers):
        return False
    held = all(len(homes) >= need for homes, need in zip(best.servers.homes, best.servers.problem.need.tolist(), strict=True))
    return held and best.servers.total <= level.bound * (1 + 1e-5) + 1e-9


def _other_starts(
    problem: Problem, limits: tuple[Limit, ...], level: PoolLevel | None, effort: Effort
) -> Iterator[tuple[PoolLevel, bool]]:
    """Other pool levels to pack, and whether models of like rho are to go together.

    In fleets that are not small, where each takes a third of a second and more, a few, with those together: of six, 7 to 13 %
    of the watts better than without.
    """
    small = len(problem.candidates.model) <= SMALL
    if level is None:
        return
    if small:
        yield level, False
    if not level.none_short or is_large(problem):
        return
    few = not small or may_be_whole(problem, effort)
    for fill in effort.fills[:FEW_FILLS] if few else effort.fills:
        if fill == 1.0 and not level.in_whole:
            continue
        other = guide(problem, limits, effort, fill=fill)
        if other is not None:
            yield other, True
            if small:
                yield other, False


def _packed(problem: Problem, limits: tuple[Limit, ...], level: PoolLevel | None, *, by_rho: bool) -> Placer:
    placer = Placer(Servers.empty(problem, limits), level)
    if level is not None:
        pack(placer, level, by_priority=not level.none_short, by_rho=by_rho)
    return _completed(placer)


def _completed(placer: Placer) -> Placer:
    """With a place for what still lacks something, where there is one."""
    problem = placer.servers.problem
    for m in sorted(range(len(problem.models)), key=lambda m: (problem.tier[m], m)):
        placer.place_all(m)
    serve_lacking(placer)
    return placer


def _by_patterns(
    problem: Problem, limits: tuple[Limit, ...], level: PoolLevel | None, ways: list[Placer], effort: Effort
) -> Iterator[Placer]:
    """A plan from patterns of whole servers, the known plans' among them.

    None of fleets that are large, of those that may be solved exactly, of very many models a server, or where something lacks.
    """
    crowded = len(problem.models) > _MOST_A_SERVER * int(problem.on.most.sum())
    large = len(problem.candidates.model) > effort.pattern_columns
    if not effort.pattern_rounds or large or crowded or may_be_whole(problem, effort):
        return
    if level is not None and level.none_short:
        master = Master(problem, limits, effort)
        for way in ways:
            master.add(patterns_of(way.servers))
        dive = Dive(master, level, effort)
        mix = dive.find_patterns()
        mix = mix and dive.round_nodes(mix, np.ones(len(problem.models)), np.zeros(len(problem.pools), np.int64))
        placer = Placer(Servers.empty(problem, limits), level)
        if mix is not None and dive.fill(placer):
            yield _completed(placer)


def _with_fewer_servers(problem: Problem, limits: tuple[Limit, ...], best: Placer, effort: Effort) -> Placer:
    """Cap one pool after the other at a server, or a node, less than it has, and pack what the pool level makes of that."""
    if len(problem.candidates.model) > effort.cap_columns:
        return best
    most = problem.on.most.copy()
    tried = 0
    again = True
    while again and tried < effort.caps:
        again = False
        dear = np.argsort(-(problem.on.server_cost + problem.on.node_cost), kind="stable").tolist()
        for p in (p for p in dear if best.servers.occupied[p] > problem.on.least[p]):
            used, per_node = best.servers.occupied[p], int(problem.on.per_node[p])
            for count in sorted({used - 1, (used - 1) // per_node * per_node}):
                if tried >= effort.caps:
                    return best
                tried += 1
                capped = most.copy()
                capped[p] = count
                other = guide(problem, limits, effort, most=capped)
                placer = None if other is None else _packed(problem, limits, other, by_rho=False)
                if placer is not None and _better(placer.servers, best.servers):
                    best, most, again = placer, capped, True
                    break
    return best


def _better(one: Servers, other: Servers) -> bool:
    """Whether the first lacks less, or as little for less J."""
    mine, theirs = rank_of_shortfall(one), rank_of_shortfall(other)
    return less_short(mine, theirs) or (not less_short(theirs, mine) and one.total < other.total)


def _order(one: Placer, other: Placer) -> int:
    """The better one first."""
    return -1 if _better(one.servers, other.servers) else int(_better(other.servers, one.servers))


def _exactly(placer: Placer, effort: Effort) -> float | None:
    """Solve a tiny fleet whole where that is better; J that no plan of this shortfall is below, None where nobody knows."""
    servers = placer.servers
    mark, settled = len(servers.journal), settle(servers)
    hold_limits(settled)
    short, before = rank_of_shortfall(settled), figures(settled).cost
    lacking = [tier for tier, (missing, work) in enumerate(short) if missing or work]
    proof = solve_whole(placer, effort, lacking)
    if proof is None:
        return None
    share_out_among_busy(servers, effort)
    _hold_without_harm(placer)
    after = rank_of_shortfall(servers)
    if less_short(short, after) or (not less_short(after, short) and figures(servers).cost > before):
        servers.undo(mark)
        return None if less_short(short, after) else proof
    return proof


def _hold_without_harm(placer: Placer) -> None:
    """Let replicas that carry nothing on a server that is too busy for them be of another variant, which may be there as well.

    Of such places alone the shares of the others could not be found again.
    """
    servers, table = placer.servers, placer.servers.table
    for m, homes in enumerate(servers.homes):
        for s, c in list(homes.items()):
            load = float(servers.load[s])
            if servers.share[m][s] > 0 or not table.may_carry[c] or table.rho[c] >= load:
                continue
            servers.take(m, s)
            others = [
                k
                for k in placer.holders(m)
                if table.pool[k] == table.pool[c]
                and (not table.may_carry[k] or table.rho[k] >= load)
                and table.memory[k] <= servers.free_bytes[s]
                and servers.ordinal(s) not in servers.problem.refused.get(k, ())
            ]
            servers.put(others[0] if others else c, s, 0.0)
