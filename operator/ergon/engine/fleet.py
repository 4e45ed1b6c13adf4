"""From the cache to a plan: takes the snapshot, has it planned off the event loop, and remembers what stands."""

import asyncio
import logging
from dataclasses import replace

from ergon.engine.cache import Cache
from ergon.engine.servers import Servers
from ergon.fleet.types import Fleet, ModelKey, Replica, ServerKey
from ergon.planning import Alternative, Plan, plan

log = logging.getLogger("ergon.planner")


class Planner:
    """Holds the current plan. The first plan after a start is made from what statuses and servers say, so that nothing moves."""

    def __init__(self, cache: Cache, servers: Servers, operator_namespace: str) -> None:
        self._cache = cache
        self._servers = servers
        self._operator_namespace = operator_namespace
        self._plan: Plan | None = None
        self._planned_version = -1
        self._unavailable: dict[str, frozenset[int]] = {}
        self._refused: frozenset[tuple[ModelKey, str, ServerKey]] = frozenset()
        self._on_pool: dict[str, list[Replica]] = {}
        self._on_server: dict[ServerKey, list[ModelKey]] = {}
        self._used_bytes: dict[str, int] = {}

    @property
    def outdated(self) -> bool:
        """Whether what the plan was made from has changed."""
        return self._planned_version != self._cache.plan_version or self._servers.refused() != self._refused

    def knows(self, key: ModelKey) -> bool:
        """Whether the plan was made with this model in it."""
        return self._plan is not None and key in self._plan.placements

    def placements(self, key: ModelKey) -> tuple[Replica, ...]:
        """Where the model's replicas belong."""
        return self._plan.placements.get(key, ()) if self._plan is not None else ()

    def missing(self, key: ModelKey) -> int:
        """Replicas that could not be placed."""
        return self._plan.missing_replicas.get(key, 0) if self._plan is not None else 0

    def alternatives(self, key: ModelKey) -> tuple[Alternative, ...]:
        """Why here, and why not there."""
        return self._plan.alternatives.get(key, ()) if self._plan is not None else ()

    def servers(self, pool: str) -> int | None:
        """How many servers of the pool are on in the plan; None before the first."""
        return self._plan.servers.get(pool) if self._plan is not None else None

    def on_pool(self, pool: str) -> list[Replica]:
        """All replicas planned on a pool."""
        return self._on_pool.get(pool, [])

    def on_server(self, server: ServerKey) -> list[ModelKey]:
        """All models planned on a server."""
        return self._on_server.get(server, [])

    def used_bytes(self, pool: str) -> int:
        """Memory that the planned replicas of a pool declare."""
        return self._used_bytes.get(pool, 0)

    def set_unavailable(self, pool: str, ordinals: frozenset[int]) -> None:
        """Ordinals the next plan goes round."""
        if self._unavailable.get(pool, frozenset()) != ordinals:
            self._unavailable[pool] = ordinals
            self._cache.wake(plan=True)

    async def plan(self) -> set[ModelKey]:
        """Make a new plan; the models whose part of it changed."""
        version, refused = self._cache.plan_version, self._servers.refused()
        snapshot = self._snapshot(refused)
        new = await asyncio.to_thread(plan, snapshot)
        old, self._plan = self._plan, new
        self._planned_version, self._refused = version, refused
        self._index(snapshot)
        if old is None:
            return set(self._cache.models) | self._servers.models()
        changed = {
            key
            for key in {*new.placements, *old.placements}
            if new.placements.get(key) != old.placements.get(key)
            or new.alternatives.get(key) != old.alternatives.get(key)
            or new.missing_replicas.get(key) != old.missing_replicas.get(key)
        }
        self._say(old, new)
        return changed

    def _snapshot(self, refused: frozenset[tuple[ModelKey, str, ServerKey]]) -> Fleet:
        pools = tuple(
            replace(record.pool, unavailable=self._unavailable.get(name, frozenset()))
            for name, record in self._cache.pools.items()
            if record.pool is not None
        )
        models = tuple(record.model for record in self._cache.models.values() if record.model is not None)
        return Fleet(pools, models, dict(self._cache.namespaces), self._operator_namespace, tuple(self._current()), refused)

    def _current(self) -> list[Replica]:
        """Where replicas are: by the last plan, and for models it does not know by their servers and their status."""
        current: list[Replica] = []
        for key, record in self._cache.models.items():
            if self._plan is not None and key in self._plan.placements:
                current += self._plan.placements[key]
            elif record.model is not None:
                current += self._servers.standing(record.model)
                known = {replica.server for replica in current if replica.model == key}
                for placement in record.status.get("placements") or ():
                    server = ServerKey(placement["pool"], placement["server"])
                    if server not in known and placement["state"] != "Draining":
                        current.append(Replica(key, placement["variant"], server))
        return current

    def _index(self, snapshot: Fleet) -> None:
        assert self._plan is not None
        memory = {(m.key, v.name): v.memory_bytes for m in snapshot.models for v in m.variants}
        self._on_pool, self._on_server, self._used_bytes = {}, {}, {}
        for replicas in self._plan.placements.values():
            for replica in replicas:
                pool = replica.server.pool
                self._on_pool.setdefault(pool, []).append(replica)
                self._on_server.setdefault(replica.server, []).append(replica.model)
                self._used_bytes[pool] = self._used_bytes.get(pool, 0) + memory.get((replica.model, replica.variant), 0)

    def _say(self, old: Plan, new: Plan) -> None:
        for key, replicas in new.placements.items():
            before = old.placements.get(key, ())
            if replicas == before or not replicas:
                continue
            where = ", ".join(f"{replica.server} ({replica.variant})" for replica in replicas)
            was = ", ".join(str(replica.server) for replica in before)
            log.info("%s is placed on %s%s", key, where, f", before on {was}" if was else "")
