"""Planning again from what stands, after one change: seconds and moves."""

from dataclasses import dataclass, replace

from bench.plan.measure import Measured, measured, replicas
from ergon.fleet.types import Fleet, ModelKey, Pool, ServerKey
from ergon.planning import Effort, Plan

SMALL_PART = 0.05


@dataclass(frozen=True)
class Replanned:
    """What a change came to. `allowed`: moves that it explains by itself."""

    change: str
    run: Measured
    allowed: int


def standing(fleet: Fleet, made: Plan) -> Fleet:
    """The fleet with a plan's replicas standing."""
    return replace(fleet, current=replicas(made))


def busy_by_pool(made: Plan) -> dict[str, float]:
    """The busy share of each pool's servers, summed."""
    found: dict[str, float] = {}
    for replica, load in made.loads.items():
        found[replica.server.pool] = found.get(replica.server.pool, 0.0) + load.busy_share
    return found


def after_doubling(fleet: Fleet, made: Plan, which: int, effort: Effort) -> Replanned | None:
    """The demand of the `which`-th largest model doubles, of those that take less than 5 % of every pool they are on."""
    whole = busy_by_pool(made)
    busy: dict[ModelKey, float] = {}
    too_large: set[ModelKey] = set()
    parts: dict[tuple[ModelKey, str], float] = {}
    for replica, load in made.loads.items():
        busy[replica.model] = busy.get(replica.model, 0.0) + load.busy_share
        place = replica.model, replica.server.pool
        parts[place] = parts.get(place, 0.0) + load.busy_share
    for (key, pool), part in parts.items():
        if part >= SMALL_PART * whole[pool]:
            too_large.add(key)
    order = sorted((key for key in busy if key not in too_large and busy[key] > 0), key=lambda key: (-busy[key], key))
    if which >= len(order):
        return None
    key = order[which]
    changed = replace(standing(fleet, made), demand={**fleet.demand, key: 2 * fleet.demand[key]})
    return Replanned(f"{key} doubled", measured(changed, effort, made), 0)


def after_loss(fleet: Fleet, made: Plan, which: int, effort: Effort) -> Replanned | None:
    """The `which`-th busiest server is lost, of those that do 5 % of their pool's work at least."""
    whole = busy_by_pool(made)
    busy: dict[ServerKey, float] = {}
    for replica, load in made.loads.items():
        busy[replica.server] = busy.get(replica.server, 0.0) + load.busy_share
    order = [server for server in busy if busy[server] >= SMALL_PART * whole[server.pool] > 0]
    order.sort(key=lambda server: (-busy[server], server))
    if which >= len(order):
        return None
    lost = order[which]
    changed = standing(fleet, made)
    changed = replace(
        changed,
        pools=tuple(_without(pool, lost) for pool in fleet.pools),
        current=tuple(replica for replica in changed.current if replica.server != lost),
    )
    there = sum(1 for replica in made.loads if replica.server == lost)
    return Replanned(f"{lost} lost", measured(changed, effort, made), there)


def _without(pool: Pool, lost: ServerKey) -> Pool:
    return replace(pool, unavailable=pool.unavailable | {lost.ordinal}) if pool.name == lost.pool else pool
