"""A simple placement behind the planning interface: what stands, stays; the rest goes where idling costs least.

Models are placed by priority, then by name; a new replica goes to the feasible pool with the least idle watts a server
(host included), onto the lowest ordinal with room. It knows no demand.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica, ServerKey, Variant
from ergon.planning.candidates import Reason, Rejection, judge
from ergon.planning.plan import Alternative, Plan

HUNG_ENOUGH = 2
"""Servers on which a revision's load may hang: each hang costs one of Triton's load threads, and a third would tell no more."""


@dataclass(slots=True)
class _Server:
    free_bytes: int
    free_slots: int | None
    models: set[ModelKey] = field(default_factory=set)

    def has_room(self, model: ModelKey, variant: Variant) -> bool:
        return variant.memory_bytes <= self.free_bytes and self.free_slots != 0 and model not in self.models

    def take(self, model: ModelKey, variant: Variant) -> None:
        self.free_bytes -= variant.memory_bytes
        if self.free_slots is not None:
            self.free_slots -= 1
        self.models.add(model)


class _Room:
    """What is still free on every server while a plan is made."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self._servers: dict[ServerKey, _Server] = {}
        self._lowest_open: dict[tuple[str, int], int] = {}

    def server(self, key: ServerKey) -> _Server:
        if key not in self._servers:
            pool = self.pools[key.pool]
            self._servers[key] = _Server(pool.memory_bytes, pool.max_models)
        return self._servers[key]

    def exists(self, key: ServerKey) -> bool:
        pool = self.pools.get(key.pool)
        return pool is not None and key.ordinal < pool.servers_max and key.ordinal not in pool.unavailable

    def place(self, fleet: Fleet, model: ModelKey, variant: Variant, pool: Pool) -> ServerKey | None:
        """The lowest ordinal with room, taken; None where none has room."""
        start_key = (pool.name, variant.memory_bytes)
        start = self._lowest_open.get(start_key, 0)
        full_so_far = True
        for ordinal in range(start, pool.servers_max):
            key = ServerKey(pool.name, ordinal)
            if ordinal in pool.unavailable:
                continue
            server = self.server(key)
            if server.has_room(model, variant):
                if (model, variant.load_revision, key) in fleet.refused:
                    full_so_far = False
                    continue
                server.take(model, variant)
                return key
            if full_so_far and model not in server.models:
                self._lowest_open[start_key] = ordinal + 1
            else:
                full_so_far = False
        return None


def plan(fleet: Fleet) -> Plan:
    """A plan for the fleet. Never fails: what cannot be placed is in `missing_replicas`, with reasons in `alternatives`."""
    pools = sorted(fleet.pools, key=lambda pool: (pool.idle_watts + pool.host_watts, pool.accelerator_class, pool.name))
    room = _Room(pools)
    models = sorted(fleet.models, key=lambda model: (-model.priority, model.key))
    current: dict[ModelKey, list[Replica]] = {}
    for replica in fleet.current:
        current.setdefault(replica.model, []).append(replica)
    judged = {model.key: _judge_all(fleet, model, pools) for model in models}
    result = Plan()
    for model in models:
        kept = _keep(fleet, room, model, judged[model.key], current.get(model.key, ()))
        result.placements[model.key] = tuple(kept)
    for model in models:
        _place_missing(fleet, room, model, judged[model.key], result)
    used = {replica.server for replicas in result.placements.values() for replica in replicas}
    for pool in pools:
        highest = max((server.ordinal for server in used if server.pool == pool.name), default=-1)
        result.servers[pool.name] = (
            0 if pool.deleting and highest < 0 else min(pool.servers_max, max(pool.servers_min, highest + 1))
        )
    return result


_Judged = list[tuple[Pool, Variant, Rejection | None]]


def _judge_all(fleet: Fleet, model: Model, pools: list[Pool]) -> _Judged:
    return [(pool, variant, judge(fleet, model, variant, pool)) for pool in pools for variant in model.variants]


def _keep(fleet: Fleet, room: _Room, model: Model, judged: _Judged, current: Iterable[Replica]) -> list[Replica]:
    feasible = {(pool.name, variant.name): variant for pool, variant, rejection in judged if rejection is None}
    kept: list[Replica] = []
    for replica in sorted(current, key=lambda replica: replica.server):
        variant = feasible.get((replica.server.pool, replica.variant))
        if variant is None or len(kept) >= model.wanted_replicas or not room.exists(replica.server):
            continue
        if (model.key, variant.load_revision, replica.server) in fleet.refused:
            continue
        server = room.server(replica.server)
        if server.has_room(model.key, variant):
            server.take(model.key, variant)
            kept.append(replica)
    return kept


def _place_missing(fleet: Fleet, room: _Room, model: Model, judged: _Judged, result: Plan) -> None:
    placed = list(result.placements[model.key])
    hung = Counter(revision for key, revision, _ in fleet.refused if key == model.key)
    kept = {(replica.server.pool, replica.variant) for replica in placed}
    chosen: set[tuple[str, str]] = set()
    full: set[tuple[str, str]] = set()
    for pool, variant, rejection in judged:
        while rejection is None and len(placed) < model.wanted_replicas and hung[variant.load_revision] < HUNG_ENOUGH:
            server = room.place(fleet, model.key, variant, pool)
            if server is None:
                full.add((pool.name, variant.name))
                break
            placed.append(Replica(model.key, variant.name, server))
            chosen.add((pool.name, variant.name))
    result.placements[model.key] = tuple(placed)
    if len(placed) < model.wanted_replicas:
        result.missing_replicas[model.key] = model.wanted_replicas - len(placed)
    first = next(((pool.name, variant.name) for pool, variant, rejection in judged if rejection is None), None)
    result.alternatives[model.key] = tuple(
        _alternative(fleet, model, pool, variant, rejection, kept, chosen, full, first) for pool, variant, rejection in judged
    )


def _alternative(
    fleet: Fleet,
    model: Model,
    pool: Pool,
    variant: Variant,
    rejection: Rejection | None,
    kept: set[tuple[str, str]],
    chosen: set[tuple[str, str]],
    full: set[tuple[str, str]],
    first: tuple[str, str] | None,
) -> Alternative:
    place = (pool.name, variant.name)
    idle = f"{pool.idle_watts + pool.host_watts:g} W idle a server"
    if rejection is not None:
        return Alternative(pool.name, variant.name, "Rejected", rejection.reason, rejection.message)
    if place in chosen or place in kept:
        if place not in chosen and place != first:
            return Alternative(pool.name, variant.name, "Chosen", Reason.KEPT, f"it already stands there: {idle}")
        return Alternative(pool.name, variant.name, "Chosen", Reason.LEAST_ENERGY, f"least idle power with room: {idle}")
    if any(
        key == model.key and revision == variant.load_revision and server.pool == pool.name
        for key, revision, server in fleet.refused
    ):
        return Alternative(
            pool.name, variant.name, "Rejected", Reason.FAILED_THERE, "its load hung on a server; a new revision is tried anew"
        )
    if place in full or pool.servers_max == 0:
        return Alternative(
            pool.name, variant.name, "Rejected", Reason.NO_ROOM, f"all {pool.servers_max} servers are full or not to be had"
        )
    return Alternative(pool.name, variant.name, "Feasible", Reason.MORE_ENERGY, f"more power or not needed: {idle}")
