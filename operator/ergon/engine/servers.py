"""All servers: an agent for every pod that can be reached, started and ended as pods come and go."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from ergon.api.quantities import format_bytes
from ergon.engine.cache import Cache, PoolRecord
from ergon.engine.cached_pods import PodRecord
from ergon.engine.memory import MeasuredMemory
from ergon.engine.server import ServerAgent
from ergon.fleet.types import Model, ModelKey, Replica, ServerKey
from ergon.kube.builders import template_hash
from ergon.kube.keys import KeyMaterial
from ergon.reconcile.failing import better_elsewhere
from ergon.reconcile.observed import ColdStart, IndexState, ServerView

log = logging.getLogger("ergon.servers")
Connect = Callable[[PodRecord, str, bool, KeyMaterial], ServerAgent]

TOO_MANY_HUNG_LOADS = 4
"""Of Triton's 8 load threads: half of them gone, and the pod is emptied and replaced before none is left."""


class Servers:
    """The agents, by server. `planned`: the models that belong on a server. `measured`: what loads took, on all of them."""

    def __init__(self, cache: Cache, connect: Connect, planned: Callable[[ServerKey], Iterable[ModelKey]]) -> None:
        self._cache = cache
        self._connect = connect
        self._planned = planned
        self._agents: dict[ServerKey, ServerAgent] = {}
        self._tasks: dict[ServerKey, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.planned_on: Callable[[str], Iterable[Replica]] = lambda _: ()
        self.ended: Callable[[ServerKey], None] = lambda _: None
        self.measured = MeasuredMemory()

    def all(self) -> Iterable[ServerAgent]:
        """Every agent."""
        return self._agents.values()

    def agent(self, key: ServerKey) -> ServerAgent | None:
        """The agent of a server, if its pod can be reached."""
        return self._agents.get(key)

    def views(self) -> list[ServerView]:
        """Every server that has a pod; one that cannot be reached yet is seen as its pod says, and not as read."""
        seen = [agent.view() for agent in self._agents.values()]
        for key, pod in self._cache.pods.items():
            if key not in self._agents:
                zone = self._cache.nodes[pod.node].zone if pod.node in self._cache.nodes else ""
                seen.append(
                    ServerView(
                        key, pod.name, pod.uid, pod.ip, pod.node, zone, pod.ready, pod.deleting, synced=False, answering=False
                    )
                )
        return seen

    def holding(self, key: ModelKey) -> list[ServerAgent]:
        """Agents whose server has anything of the model."""
        return [agent for agent in self._agents.values() if key in agent.facts]

    def models(self) -> set[ModelKey]:
        """Every model that any server has anything of."""
        return {key for agent in self._agents.values() for key in agent.facts}

    def standing(self, models: Iterable[Model]) -> dict[ModelKey, list[Replica]]:
        """By model, its replicas that are loaded in one of its present variants. One look at all servers, however many models."""
        ready: dict[ModelKey, list[tuple[ServerKey, str]]] = {}
        for agent in self._agents.values():
            for key, facts in agent.facts.items():
                if facts.index is IndexState.READY and facts.loaded_revision is not None:
                    ready.setdefault(key, []).append((agent.key, facts.loaded_revision))
        found: dict[ModelKey, list[Replica]] = {}
        for model in models:
            by_revision = {variant.load_revision: variant.name for variant in model.variants} if model.key in ready else {}
            found[model.key] = [
                Replica(model.key, by_revision[revision], server)
                for server, revision in ready.get(model.key, ())
                if revision in by_revision
            ]
        return found

    def note_memory(self, model: Model) -> None:
        """Fill in what loaded replicas take up, which a new process does not know."""
        by_revision = {variant.load_revision: variant for variant in model.variants}
        for agent in self.holding(model.key):
            facts = agent.facts[model.key]
            if facts.index is IndexState.READY and not facts.memory_bytes:
                variant = by_revision.get(facts.loaded_revision or "")
                facts.memory_bytes = agent.needed_bytes(model.key, variant) if variant is not None else 0

    def cold_start(self, key: ModelKey, planned: Iterable[Replica]) -> ColdStart | None:
        """How long the last bring-up of a planned replica took, where this process saw it."""
        for replica in planned:
            agent = self._agents.get(replica.server)
            facts = agent.facts.get(key) if agent is not None else None
            if facts is not None and facts.cold_start is not None:
                return replace(facts.cold_start, first_answer_seconds=facts.first_answer_seconds)
        return None

    def first_answered(self, key: ModelKey, seconds: float) -> bool:
        """A model that was woken gave its first answer so long after its first server was there; whether one holds it."""
        agents = [agent for agent in self._agents.values() if key in agent.facts and agent.facts[key].cold_start is not None]
        for agent in agents:
            agent.facts[key].first_answer_seconds = seconds
        return bool(agents)

    def refused(self) -> frozenset[tuple[ModelKey, str, ServerKey]]:
        """What must not be sent to a server again: loads that hung there."""
        return frozenset(
            (key, facts.failure.revision, agent.key)
            for agent in self._agents.values()
            if agent.hung_loads
            for key, facts in agent.facts.items()
            if facts.failure is not None and facts.failure.retry_at_seconds is None
        )

    def avoided(self) -> frozenset[tuple[ModelKey, str, ServerKey]]:
        """What keeps failing on a server and is better tried elsewhere."""
        failing: dict[tuple[ModelKey, str], set[ServerKey]] = {}
        for agent in self._agents.values():
            for what in agent.failing:
                failing.setdefault(what, set()).add(agent.key)
        return better_elsewhere(failing, {what for what in failing if self._is_loaded(*what)})

    def _is_loaded(self, key: ModelKey, revision: str) -> bool:
        return any(
            agent.facts[key].index is IndexState.READY and agent.facts[key].loaded_revision == revision
            for agent in self.holding(key)
        )

    def set_leaving(self, pool: str, ordinal: int, reason: str) -> None:
        """Note why a server is being emptied; its models are looked at again when that changes."""
        agent = self._agents.get(ServerKey(pool, ordinal))
        if agent is not None and agent.leaving != reason:
            agent.leaving = reason
            if reason:
                log.info("server %s is emptied: %s", agent.key, reason)
            self._cache.wake(models=list(agent.facts))

    def emptied(self, pool: str) -> bool:
        """Have the servers of a deleted pool emptied; whether none holds any model."""
        agents = [agent for agent in self._agents.values() if agent.key.pool == pool]
        for agent in agents:
            self.set_leaving(pool, agent.key.ordinal, "PoolDeleted")
        return not any(agent.holds_models for agent in agents)

    def forget(self, key: ModelKey) -> None:
        """A model has no object: its failures are of no more interest."""
        for agent in self._agents.values():
            agent.failing = {what for what in agent.failing if what[0] != key}
        for agent in self.holding(key):
            facts = agent.facts[key]
            facts.failure = None
            if facts.gone:
                del agent.facts[key]

    def follow(self, cache: Cache, keys: dict[str, KeyMaterial]) -> None:
        """Start agents for pods that have an address, end those whose pod is gone, pass on what pods and nodes say."""
        for server, agent in list(self._agents.items()):
            pod = cache.pods.get(server)
            if pod is None or pod.uid != agent.pod.uid or not pod.ip or pod.ip != agent.pod.ip:
                self._end(server, f"its pod {agent.pod.name} ended")
            elif agent.refused and server.pool in keys and agent.keys != keys[server.pool]:
                self._end(server, "it is asked again with the keys that its pool has now")
        for server, pod in cache.pods.items():
            known = self._agents.get(server)
            node = cache.nodes.get(pod.node)
            zone, node_ready = (node.zone, node.ready) if node is not None else ("", False)
            if known is not None:
                if known.hung_loads >= TOO_MANY_HUNG_LOADS:
                    known.condemned = known.condemned or f"{known.hung_loads} loads hang on it"
                if (known.pod, known.zone, known.node_ready) != (pod, zone, node_ready):
                    known.pod, known.zone, known.node_ready = pod, zone, node_ready
                    known.poke()
                    self._wake_models(server, known)
                _follow_pool(known, cache.pools.get(server.pool))
            elif pod.ip and not pod.deleting and pod.phase == "Running" and server.pool in keys:
                self._start(pod, zone, node_ready, keys[server.pool])

    def wake(self, server: ServerKey) -> None:
        """Have the loop look again at a server's pool, and at all models that are there, or by plan or status should be."""
        self._wake_models(server, self._agents.get(server))
        self._cache.wake(pools=[server.pool])

    def _wake_models(self, server: ServerKey, agent: ServerAgent | None) -> None:
        self._cache.wake(models=[*(agent.facts if agent is not None else ()), *self._planned(server)])

    def _start(self, pod: PodRecord, zone: str, node_ready: bool, keys: KeyMaterial) -> None:
        agent = self._connect(pod, zone, node_ready, keys)
        self._agents[pod.key] = agent
        self._tasks[pod.key] = asyncio.create_task(agent.run(), name=f"server {pod.key}")

    def _end(self, server: ServerKey, why: str) -> None:
        agent, task = self._agents.pop(server), self._tasks.pop(server)
        task.cancel()
        closing = asyncio.create_task(agent.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self.ended(server)
        log.info("server %s is gone: %s", server, why)
        self._wake_models(server, agent)
        self._cache.wake(pools=[server.pool], plan=True)

    async def close(self) -> None:
        """End all agents; what is loaded stays loaded."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._closing, return_exceptions=True)
        await asyncio.gather(*(agent.close() for agent in self._agents.values()), return_exceptions=True)
        self._agents.clear()
        self._tasks.clear()


def _follow_pool(agent: ServerAgent, record: PoolRecord | None) -> None:
    """Pass on how much a server of the pool holds. A pod of an older template has what it was made with until it is replaced."""
    if record is None or record.pool is None or record.spec is None:
        return
    now = record.pool.memory_bytes, record.pool.max_models
    if (agent.memory_bytes, agent.max_models) != now and agent.pod.template_hash in ("", template_hash(record.spec)):
        log.info("server %s: its pool has %s of memory, and maxModels is %s", agent.key, format_bytes(now[0]), now[1])
        agent.memory_bytes, agent.max_models = now
