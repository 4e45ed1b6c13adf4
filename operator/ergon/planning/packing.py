"""From shares of pools to replicas on servers: the large and the inflexible first, each where it leaves the least waste."""

import math
from dataclasses import dataclass

import numpy as np

from ergon.planning.placing import Placer
from ergon.planning.pool_level import PoolLevel
from ergon.planning.servers import ROUNDING, Servers

_SAND_MEMORY = 0.15
_SAND_BUSY = 0.1
"""Parts of a server: a load that may be split, is larger than this and takes less memory than that, fills what others leave."""

_FEW = 2
"""Replicas up to which a model's shares are chosen so that whole replicas can carry them."""

_LEAST_SHARE = 0.02
"""A smaller share of a model on a pool is a remnant of the relaxation: it goes where the rest goes."""


@dataclass(frozen=True, slots=True)
class Item:
    """A part of a model's demand that the pool level gives to one candidate."""

    candidate: int
    work: float


def pack(placer: Placer, level: PoolLevel, *, by_priority: bool, by_rho: bool = True) -> None:
    """Put all models on servers as the pool level says, and elsewhere where that has no room.

    Those that keep servers awake come first, so that they are awake together; with `by_rho` then those of like rho.
    """
    servers, table = placer.servers, placer.servers.table
    problem = servers.problem
    target = np.ceil(level.servers - 1e-6).astype(int).tolist()
    items = _items(placer, level)
    tiers = problem.tier.tolist() if by_priority else [0] * len(problem.models)

    def order(item: Item) -> tuple[float, float, float, float, int]:
        c = item.candidate
        rho = round(table.rho[c], 1) if by_rho else 0.0
        size = _size(servers, item)
        return (float(size < 0), -table.awake[c], rho, -size, c)

    for tier in sorted(set(tiers)):
        mine = [item for item in items if tiers[table.model[item.candidate]] == tier]
        later: list[Item] = []
        for item in sorted(mine, key=order):
            _place(placer, item, target, later)
        for item in later:
            placer.place_work(table.model[item.candidate], item.work)
        _hold_least(placer, level, [m for m in range(len(problem.models)) if tiers[m] == tier])


def _items(placer: Placer, level: PoolLevel) -> list[Item]:
    table = placer.servers.table
    by_model: dict[int, list[tuple[float, int]]] = {}
    for c in np.flatnonzero(level.share > 1e-9).tolist():
        by_model.setdefault(table.model[c], []).append((float(level.share[c]), c))
    items = []
    for m, parts in by_model.items():
        kept = [part for part in parts if part[0] >= _LEAST_SHARE] or [max(parts)]
        kept = sorted(kept, key=lambda part: (-part[0], part[1]))
        if table.highest[m] <= _FEW and _replicas(placer, m, kept) > table.highest[m]:
            kept = _few(placer, m) or kept
        kept = kept[: table.highest[m]]
        whole = min(1.0, sum(part[0] for part in parts))
        total = sum(part[0] for part in kept)
        items += [Item(c, table.demand[m] * whole * share / total) for share, c in kept]
    return items


def _replicas(placer: Placer, m: int, parts: list[tuple[float, int]]) -> int:
    """How many replicas these shares of a model need, whole ones."""
    return sum(math.ceil(share * _servers_for(placer, m, c) - 1e-9) for share, c in parts)


def _servers_for(placer: Placer, m: int, c: int) -> float:
    table = placer.servers.table
    return table.demand[m] / table.mu[c] / table.rho[c]


def _few(placer: Placer, m: int) -> list[tuple[float, int]]:
    """Shares that one replica can carry, or two: the least price for a model that may have no more."""
    table = placer.servers.table
    found: tuple[float, list[tuple[float, int]]] | None = None
    carriers = placer.carriers(m)
    for k, a in enumerate(carriers):
        most_a = min(1.0, 1.0 / _servers_for(placer, m, a))
        price_a = placer.price[a] * table.demand[m] / table.mu[a]
        if most_a >= 1 - 1e-12:
            options = [(price_a + placer.rent[a], [(1.0, a)])]
        elif table.highest[m] < 2:
            continue
        else:
            options = []
            for b in carriers[k:]:
                most_b = min(1.0, 1.0 / _servers_for(placer, m, b))
                if most_a + most_b >= 1 - 1e-12:
                    price_b = placer.price[b] * table.demand[m] / table.mu[b]
                    price = price_a * most_a + price_b * (1 - most_a) + placer.rent[a] + placer.rent[b]
                    options.append((price, [(most_a, a), (1 - most_a, b)] if a != b else [(1.0, a)]))
        for option in options:
            if found is None or option[0] < found[0]:
                found = option
    return found[1] if found is not None else []


def _size(servers: Servers, item: Item) -> float:
    """How hard an item is to place: the largest part of a server that it takes.

    What may not be split comes first. Large loads of little memory that may be split come last: like sand, they fill what
    busy share the others leave; were they first, small models would find memory and no busy share.
    """
    table = servers.table
    c = item.candidate
    busy = item.work / table.mu[c] / table.rho[c]
    memory = table.memory[c] / max(float(servers.problem.on.memory_bytes[table.pool[c]]), 1.0)
    if table.highest[table.model[c]] <= max(1, math.ceil(busy)):
        return 10.0 + max(busy, memory)
    if memory < _SAND_MEMORY and busy > _SAND_BUSY:
        return -1.0 + busy / 1e3
    return max(busy, memory)


def _place(placer: Placer, item: Item, target: list[int], later: list[Item]) -> None:
    """One item in its own pool, on the servers that the pool level has on; what does not fit comes later."""
    servers, table = placer.servers, placer.servers.table
    c, work = item.candidate, item.work
    m, p, mu, rho = table.model[c], table.pool[c], table.mu[c], table.rho[c]
    while work > 0 and placer.may_add(m):
        u = work / mu
        piece = min(u, rho)
        if u > rho * (1 + ROUNDING):
            found = placer.fresh(c, piece) if servers.occupied[p] < target[p] else None
            found = found or placer.best(c, piece)
        else:
            found = placer.best(c, piece)
        if found is None:
            part = placer.fill_piece(c, u)
            if part is not None:
                found, piece = (0.0, part[0]), part[1]
            elif u <= rho * (1 + ROUNDING) and servers.occupied[p] < target[p]:
                found = placer.fresh(c, piece)
        if found is None:
            break
        servers.put(c, found[1], piece)
        work = 0.0 if piece >= u else work - piece * mu
    if work > 0:
        later.append(Item(c, work))


def _hold_least(placer: Placer, level: PoolLevel, models: list[int]) -> None:
    """Replicas that are there to be there, the largest first."""
    servers, table = placer.servers, placer.servers.table
    lacking = [m for m in models if len(servers.homes[m]) < table.lowest[m]]
    smallest = {m: table.memory[holders[0]] for m in lacking if (holders := placer.holders(m))}
    for m in sorted(smallest, key=lambda m: (-smallest[m], m)):
        first, last = table.first[m], table.first[m + 1]
        planned = [c for c in range(first, last) if level.held[c] > 1e-6]
        planned.sort(key=lambda c: (-level.held[c], c))
        while len(servers.homes[m]) < table.lowest[m]:
            if not (planned and placer.hold(m, planned)) and not placer.hold(m):
                break
