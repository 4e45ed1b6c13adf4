"""Give up what nothing needs, without loading anything: replicas whose work others can do, and servers that this empties."""

from ergon.planning.servers import ROUNDING, Servers
from ergon.planning.steady import drop_idle

_SLACK = 0.2
"""Of a model's work: what its other replicas must be able to do beyond it before one goes, lest it is soon loaded again."""

_GAIN = 1e-6
"""J below which nothing is saved."""


def lighten(servers: Servers) -> None:
    """Take away idle replicas, spare ones, and those on the last servers of each pool that others can stand in for.

    Done again it finds nothing more.
    """
    drop_idle(servers)
    changed = True
    while changed:
        changed = False
        for m, homes in enumerate(servers.homes):
            while len(homes) > max(1, servers.table.lowest[m]) and _folded(servers, m):
                changed = True
        for p in range(len(servers.occupied)):
            while _closed_last(servers, p):
                changed = True


def _folded(servers: Servers, m: int) -> bool:
    """Let the others do the work of the model's replica that does least, where they have room to spare and it costs no more."""
    table, shares, homes = servers.table, servers.share[m], servers.homes[m]
    s = min(homes, key=lambda s: (shares[s] * table.mu[homes[s]], -s))
    work = shares[s] * table.mu[homes[s]]
    room = sum(max(0.0, _room(servers, t, c)) * table.mu[c] for t, c in homes.items() if t != s)
    if room < work + _SLACK * servers.served(m):
        return False
    mark, before = len(servers.journal), servers.total
    if _moved_off(servers, m, s) and servers.total <= before + _GAIN:
        return True
    servers.undo(mark)
    return False


def _closed_last(servers: Servers, p: int) -> bool:
    """Empty the last server in use of a pool, since a pool drops its highest ordinals only, where that saves something."""
    last = next((s for s in range(servers.start[p + 1] - 1, servers.start[p] - 1, -1) if servers.residents[s]), None)
    if last is None or any(len(servers.homes[m]) <= max(1, servers.table.lowest[m]) for m in servers.residents[last]):
        return False
    mark, before = len(servers.journal), servers.total
    if all(_moved_off(servers, m, last) for m in sorted(servers.residents[last])) and servers.total < before - _GAIN:
        return True
    servers.undo(mark)
    return False


def _moved_off(servers: Servers, m: int, s: int) -> bool:
    """Take a replica away and give its work to the model's others, least energy first; whether they have room for all."""
    table, homes = servers.table, servers.homes[m]
    work = servers.share[m][s] * table.mu[homes[s]]
    servers.take(m, s)
    for t, c in sorted(homes.items(), key=lambda home: (table.cost[home[1]] / max(table.mu[home[1]], 1e-300), home[0])):
        if work <= 0:
            break
        if table.mu[c] <= 0:
            continue
        u = min(_room(servers, t, c), work / table.mu[c])
        u = servers.spare(c, t, u) if servers.limits else u
        if u <= ROUNDING:
            continue
        servers.change(m, t, servers.share[m][t] + u)
        work = 0.0 if u >= work / table.mu[c] else work - u * table.mu[c]
    return work <= 0


def _room(servers: Servers, s: int, c: int) -> float:
    return min(float(servers.limit[s]), servers.table.rho[c]) - float(servers.load[s])
