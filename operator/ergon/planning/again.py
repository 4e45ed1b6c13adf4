"""Planning again after a small change: what stands serves what it served, and only what the change touches is placed.

Nothing is solved: a programme over all replicas would find the shares that the plan before tells.
"""

from ergon.planning.limits import Limit
from ergon.planning.placing import Placer
from ergon.planning.plan import Plan
from ergon.planning.problem import Problem
from ergon.planning.repair import make_room
from ergon.planning.servers import ROUNDING, Servers, lacking_work
from ergon.planning.steady import lacking, standing

_SLACK = 1 + 1e-9
"""A server that was filled to the last bit is not too full; what rounding adds is less than this."""

MANY_CHANGED = 0.1
"""Of the models: where more of them lack something than that, all shares are better found anew."""


def mend_again(problem: Problem, limits: tuple[Limit, ...], before: Plan) -> Servers | None:
    """What stands with the shares it had, and the least that must be added; None where that is no way to begin.

    No way where much changed, or where what stands would keep a server too busy or break a limit.
    """
    servers = standing(problem, limits, _shares_as_before(problem, before))
    short = lacking(servers)
    known = before.unserved.keys() | before.missing_replicas.keys()
    fresh = {m for m in short if problem.models[m].key not in known}
    if len(fresh) > max(1.0, MANY_CHANGED * len(problem.models)) or not _within(servers):
        return None
    for m in short:
        if servers.table.demand[m] > 0:
            _grow(servers, m)
    placer = Placer(servers)
    for m in lacking(servers):
        placer.place_all(m)
    make_room(placer, [m for m in lacking(servers) if problem.models[m].key not in known])
    return servers


def newly_short(servers: Servers, before: Plan) -> bool:
    """Whether a model lacks something that lacked nothing in the plan before."""
    known = before.unserved.keys() | before.missing_replicas.keys()
    return any(servers.problem.models[m].key not in known for m in lacking(servers))


def _shares_as_before(problem: Problem, before: Plan) -> dict[tuple[int, int], float]:
    """By (candidate, ordinal) the busy share for the work that a standing replica had, less where its model asks for less."""
    c, had = problem.candidates, []
    total = [0.0] * len(problem.models)
    for place, replica in zip(problem.standing, problem.standing_replicas, strict=True):
        load, number = before.loads.get(replica), place[0]
        mu = float(c.mu[number])
        if load is None or load.work_per_second <= 0 or mu <= 0:
            continue
        same = abs(load.busy_share * mu - load.work_per_second) <= ROUNDING * load.work_per_second
        m, u = int(c.model[number]), load.busy_share if same else min(load.work_per_second / mu, float(c.rho[number]))
        had.append((place, m, u))
        total[m] += u * mu
    demand = problem.demand.tolist()
    part = [asked / work if work > asked * (1 + 1e-9) else 1.0 for asked, work in zip(demand, total, strict=True)]
    return {place: u * part[m] for place, m, u in had}


def _within(servers: Servers) -> bool:
    """Whether no server is kept too busy, and no limit that can be held is broken."""
    held = all(drawn <= limit.watts or limit.hopeless for drawn, limit in zip(servers.drawn, servers.limits, strict=True))
    return held and bool((servers.load <= servers.limit * _SLACK).all())


def _grow(servers: Servers, m: int) -> None:
    """Give a model's lacking work to its replicas, where others beside them can be served by replicas of their own elsewhere."""
    table = servers.table
    for s, c in sorted(
        servers.homes[m].items(), key=lambda home: (table.cost[home[1]] / max(table.mu[home[1]], 1e-300), home[0])
    ):
        work = lacking_work(servers, m)
        if work <= 0:
            return
        if table.mu[c] <= 0:
            continue
        wanted = work / table.mu[c]
        room = _room(servers, s, c)
        if room < wanted and not servers.limits:
            _push_off(servers, s, m, wanted - room)
            room = _room(servers, s, c)
        u = min(room, wanted)
        u = servers.spare(c, s, u) if servers.limits else u
        if u > ROUNDING:
            servers.change(m, s, servers.share[m][s] + u)


def _room(servers: Servers, s: int, c: int) -> float:
    return min(float(servers.limit[s]), servers.table.rho[c]) - float(servers.load[s])


def _push_off(servers: Servers, s: int, guest: int, wanted: float) -> None:
    """Let others on the server be served elsewhere, where they stand already, until so much busy share is free."""
    table = servers.table
    for m, c in sorted(servers.residents[s].items()):
        for t, other in sorted(servers.homes[m].items()):
            if wanted <= ROUNDING or m == guest:
                break
            if t == s or table.mu[other] <= 0 or servers.share[m][s] <= 0:
                continue
            u = min(servers.share[m][s], wanted, _room(servers, t, other) * table.mu[other] / table.mu[c])
            if u > ROUNDING:
                servers.change(m, t, servers.share[m][t] + u * table.mu[c] / table.mu[other])
                servers.change(m, s, max(0.0, servers.share[m][s] - u))
                wanted -= u
