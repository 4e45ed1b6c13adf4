"""From what stands to what should stand next: what is short is mended, what nothing needs goes, better places pay for the way.

The operator and the simulator both go by this. What stays in force whatever is under way: replicas that serve nothing go, and a
pool's highest servers are emptied where the others have room for what they hold. Only a wholly new plan waits for quiet.
"""

import math
from dataclasses import dataclass, replace

from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica, ServerKey
from ergon.planning import Effort, Plan, plan
from ergon.planning.moves import moves, next_stage

MENDING = Effort.quick()
"""It takes nothing away: what goes is decided here, by what is on its way, whether demand is known, and what pays for its way."""
MOVES_AT_ONCE = 10
STAY_SECONDS = 3600.0
"""How long the demand is expected to stay as it is planned for."""
PAYS_BACK = 1.5
LEAST_SAVING = 0.002
"""Of a plan's watts: emptying a server that saves less is within what rounding does."""
LOAD_BYTES_PER_SECOND = 5e8
"""Fetching and loading, each at 1 GB/s (simulate/settings.py says where that is from): 30 s for 14 GiB, 223 s for 104."""
DRAIN_SECONDS = 70.0
"""Until a replica out of traffic may be unloaded: one connection age, and ten seconds."""
CLOSINGS_AT_ONCE = 4
TRIES_AT_ONCE = 6
_KINDS_TRIED = 2


@dataclass(frozen=True, slots=True)
class Way:
    """What stands next. `moving`: whether there is more to do on the way to a better plan."""

    plan: Plan
    moving: bool


def mend(fleet: Fleet, before: Plan | None, moving: frozenset[ModelKey] = frozenset(), *, lean: bool = True) -> Plan:
    """What stands, with the least that must be added; if `lean`, less what nothing needs. `moving`: models on their way."""
    made = grow(fleet, before)
    back = _back(fleet, made)
    if back:
        fleet = replace(fleet, current=fleet.current + back, leaving=tuple(r for r in fleet.leaving if r not in back))
        made = grow(fleet, before)
    return close(fleet, drop(fleet, made, moving), moving) if lean and not made.short else made


def grow(fleet: Fleet, before: Plan | None) -> Plan:
    """What stands, with the least that must be added: of a model that generates on the kind of accelerator where it stands.

    What a minute lacks is no ground to change the kind: that takes minutes, and most of the time back again.
    """
    kinds = {pool.name: pool.kind for pool in fleet.pools}
    generating = {model.key for model in fleet.models if model.counts_tokens}
    where: dict[ModelKey, set[str]] = {}
    for replica in fleet.current:
        if replica.model in generating and replica.server.pool in kinds:
            where.setdefault(replica.model, set()).add(kinds[replica.server.pool])
    kept = {key: next(iter(mine)) for key, mine in where.items() if len(mine) == 1}
    made = _on_one_kind(replace(fleet, kept_to=kept), MENDING, before)
    return made if not made.short else _on_one_kind(fleet, MENDING, before)


def _back(fleet: Fleet, made: Plan) -> tuple[Replica, ...]:
    """Of the replicas that are leaving those of models that need more: they are there already."""
    grow = {replica.model for replica in set(standing(made)) - set(fleet.current)}
    taken = {(replica.model, replica.server) for replica in fleet.current}
    return tuple(r for r in fleet.leaving if r.model in grow and (r.model, r.server) not in taken)


def improve(fleet: Fleet, before: Plan | None, effort: Effort, moving: frozenset[ModelKey] = frozenset()) -> Way:
    """A stage towards better places, where those are worth the way; else as `mend`."""
    if not fleet.current:
        return Way(_on_one_kind(fleet, effort, before), False)
    mended = mend(fleet, before, moving)
    current = standing(mended)
    better = _on_one_kind(replace(fleet, current=current), effort, None)
    if not _worth_it(fleet, mended, better):
        return Way(mended, False)
    stage = next_stage(replace(fleet, current=current), better, max(0, MOVES_AT_ONCE - len(moving)))
    stage |= {key: mended.placements[key] for key in moving if key in mended.placements}
    return Way(replace(better, placements=stage), stage != better.placements and moves(current, stage) != (0, 0))


def standing(made: Plan) -> tuple[Replica, ...]:
    """All replicas of a plan."""
    return tuple(replica for replicas in made.placements.values() for replica in replicas)


def drop(fleet: Fleet, made: Plan, moving: frozenset[ModelKey]) -> Plan:
    """Without replicas that serve nothing, beyond the least; those on the highest servers first."""
    kept: dict[ModelKey, tuple[Replica, ...]] = {}
    for model in fleet.models:
        mine = made.placements.get(model.key, ())
        idle = [replica for replica in mine if made.loads[replica].work_per_second <= 0]
        spare = len(mine) - _least(model)
        if spare > 0 and idle and model.key not in moving:
            gone = sorted(idle, key=lambda replica: (-replica.server.ordinal, replica.server.pool))[:spare]
            kept[model.key] = tuple(replica for replica in mine if replica not in gone)
    if not kept:
        return made
    left = replace(made, placements={**made.placements, **kept})
    lean = grow(replace(fleet, current=standing(left)), left)
    return lean if not lean.short and lean.watts <= made.watts * (1 + 1e-9) else made


def close(fleet: Fleet, made: Plan, moving: frozenset[ModelKey]) -> Plan:
    """With the highest servers of pools emptied, one by one or a node at a time, where what they hold fits elsewhere for less."""
    tries, closed, hopeless = 0, 0, set[str]()
    while closed < CLOSINGS_AT_ONCE and tries < TRIES_AT_ONCE:
        pool = _most_to_close(fleet, made, moving, hopeless)
        if pool is None:
            return made
        count = made.servers[pool.name]
        node = (count - 1) // pool.servers_per_node * pool.servers_per_node
        found = None
        for first in sorted({count - 1, max(node, pool.servers_min)}, reverse=True):
            if _most_saved(pool, first, count) < LEAST_SAVING * made.watts:
                continue
            tries += 1
            found = _without(fleet, made, pool, first)
            if found is not None:
                break
        if found is None:
            hopeless.add(pool.name)
        else:
            made, closed = found, closed + 1
    return made


def _most_saved(pool: Pool, first: int, count: int) -> float:
    """Watts that the pool's servers from `first` on draw at most, where that is known: of a large fleet too few to plan for."""
    if pool.busy_watts is None:
        return math.inf
    nodes = -(-count // pool.servers_per_node) - -(-first // pool.servers_per_node)
    return pool.pue * ((count - first) * max(pool.idle_watts, pool.busy_watts) + nodes * pool.host_watts)


def _without(fleet: Fleet, made: Plan, pool: Pool, first: int) -> Plan | None:
    """The plan with the pool's servers from `first` on emptied; None where that is not worth it."""
    gone = frozenset(range(first, made.servers[pool.name]))
    pools = tuple(replace(p, unavailable=p.unavailable | gone) if p.name == pool.name else p for p in fleet.pools)
    stay = {
        key: tuple(r for r in replicas if r.server.pool != pool.name or r.server.ordinal not in gone)
        for key, replicas in made.placements.items()
    }
    left = replace(made, placements=stay)
    other = grow(replace(fleet, pools=pools, current=standing(left)), left)
    if other.short or made.watts - other.watts < LEAST_SAVING * made.watts or not _worth_it(fleet, made, other):
        return None
    return other


def _most_to_close(fleet: Fleet, made: Plan, moving: frozenset[ModelKey], hopeless: set[str]) -> Pool | None:
    """The pool whose highest server is the emptiest, of those that may shrink and whose other servers have room for it."""
    busy: dict[ServerKey, float] = {}
    held: set[ServerKey] = set()
    for replica, load in made.loads.items():
        most = load.most_per_second * load.busy_share / load.work_per_second if load.work_per_second > 0 else 1.0
        busy[replica.server] = busy.get(replica.server, 0.0) + load.busy_share / max(most, 1e-9)
        if replica.model in moving:
            held.add(replica.server)
    best: tuple[float, str] | None = None
    for pool in fleet.pools:
        count = made.servers.get(pool.name, 0)
        top = ServerKey(pool.name, count - 1)
        if count <= pool.servers_min or not pool.scale_in or pool.name in hopeless or top in held:
            continue
        room = sum(max(0.0, 1.0 - busy.get(ServerKey(pool.name, n), 0.0)) for n in range(count - 1))
        share = busy.get(top, 0.0)
        if share <= room + 1e-9 and (best is None or (share, pool.name) < best):
            best = (share, pool.name)
    return next((pool for pool in fleet.pools if best is not None and pool.name == best[1]), None)


def _worth_it(fleet: Fleet, now: Plan, then: Plan) -> bool:
    """Whether a plan is to follow another: it lacks less, or saves more than the way costs in the time it is expected to stay."""
    if _lacks(then) != _lacks(now):
        return _lacks(then) < _lacks(now)
    return (now.watts - then.watts) * STAY_SECONDS > PAYS_BACK * way_joules(fleet, now, then)


def _lacks(made: Plan) -> tuple[int, float]:
    return sum(made.missing_replicas.values()), math.fsum(made.unserved.values())


def way_joules(fleet: Fleet, now: Plan, then: Plan) -> float:
    """What turning one plan into another takes: loads; new servers until they serve; and old ones until their power is off."""
    pools = {pool.name: pool for pool in fleet.pools}
    loads = set(standing(then)) - set(standing(now))
    joules, longest, last = 0.0, 0.0, dict.fromkeys(pools, 0.0)
    for replica in loads:
        pool, seconds = pools[replica.server.pool], then.loads[replica].memory_bytes / LOAD_BYTES_PER_SECOND
        joules += pool.pue * max(pool.idle_watts, pool.busy_watts or 0.0) * seconds
        last[pool.name] = max(last[pool.name], seconds)
        longest = max(longest, seconds)
    for name, pool in pools.items():
        more = then.servers.get(name, 0) - now.servers.get(name, 0)
        if more > 0 and pool.scale_in:
            joules += _standing_watts(pool, more) * (pool.boot_delay_seconds + last[name])
            longest = max(longest, pool.boot_delay_seconds + last[name])
    for name, pool in pools.items():
        fewer = now.servers.get(name, 0) - then.servers.get(name, 0)
        if fewer > 0 and pool.scale_in:
            joules += _standing_watts(pool, fewer) * (longest + DRAIN_SECONDS + pool.off_delay_seconds)
    return joules


def _standing_watts(pool: Pool, servers: int) -> float:
    return pool.pue * servers * (pool.idle_watts + pool.host_watts / pool.servers_per_node)


def _least(model: Model) -> int:
    return model.fixed_replicas if model.fixed_replicas is not None else model.min_replicas


def _on_one_kind(fleet: Fleet, effort: Effort, before: Plan | None) -> Plan:
    """A plan in which the load of each model that generates is on one kind of accelerator, where that leaves nothing short.

    A gateway gives each replica as many requests as the next: beside one of 512 places one of 32 is full at a sixteenth.
    """
    made = plan(fleet, effort=effort, before=before)
    mixed = _mixed(fleet, made)
    for rank in range(_KINDS_TRIED if mixed else 0):
        kept = {key: kinds[min(rank, len(kinds) - 1)] for key, kinds in mixed.items()}
        pools = {pool.name: pool.kind for pool in fleet.pools}
        there = tuple(r for r in fleet.current if pools.get(r.server.pool) == kept.get(r.model, pools.get(r.server.pool)))
        other = plan(replace(fleet, current=there, kept_to={**fleet.kept_to, **kept}), effort=effort, before=before)
        if _lacks(other) <= _lacks(made):
            return other
    return made


def _mixed(fleet: Fleet, made: Plan) -> dict[ModelKey, list[str]]:
    """Models that generate and whose work is on several kinds of accelerator, with those, that with most work first."""
    found = {}
    pools = {pool.name: pool.kind for pool in fleet.pools}
    for model in fleet.models:
        work: dict[str, float] = {}
        for replica in made.placements.get(model.key, ()) if model.counts_tokens else ():
            served = made.loads[replica].work_per_second
            if served > 0:
                kind = pools[replica.server.pool]
                work[kind] = work.get(kind, 0.0) + served
        if len(work) > 1:
            found[model.key] = sorted(work, key=lambda kind: (-work[kind], kind))
    return found
