"""What a plan draws, costs and emits: planning.md's power of a pool, in one place."""

import math
from dataclasses import dataclass

from ergon.planning.limits import Limit, always_on_watts
from ergon.planning.servers import Servers


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a whole plan; `servers` and `pool_watts` by pool, `cost` is J."""

    servers: list[int]
    pool_watts: list[float]
    watts: float
    price_per_hour: float
    grams_per_hour: float
    cost: float


def figures(servers: Servers) -> Figures:
    """The plan's servers, power, price and emissions. A pool has the servers up to its highest ordinal in use."""
    problem = servers.problem
    counts, watts, price, grams = [], [], [], []
    for p, pool in enumerate(problem.pools):
        used = [s for s in range(servers.start[p], servers.start[p + 1]) if servers.residents[s]]
        count = max(servers.ordinal(used[-1]) + 1 if used else 0, 0 if pool.deleting else pool.servers_min)
        running = sum(ordinal < count for ordinal in problem.on.ordinals[p])
        counts.append(count)
        watts.append(standing_watts(servers, p, running) + math.fsum(executing_watts(servers, s) for s in used))
        price.append(pool.price_per_server_hour * running)
        grams.append(watts[-1] / 1000 * pool.grams_per_kilowatt_hour)
    total = math.fsum(watts)
    weights = problem.weights
    cost = weights.energy * total + weights.price * math.fsum(price) + weights.grams * math.fsum(grams)
    return Figures(counts, watts, total, math.fsum(price), math.fsum(grams), cost)


def standing_watts(servers: Servers, p: int, running: int) -> float:
    """Host and idle power of a pool with so many servers running, at the wall."""
    problem = servers.problem
    if not problem.pools[p].scale_in:
        return always_on_watts(problem, p)
    nodes = math.ceil(running / problem.pools[p].servers_per_node)
    return float(problem.on.node_watts[p] * nodes + problem.on.server_watts[p] * running)


def executing_watts(servers: Servers, s: int) -> float:
    """What execution adds on a server, at the wall: being awake, and what its replicas serve."""
    return sum(replica_watts(servers, m, s) for m in servers.residents[s]) + float(
        servers.problem.on.pue[servers.pool_of[s]] * servers.awake[s]
    )


def replica_watts(servers: Servers, m: int, s: int) -> float:
    """pue x u x (W - A) of a replica."""
    c = servers.homes[m][s]
    return servers.table.pue[servers.pool_of[s]] * servers.share[m][s] * servers.table.slope[c]


def drawn_in(servers: Servers, limit: Limit, counted: Figures) -> float:
    """Watts that count for a limit."""
    if limit.whole_pools:
        return math.fsum(watts for watts, inside in zip(counted.pool_watts, limit.pools.tolist(), strict=True) if inside)
    return math.fsum(
        replica_watts(servers, m, s) for m, homes in enumerate(servers.homes) for s, c in homes.items() if limit.candidates[c]
    )
