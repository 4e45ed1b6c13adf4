"""From shares of pools to replicas on servers: rocks first, then sand that fills what they leave, then dust on top.

Rocks are loads that cannot be split, or whose memory is large. Sand are large loads of little memory that may be split. Dust
keeps nothing busy to speak of: were it first, it would take the places and leave the busy share; were it last without a
margin in the sand, it would find places and no busy share.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ergon.planning.arrays import Floats
from ergon.planning.few import few_replicas
from ergon.planning.placing import Placer
from ergon.planning.pool_programme import PoolLevel
from ergon.planning.servers import ROUNDING

_LEAST_SHARE = 0.02
"""A smaller share of a model on a pool is a remnant of the relaxation: it goes where the rest goes."""

_ROCK_MEMORY, _SAND_BUSY, _DUST_BUSY = 0.15, 0.1, 0.02
"""Parts of a server: memory from which on a load is a rock, busy share from which on it is sand, up to which it is dust."""

_MOST_MARGIN = 0.1


class Grain(IntEnum):
    """What is packed first comes first."""

    ROCK = 0
    SAND = 1
    DUST = 2


@dataclass(frozen=True, slots=True)
class Item:
    """A part of a model's demand that the pool level gives to one candidate. `busy`, `memory`: parts of a server."""

    candidate: int
    work: float
    busy: float
    memory: float
    grain: Grain
    rigid: bool


def pack(placer: Placer, level: PoolLevel, *, by_priority: bool, by_rho: bool) -> None:
    """Put all models on servers as the pool level says, and elsewhere where that has no room.

    Those that keep servers awake come first, so that they are awake together; with `by_rho` then those of like rho.
    """
    table, problem = placer.servers.table, placer.servers.problem
    target = np.ceil(level.servers - 1e-6).astype(int).tolist()
    items = _items(placer, level)
    margin = _margins(placer, items, target)
    tiers = problem.tier.tolist() if by_priority else [0] * len(problem.models)

    def order(item: Item) -> tuple[float, ...]:
        c = item.candidate
        rho = round(table.rho[c], 1) if by_rho else 0.0
        size = item.memory if item.grain is Grain.DUST else max(item.busy, item.memory)
        return (item.grain, -table.awake[c], rho, -size - 10.0 * item.rigid, c)

    for tier in sorted(set(tiers)):
        mine = [item for item in items if tiers[table.model[item.candidate]] == tier]
        later = [(item, rest) for item in sorted(mine, key=order) if (rest := _place(placer, item, target, margin)) > 0]
        for item, rest in later:
            placer.place_work(table.model[item.candidate], rest)
        _hold_least(placer, level, [m for m in range(len(problem.models)) if tiers[m] == tier])


def _items(placer: Placer, level: PoolLevel) -> list[Item]:
    table = placer.servers.table
    by_model: dict[int, list[tuple[float, int]]] = {}
    for c in np.flatnonzero(level.share > 1e-9).tolist():
        by_model.setdefault(table.model[c], []).append((float(level.share[c]), c))
    items = []
    for m, parts in by_model.items():
        kept = [part for part in parts if part[0] >= _LEAST_SHARE] or [max(parts)]
        kept = few_replicas(placer, m, sorted(kept, key=lambda part: (-part[0], part[1])))
        whole = min(1.0, sum(part[0] for part in parts))
        total = sum(part[0] for part in kept)
        items += [_item(placer, c, table.demand[m] * whole * share / total) for share, c in kept]
    return items


def _item(placer: Placer, c: int, work: float) -> Item:
    table = placer.servers.table
    busy = work / table.mu[c] / table.rho[c]
    memory = table.memory[c] / max(float(placer.servers.problem.on.memory_bytes[table.pool[c]]), 1.0)
    rigid = busy > _DUST_BUSY and table.highest[table.model[c]] <= max(1, math.ceil(busy))
    if rigid or memory >= _ROCK_MEMORY or _DUST_BUSY < busy <= _SAND_BUSY:
        grain = Grain.ROCK
    else:
        grain = Grain.SAND if busy > _SAND_BUSY else Grain.DUST
    return Item(c, work, busy, memory, grain, rigid)


def _margins(placer: Placer, items: list[Item], target: list[int]) -> Floats:
    """By pool, the part of each server that sand leaves to dust."""
    table = placer.servers.table
    dust = np.zeros(len(target))
    for item in items:
        if item.grain is Grain.DUST:
            dust[table.pool[item.candidate]] += item.busy
    return np.minimum(_MOST_MARGIN, 1.2 * dust / np.maximum(target, 1))


def _place(placer: Placer, item: Item, target: list[int], margin: Floats) -> float:
    """One item in its own pool, on the servers that the pool level has on; the work for which there was no room."""
    servers, table = placer.servers, placer.servers.table
    c, work = item.candidate, item.work
    m, p, mu = table.model[c], table.pool[c], table.mu[c]
    spare = float(margin[p]) * table.rho[c] if item.grain is Grain.SAND else 0.0
    most = table.rho[c] - spare
    while work > 0 and placer.may_add(m):
        u = work / mu
        if table.highest[m] - len(servers.homes[m]) < math.ceil(u / max(most, 1e-300) - 1e-9):
            spare, most = 0.0, table.rho[c]
        piece = min(u, most)
        found = None
        if u > most * (1 + ROUNDING) and servers.occupied[p] < target[p]:
            found = placer.fresh(c, piece)
        found = found or placer.best(c, piece, spare)
        if found is None:
            part = placer.fill_piece(c, u, spare)
            if part is not None:
                found, piece = (0.0, part[0]), part[1]
            elif servers.occupied[p] < target[p]:
                found = placer.fresh(c, piece)
        if found is None:
            return work
        servers.put(c, found[1], piece)
        work = 0.0 if piece >= u else work - piece * mu
    return work


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
