"""Room for models that lack something, made with few moves: somebody else leaves a server and finds another place."""

from ergon.planning.placing import Placer
from ergon.planning.servers import ROUNDING, Servers, lacking_work, less_short

_MOST_TRIES = 80
"""Servers that are tried in one plan: one try is a fraction of a millisecond to some milliseconds."""

_MOST_LEAVE = 4
"""Replicas that leave a server for one that comes."""


def make_room(placer: Placer, models: list[int]) -> None:
    """Make room for these models, one after the other; what nobody can give way to is left as it is."""
    budget = _MOST_TRIES
    for m in models:
        moved = True
        while moved and budget > 0 and _lacks(placer.servers, [m]):
            moved = False
            for c, s, leave in _places(placer, m):
                budget -= 1
                if _swapped(placer, m, c, s, leave):
                    moved = True
                    break
                if budget <= 0:
                    break


def _lacks(servers: Servers, models: list[int]) -> list[tuple[float, float]]:
    """By tier what these models lack, replicas and work; empty where they lack nothing."""
    table, tier = servers.table, servers.problem.tier
    lacks: dict[int, tuple[float, float]] = {}
    for m in models:
        work, missing = lacking_work(servers, m), max(0, table.lowest[m] - len(servers.homes[m]))
        if work > 0 or missing:
            before = lacks.get(int(tier[m]), (0.0, 0.0))
            lacks[int(tier[m])] = (before[0] + missing, before[1] + work)
    return [lacks.get(t, (0.0, 0.0)) for t in range(int(tier.max()) + 1)] if lacks else []


def _places(placer: Placer, m: int) -> list[tuple[int, int, list[int]]]:
    """(candidate, server, who would have to leave it), those first where the fewest leave, and the least busy of them."""
    servers, table = placer.servers, placer.servers.table
    work = lacking_work(servers, m)
    full = len(servers.homes[m]) >= table.highest[m]
    found = []
    for c in placer.carriers(m) if work > 0 else placer.holders(m):
        p = table.pool[c]
        refused = servers.problem.refused.get(c, ())
        for s in range(servers.start[p], servers.start[p + 1]):
            if servers.ordinal(s) in refused or (work <= 0 and s in servers.homes[m]):
                continue
            if full and s not in servers.homes[m]:
                wanted = min(table.rho[c], (work + _least_work(servers, m)) / table.mu[c]) if work > 0 else 0.0
            else:
                wanted = min(table.rho[c], work / table.mu[c]) if work > 0 else 0.0
            leave = _who_leaves(servers, m, c, s, wanted)
            if leave is not None:
                found.append((len(leave), sum(servers.share[o][s] for o in leave), c, s, leave))
    found.sort(key=lambda place: place[:4])
    return [(c, s, leave) for _, _, c, s, leave in found]


def _least_work(servers: Servers, m: int) -> float:
    """Work of the model's replica that does the least."""
    return min((u * servers.table.mu[servers.homes[m][s]] for s, u in servers.share[m].items()), default=0.0)


def _who_leaves(servers: Servers, m: int, c: int, s: int, wanted: float) -> list[int] | None:
    """The few on a server without whom the replica fits; None where even without many it does not."""
    table = servers.table
    here = s in servers.homes[m]
    if here and servers.homes[m][s] != c:
        return None
    bytes_short = 0.0 if here else table.memory[c] - float(servers.free_bytes[s])
    places_short = 0.0 if here else 1 - float(servers.free_slots[s])
    limit, load = float(servers.limit[s]), float(servers.load[s])
    leave: list[int] = []
    others = dict(servers.residents[s])
    others.pop(m, None)
    while True:
        busy_short = wanted - (min(limit, table.rho[c]) - load) if wanted > 0 else 0.0
        if bytes_short <= 0 and places_short <= 0 and busy_short <= ROUNDING:
            return leave
        if len(leave) >= _MOST_LEAVE or not others:
            return None
        o = _best_to_leave(servers, s, others, bytes_short, busy_short)
        other = others.pop(o)
        leave.append(o)
        bytes_short -= table.memory[other]
        places_short -= 1
        load -= servers.share[o][s]
        carrying = [table.rho[k] for n, k in (*others.items(), *([(m, c)] if here else [])) if table.may_carry[k]]
        limit = min(carrying, default=float("inf"))


def _best_to_leave(servers: Servers, s: int, others: dict[int, int], bytes_short: float, busy_short: float) -> int:
    """The smallest that is enough by itself, else the largest; of equals the least important."""
    table, tier = servers.table, servers.problem.tier

    def rank(o: int) -> tuple[bool, float, int, int]:
        size, busy = table.memory[others[o]], servers.share[o][s]
        enough = size >= bytes_short and busy >= busy_short
        part = max(size / max(bytes_short, 1.0) if bytes_short > 0 else 0.0, busy / busy_short if busy_short > 0 else 0.0)
        return (not enough, part if enough else -part, -int(tier[o]), o)

    return min(others, key=rank)


def _swapped(placer: Placer, m: int, c: int, s: int, leave: list[int]) -> bool:
    """Let them leave and the model come; whether less lacks then, else all is as it was."""
    servers, table = placer.servers, placer.servers.table
    mark, touched = len(servers.journal), [m, *leave]
    lacked = _lacks(servers, touched)
    for o in leave:
        servers.take(o, s)
    if s not in servers.homes[m]:
        if len(servers.homes[m]) >= table.highest[m]:
            least = min(servers.homes[m], key=lambda t: (servers.share[m][t] * table.mu[servers.homes[m][t]], t))
            servers.take(m, least)
        work = lacking_work(servers, m) if table.mu[c] > 0 else 0.0
        u = min(table.rho[c], work / table.mu[c], float(servers.limit[s]) - float(servers.load[s])) if work > 0 else 0.0
        if servers.limits and servers.spare(c, s, u) < u:
            servers.undo(mark)
            return False
        servers.put(c, s, max(0.0, u))
    for o in [m, *leave]:
        placer.place_all(o)
    if less_short(*_alike(_lacks(servers, touched), lacked)):
        return True
    servers.undo(mark)
    return False


def _alike(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> tuple[list[tuple[float, float]], ...]:
    none = [(0.0, 0.0)] * max(len(one), len(other))
    return one or none, other or none
