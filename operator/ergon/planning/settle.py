"""Which packed server becomes which ordinal: the lowest ones, and those that hold most of it already."""

from ergon.planning.servers import Servers


def settle(servers: Servers) -> Servers:
    """The same packing on the pools' lowest ordinals, with the least that must be loaded anew."""
    problem = servers.problem
    standing: dict[int, set[int]] = {}
    for c, ordinal in problem.standing:
        standing.setdefault(servers.number(servers.table.pool[c], ordinal), set()).add(c)
    settled = Servers.empty(problem, servers.limits)
    for p, count in enumerate(servers.occupied):
        first = servers.start[p]
        packed = [s for s in range(first, servers.start[p + 1]) if servers.residents[s]]
        places = _match(servers, packed, list(range(first, first + count)), standing)
        for source, target in places.items():
            for m, c in servers.residents[source].items():
                settled.put(c, target, servers.share[m][source])
    return settled


def _match(servers: Servers, packed: list[int], targets: list[int], standing: dict[int, set[int]]) -> dict[int, int]:
    """Which packed server goes where: the largest overlap first; where a refusal stands against it, all stay."""
    overlaps = [
        (-len(kept), source, target)
        for target in targets
        if target in standing
        for source in packed
        if (kept := standing[target].intersection(servers.residents[source].values()))
    ]
    places: dict[int, int] = {}
    taken: set[int] = set()
    for _, source, target in sorted(overlaps):
        if source not in places and target not in taken and _allowed(servers, source, target):
            places[source] = target
            taken.add(target)
    free = [target for target in targets if target not in taken]
    rest = [source for source in packed if source not in places]
    for source in sorted(rest, key=lambda source: (not _is_choosy(servers, source), source)):
        free_for_it = next((t for t in free if _allowed(servers, source, t)), None)
        if free_for_it is None:
            return {source: source for source in packed}
        places[source] = free_for_it
        free.remove(free_for_it)
    return places


def _is_choosy(servers: Servers, s: int) -> bool:
    return any(c in servers.problem.refused or servers.table.standing_only[c] for c in servers.residents[s].values())


def _allowed(servers: Servers, source: int, target: int) -> bool:
    ordinal = servers.ordinal(target)
    for c in servers.residents[source].values():
        if ordinal in servers.problem.refused.get(c, ()):
            return False
        if servers.table.standing_only[c] and (c, ordinal) not in servers.problem.standing:
            return False
    return True
