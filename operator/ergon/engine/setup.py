"""Puts the engine together from its adapters, for as long as this process leads."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import aiohttp

from ergon.api.quantities import quantity_bytes
from ergon.engine.actions import Executor
from ergon.engine.budgets import BudgetWriter
from ergon.engine.cache import Cache
from ergon.engine.cached_pods import PodRecord
from ergon.engine.checkpoint import Checkpoint, parts_of
from ergon.engine.demand import DemandKeeper
from ergon.engine.effects import CALL_SECONDS, Effects
from ergon.engine.energy import EnergyKeeper
from ergon.engine.fetching import incoming_id
from ergon.engine.fleet import Planner
from ergon.engine.gateways import GatewayWatch, announce
from ergon.engine.loop import Engine, now_text
from ergon.engine.models import ModelWriter, model_reference
from ergon.engine.pools import PoolWriter
from ergon.engine.routes import RouteKeeper, RouteWriter
from ergon.engine.secrets import SourceResolver
from ergon.engine.server import ServerAgent
from ergon.engine.servers import Servers
from ergon.engine.settings import Settings
from ergon.engine.sources import SourceReader
from ergon.engine.wake import TokenReviewer, WakeServer
from ergon.fleet.types import ModelKey, ServerKey
from ergon.kube.builders.server import GRPC_PORT, METRICS_PORT, STORE_PORT
from ergon.kube.client import KubeClient
from ergon.kube.events import EventRecorder
from ergon.kube.keys import KeyMaterial
from ergon.reconcile.observed import IndexState
from ergon.store.client import ModelStore
from ergon.telemetry.figures import FleetFigures, ModelFigures
from ergon.telemetry.metrics import Metrics
from ergon.telemetry.power_sources import PowerSources, read_triton_page
from ergon.triton.client import TritonServer
from ergon.triton.configuration import InstanceKind
from ergon.triton.metrics import MetricsPage, model_metrics
from ergon.triton.observed import ModelStatistics

log = logging.getLogger("ergon.engine")

FLUSH_SECONDS = 2.0
"""For the last events at the end: the Lease is given back after them."""
_KINDS = {"cpu": InstanceKind.CPU, "gpu": InstanceKind.GPU}


class Leader:
    """The engine with everything it works through. `may_act(seconds)`: whether the Lease outlives a call that long."""

    def __init__(
        self, client: KubeClient, cache: Cache, settings: Settings, metrics: Metrics, may_act: Callable[[float], bool]
    ) -> None:
        loop = asyncio.get_running_loop()
        began = time.time() - loop.time()
        self._cache = cache
        self._metrics = metrics
        self._servers = Servers(cache, self._connect, lambda server: self._planner.on_server(server))
        self._session = aiohttp.ClientSession(trust_env=False)
        self._demand = DemandKeeper(
            cache,
            loop.time,
            time.time(),
            plan_seconds=settings.plan_seconds,
            stabilise_seconds=settings.stabilise_seconds,
        )
        self._client, self._settings = client, settings
        self._demand.can_wake = GatewayWatch(cache, settings.waking, loop.time).can_wake
        self._energy = EnergyKeeper(cache, self._servers, loop.time, time.time)
        self._sources = PowerSources(settings.prometheus_url)
        self._may_act = may_act
        planner = self._planner = Planner(
            cache, self._servers, self._demand, self._energy, settings, loop.time, metrics.observe_phase
        )
        self._servers.ended = self._server_gone
        self._servers.planned_on = planner.on_pool
        self._events = EventRecorder(client, settings.identity)
        self._models = ModelWriter(client, cache, settings, self._events, now_text, loop.time, self._look_again)
        self._pools = PoolWriter(client, cache, settings.servers, now_text)
        self._budgets = BudgetWriter(client, cache, self._events, now_text)
        self._routes = RouteWriter(client, cache, self._events, now_text)
        effects = Effects(
            resolve=SourceResolver(client, settings).resolve,
            may_act=may_act,
            changed=lambda key: cache.wake(models=[key]),
            observe=metrics.observe_phase,
            instance_kind=self._instance_kind,
            tell=self._tell,
            waited=lambda key: self._engine.waited(key),
            started=lambda key, seconds: self._engine.started(key, seconds),
        )
        executor = Executor(self._servers, effects)
        self._engine = Engine(
            cache,
            settings,
            planner,
            self._demand,
            self._energy,
            self._servers,
            executor,
            self._models,
            self._pools,
            self._budgets,
            self._routes,
            metrics.observe_phase,
        )
        waking = settings.waking
        self._route_keeper = RouteKeeper(
            cache,
            planner,
            self._demand,
            self._energy,
            f"{waking.service}.{settings.operator_namespace}.svc" if waking is not None else "",
            self._demand.can_wake,
            self._engine.answering,
            self._first_answered,
            lambda: began + loop.time(),
        )
        cascades = self._route_keeper.cascades
        parts = parts_of(self._demand, self._energy, cascades, lambda: began + loop.time())
        self._checkpoint = Checkpoint(client, settings.operator_namespace, parts)
        self._engine.look_at_routes = self._route_keeper.look
        self._demand.at_least = self._route_keeper.least_work

    async def run(self) -> None:
        """Lead until cancelled."""
        self._metrics.fleet.provide = self._fleet_figures
        await self._checkpoint.restore()
        beside = [
            asyncio.create_task(self._events.run(), name="events"),
            asyncio.create_task(self._checkpoint.keep(lambda: self._may_act(CALL_SECONDS)), name="checkpoint"),
            asyncio.create_task(SourceReader(self._cache, self._energy, self._sources).run(), name="power sources"),
        ]
        wake = await self._listen(beside)
        for task in beside:
            task.add_done_callback(_tell_of_its_end)
        try:
            await self._engine.run()
        finally:
            for task in beside:
                task.cancel()
            if wake is not None:
                await wake.close()

    async def _listen(self, beside: "list[asyncio.Task[None]]") -> WakeServer | None:
        """Take wakes, and have gateways find this process."""
        waking, namespace = self._settings.waking, self._settings.operator_namespace
        if waking is None:
            return None
        reviewer = TokenReviewer(self._client, waking.username(namespace), asyncio.get_running_loop().time)
        server = WakeServer(self._cache, self._demand, reviewer.refusal, self._engine.answering)
        await server.start(waking.address, waking.port)
        beside.append(asyncio.create_task(announce(self._client, waking, namespace, self._may_act), name="announcement"))
        beside.append(asyncio.create_task(self._route_keeper.scrape(self._session), name="gateways"))
        return server

    async def close(self) -> None:
        """Stop writing; what is loaded stays loaded."""
        if self._may_act(CALL_SECONDS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._checkpoint.save()
        await self._planner.close()
        await self._models.queue.close()
        await self._pools.queue.close()
        await self._budgets.queue.close()
        await self._routes.queue.close()
        await self._servers.close()
        await self._session.close()
        await self._sources.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._events.flush()

    def _counted(self, agent: ServerAgent, statistics: dict[str, ModelStatistics], page: str) -> None:
        """A server was read: demand and energy take in what it says."""
        counted = self._demand.counted(agent, statistics, model_metrics(page))
        self._energy.counted(agent, counted, read_triton_page(page))

    def _server_gone(self, server: ServerKey) -> None:
        self._demand.server_gone(server)
        self._energy.server_gone(server)

    def _first_answered(self, key: ModelKey, seconds: float) -> None:
        """A woken model gave its first answer, as a gateway tells."""
        if self._servers.first_answered(key, seconds):
            self._metrics.observe_phase("first_answer", seconds)
            self._cache.wake(models=[key])

    def refresh_metrics(self) -> None:
        """Bring the gauges up to date."""
        agents = list(self._servers.all())
        self._metrics.queue_depth.labels("models").set(self._models.queue.depth)
        self._metrics.queue_depth.labels("pools").set(self._pools.queue.depth)
        self._metrics.jobs.set(sum(facts.job is not None for agent in agents for facts in agent.facts.values()))
        for pool in self._cache.pools:
            self._metrics.servers.labels(pool).set(sum(agent.answering for agent in agents if agent.key.pool == pool))
        self._metrics.models.labels("known").set(len(self._cache.models))
        loaded = {key for agent in agents for key, facts in agent.facts.items() if facts.index is IndexState.READY}
        self._metrics.models.labels("loaded").set(len(loaded))
        self._metrics.models.labels("asleep").set(sum(map(self._demand.asleep, self._cache.models)))
        models = (record.model for record in self._cache.models.values())
        self._metrics.models.labels("scaled_to_zero").set(sum(m is not None and m.fixed_replicas == 0 for m in models))

    def _fleet_figures(self) -> FleetFigures:
        """What pools, models and budgets are asked for and take, for a scrape."""
        asked, energy, nothing = self._demand.asked(), self._energy.model_figures(), (0.0, 0.0)
        models = {
            (key.namespace, key.name): ModelFigures(*asked.get(key, nothing), *energy.get(key, nothing))
            for key in asked.keys() | energy
        }
        return FleetFigures(self._energy.pool_figures(), models, self._engine.budget_figures())

    def _look_again(self, key: ModelKey, at_seconds: float) -> None:
        self._engine.look_again(key, at_seconds)

    def _tell(self, key: ModelKey, kind: str, reason: str, message: str) -> None:
        record = self._cache.models.get(key)
        if record is not None:
            self._events.record(model_reference(key, record.uid), kind, reason, message)

    def _instance_kind(self, pool: str) -> InstanceKind:
        record = self._cache.pools.get(pool)
        return (
            _KINDS.get(record.pool.accelerator_class, InstanceKind.MODEL)
            if record is not None and record.pool
            else InstanceKind.CPU
        )

    def _incoming(self) -> set[str]:
        """What a fetch that is still wanted fills: after a restart it goes on from what is there."""
        models = (record.model for record in self._cache.models.values() if record.model is not None)
        return {incoming_id(model.key, variant) for model in models for variant in model.variants}

    def _connect(self, pod: PodRecord, zone: str, node_ready: bool, keys: KeyMaterial) -> ServerAgent:
        record = self._cache.pools.get(pod.key.pool)
        disk = quantity_bytes(record.spec.disk) if record is not None and record.spec is not None else 0
        pool = record.pool if record is not None else None
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        return ServerAgent(
            pod=pod,
            zone=zone,
            node_ready=node_ready,
            triton=TritonServer(f"{host}:{GRPC_PORT}", keys.admin_key, read_seconds=3.0),
            store=ModelStore(f"{host}:{STORE_PORT}", keys.store_user, keys.store_password, keys.certificate),
            disk_bytes=disk,
            memory_bytes=pool.memory_bytes if pool is not None else 0,
            max_models=pool.max_models if pool is not None else None,
            wake=lambda models: self._cache.wake(models=models),
            answers_changed=self._servers.wake,
            incoming=self._incoming,
            keys=keys,
            page=MetricsPage(self._session, f"http://{host}:{METRICS_PORT}/metrics", timeout_seconds=3.0),
            counted=self._counted,
            product=pool.weighed_as if pool is not None else "",
            accelerator=(pool.product, pool.accelerator_class) if pool is not None else (None, ""),
            measured=self._servers.measured,
        )


def _tell_of_its_end(task: "asyncio.Task[None]") -> None:
    """Say that something which runs beside the loop for as long as this process leads has ended."""
    if not task.cancelled():
        log.error("%s: this ended and stays away until the next start", task.get_name(), exc_info=task.exception())
