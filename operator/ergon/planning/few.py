"""Whole replicas for models that may have few: the relaxation mixes pools where one replica on each is too little."""

import math

from ergon.planning.placing import Placer

_FEW = 2
"""Replicas up to which all ways are tried."""

_Parts = list[tuple[float, int]]


def few_replicas(placer: Placer, m: int, parts: _Parts) -> _Parts:
    """(share, candidate) that no more replicas than the model may have can carry, the relaxation's own where they can."""
    most = placer.servers.table.highest[m]
    if most <= _FEW and sum(math.ceil(share * _servers_for(placer, m, c) - 1e-9) for share, c in parts) > most:
        parts = _cheapest(placer, m) or parts
    return parts[:most]


def _servers_for(placer: Placer, m: int, c: int) -> float:
    table = placer.servers.table
    return table.demand[m] / table.mu[c] / table.rho[c]


def _cheapest(placer: Placer, m: int) -> _Parts:
    """One replica or two at the least price; none where two cannot carry it."""
    found: tuple[float, _Parts] | None = None
    carriers = placer.carriers(m)
    for k, a in enumerate(carriers):
        for option in _with(placer, m, a, carriers[k:]):
            if found is None or option[0] < found[0]:
                found = option
    return found[1] if found is not None else []


def _with(placer: Placer, m: int, a: int, others: list[int]) -> list[tuple[float, _Parts]]:
    """(J, shares) of a replica on one candidate, and where that is not enough of another beside it."""
    table = placer.servers.table
    most_a = min(1.0, 1.0 / _servers_for(placer, m, a))
    price_a = placer.price[a] * table.demand[m] / table.mu[a]
    if most_a >= 1 - 1e-12:
        return [(price_a + placer.rent[a], [(1.0, a)])]
    options: list[tuple[float, _Parts]] = []
    for b in others if table.highest[m] > 1 else []:
        if most_a + min(1.0, 1.0 / _servers_for(placer, m, b)) < 1 - 1e-12:
            continue
        price_b = placer.price[b] * table.demand[m] / table.mu[b]
        price = price_a * most_a + price_b * (1 - most_a) + placer.rent[a] + placer.rent[b]
        options.append((price, [(1.0, a)] if a == b else [(most_a, a), (1 - most_a, b)]))
    return options
