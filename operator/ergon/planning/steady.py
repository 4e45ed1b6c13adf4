"""What stands, stays: the current plan mended with the fewest moves, and whether another plan earns its moves."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ergon.planning.effort import Effort
from ergon.planning.improve import serve_lacking
from ergon.planning.limits import Limit
from ergon.planning.placing import Placer
from ergon.planning.power import Figures, figures
from ergon.planning.problem import Problem
from ergon.planning.servers import Servers, less_short, rank_of_shortfall, shortfall
from ergon.planning.shares import find_shares, share_out

LEAST_SAVING = 0.03
"""Of J: a plan that saves less is not worth moving for."""

EXPECTED_STAY_SECONDS = 3600.0
PAYS_BACK = 1.5
"""A move must save so many times what it costs, in the time that the demand is expected to stay."""

LOAD_SECONDS = 20.0
"""How long a load takes where nothing is known of it."""


def mend(problem: Problem, limits: tuple[Limit, ...], effort: Effort) -> Servers:
    """The current replicas where they may stay, and the least that must be added or taken away."""
    mended = standing(problem, limits)
    find_shares(mended, effort)
    if not (short := lacking(mended)):
        return mended
    placer = Placer(mended)
    for m in short:
        placer.place_all(m)
    serve_lacking(placer)
    if not lacking(mended):
        return mended
    best = mended
    for drop in (True, False):  # the last one as good wins: it moves less
        other = _by_priority(problem, limits, effort, drop=drop)
        if not less_short(rank_of_shortfall(best), rank_of_shortfall(other)):
            best = other
    return best


def _by_priority(problem: Problem, limits: tuple[Limit, ...], effort: Effort, *, drop: bool) -> Servers:
    """Where not everything can be served: what matters most first. With `drop`, replicas that serve nothing make room."""
    servers = standing(problem, limits)
    share_out(servers, effort)
    if drop:
        drop_idle(servers)
    placer = Placer(servers)
    for m in lacking(servers):
        placer.place_all(m)
    return servers


def standing(problem: Problem, limits: tuple[Limit, ...], shares: Mapping[tuple[int, int], float] | None = None) -> Servers:
    """The current replicas that may stay, with their busy shares where those are known by (candidate, ordinal)."""
    servers = Servers.empty(problem, limits)
    for number, ordinal in problem.leaving:
        s = servers.number(servers.table.pool[number], ordinal)
        servers.free_bytes[s] -= servers.table.memory[number]
        servers.free_slots[s] -= 1
    _keep(servers, shares or {})
    return servers


def _keep(servers: Servers, shares: Mapping[tuple[int, int], float]) -> None:
    """Put the standing replicas where they stand, the more important first; those that nobody asks for are left.

    What was measured since is no reason to take them away: they are loaded, so they fit; only nothing more is put beside them.
    """
    problem, table = servers.problem, servers.table
    c = problem.candidates
    if not servers.limits and (places := _all_places(servers, shares)) is not None:
        servers.put_all(places)
        return
    declared, free_bytes = c.declared_bytes.tolist(), servers.free_bytes.tolist()
    order = sorted(problem.standing, key=lambda replica: (problem.tier[c.model[replica[0]]], replica))
    for number, ordinal in order:
        m, s = table.model[number], servers.number(table.pool[number], ordinal)
        wanted = table.highest[m] if table.demand[m] > 0 else table.lowest[m]
        fits = declared[number] <= free_bytes[s] and servers.free_slots[s] >= 1
        if fits and len(servers.homes[m]) < wanted and servers.spare(number, s, 0.0) >= 0 and not _closed(servers, number):
            servers.put(number, s, shares.get((number, ordinal), 0.0))
            free_bytes[s] -= declared[number]


def _all_places(servers: Servers, shares: Mapping[tuple[int, int], float]) -> list[tuple[int, int, float]] | None:
    """(candidate, server, busy share) of all standing replicas where all of them may stay together, else None."""
    problem, table = servers.problem, servers.table
    places = [(c, servers.number(table.pool[c], ordinal), shares.get((c, ordinal), 0.0)) for c, ordinal in problem.standing]
    c, s = np.array([c for c, _, _ in places], np.int64), np.array([s for _, s, _ in places], np.int64)
    many, model = len(servers.load), problem.candidates.model[c]
    fits = (np.bincount(s, problem.candidates.declared_bytes[c], many) <= servers.free_bytes).all()
    fits &= (np.bincount(s, minlength=many) <= servers.free_slots).all()
    wanted = np.where(problem.demand > 0, problem.highest, np.minimum(problem.lowest, problem.highest))
    fits &= (np.bincount(model, minlength=len(wanted)) <= wanted).all()
    return places if fits else None


def _closed(servers: Servers, c: int) -> bool:
    return any(limit.hopeless and limit.pools[servers.table.pool[c]] for limit in servers.limits)


def lacking(servers: Servers) -> list[int]:
    """Models that lack work or replicas, the most important and then the largest first."""
    missing, unserved = shortfall(servers)
    found, tier = np.flatnonzero((missing > 0) | (unserved > 0)), servers.problem.tier
    order: list[int] = found[np.lexsort((found, -unserved[found], tier[found]))].tolist()
    return order


def drop_idle(servers: Servers) -> None:
    """Take away replicas that serve nothing and are more than the least."""
    for m, homes in enumerate(servers.homes):
        for s in sorted(homes, reverse=True):
            if servers.share[m][s] <= 0 and len(homes) > servers.table.lowest[m]:
                servers.take(m, s)


@dataclass(frozen=True, slots=True)
class Change:
    """What turning one plan into another takes: replicas to load and to unload, and the joules of it."""

    loads: int
    unloads: int
    joules: float


def change(servers: Servers, now: Figures, then: Figures) -> Change:
    """From the current replicas to these."""
    problem, table = servers.problem, servers.table
    before = {(c, servers.number(table.pool[c], ordinal)) for c, ordinal in problem.standing}
    after = {(c, s) for homes in servers.homes for s, c in homes.items()}
    loads = sorted(after - before)
    joules = sum(_load_watts(problem, table.pool[c]) for c, _ in loads) * LOAD_SECONDS
    both = 0.0
    for p in range(len(problem.pools)):
        more = max(0, then.servers[p] - now.servers[p])
        both += more * float(problem.on.server_watts[p] + problem.on.node_watts[p] / table.per_node[p])
    return Change(len(loads), len(before - after), joules + both * LOAD_SECONDS)


def _load_watts(problem: Problem, p: int) -> float:
    pool = problem.pools[p]
    return pool.pue * max(pool.idle_watts, pool.busy_watts or 0.0)


def earns_its_moves(better: Servers, mended: Servers) -> bool:
    """Whether a plan is to replace the mended current one."""
    if less_short(rank_of_shortfall(better), rank_of_shortfall(mended)):
        return True
    if less_short(rank_of_shortfall(mended), rank_of_shortfall(better)):
        return False
    then, now = figures(better), figures(mended)
    saved = now.cost - then.cost
    if saved <= 0 or saved < LEAST_SAVING * now.cost:  # of a fleet that costs nothing, nothing is no saving
        return False
    cost = change(better, now, then).joules
    return (now.watts - then.watts) * EXPECTED_STAY_SECONDS >= PAYS_BACK * cost or better.problem.weights.energy == 0
