"""One operator process: health first, then the Lease, then the cache, the loop, and kopf last.

A standby holds the health port and waits for the Lease. Losing the Lease, or kopf giving up, ends the process: a start is
cheap and harmless, since all truth is in the API server and in Triton.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ergon.api.types import GROUP
from ergon.edge.watch import EVERYWHERE, OWN_NAMESPACE, ROUTES, Watched, gateway_slices, watch
from ergon.engine.cache import Cache
from ergon.engine.settings import Settings
from ergon.engine.setup import Leader
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError, NotFound
from ergon.kube.lease import LeaderElection
from ergon.telemetry.health import HealthServer
from ergon.telemetry.metrics import Metrics

log = logging.getLogger("ergon.process")

FIRST_RESYNC_SECONDS = 30.0
"""After a start: what went between our first list and kopf's."""
RESYNC_SECONDS = 600.0
RELISTED_SECONDS = 2.0
"""After kopf listed a kind anew: what went while its watch was broken, which it does not tell."""
GATEWAY_SECONDS = 60.0
MISSING_SECONDS = 5.0
"""Before the API server is asked again for a kind that it did not know."""
STOP_SECONDS = 10.0


class GatewayAppeared(Exception):
    """The Gateway API can be watched now."""


class KindMissing(Exception):
    """The API server does not know a kind that Ergon reads: an upgrade came without its CRD."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(
            f"the API server does not know {watched.kind} (CRD {watched.plural}.{watched.group}, {watched.version}): install "
            "this version's kinds with `kubectl apply --server-side -k manifests/crds`, or the chart with crds.enabled=true; the "
            "operator then goes on by itself"
        )


@dataclass
class Process:
    """Everything one `ergon run` is made of."""

    settings: Settings
    host: str
    port: int
    client: KubeClient
    metrics: Metrics
    lead: bool = True
    _cache: Cache = field(default_factory=Cache)
    _state: str = "starting"
    _leader: Leader | None = None
    _relisted: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        """Until stopped. The exit code: 0 after a signal, 1 where the Lease was lost or a watch gave up."""
        health = HealthServer(self.metrics, self._ready)
        await health.start(self.host, self.port)
        stop = asyncio.Event()
        _take_signals(stop)
        lag = asyncio.create_task(health.watch_lag(self._refresh))
        election = LeaderElection(self.client, self.settings.operator_namespace, "ergon", self.settings.identity)
        try:
            return await self._stand_and_lead(election, stop)
        finally:
            lag.cancel()
            if self.lead:
                await election.stop()
            await health.close()
            await self.client.close()

    async def _stand_and_lead(self, election: LeaderElection, stop: asyncio.Event) -> int:
        lost: asyncio.Task[None] | None = None
        if self.lead:
            self._state = ""
            log.info("%s stands by for the Lease", self.settings.identity)
            lost = asyncio.create_task(election.run())
            waiting = asyncio.create_task(election.leading.wait())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({waiting, stopped, lost}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not election.leading.is_set():
                waiting.cancel()
                return 0 if stop.is_set() else 1
        may_act = election.outlives if self.lead else (lambda _: True)
        return await self._lead(may_act, stop, lost)

    async def _lead(self, may_act: Callable[[float], bool], stop: asyncio.Event, lost: "asyncio.Task[None] | None") -> int:
        self._state = "reading the cluster"
        self.metrics.leading.set(1)
        began = asyncio.get_running_loop().time()
        reading = asyncio.create_task(self._read_all(), name="reading")
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({reading, stopped, *({lost} if lost is not None else ())}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            reading.cancel()
            stopped.cancel()
            return 0 if stop.is_set() else 1
        settings, kinds = reading.result()
        leader = self._leader = Leader(self.client, self._cache, settings, self.metrics, may_act)
        took = asyncio.get_running_loop().time() - began
        log.info("leading: %d models and %d pools read in %.2f s", len(self._cache.models), len(self._cache.pools), took)
        self._state = ""
        engine = asyncio.create_task(leader.run(), name="engine")
        resync = asyncio.create_task(self._resync((*kinds, *self._own)), name="resync")
        kopf_stop = asyncio.Event()
        watches = [
            asyncio.create_task(
                watch(self._cache, which, namespaces, self._seen, kopf_stop, lambda: _take_signals(stop)), name=f"the {name}"
            )
            for name, which, namespaces in (
                ("watch", kinds, self.settings.watch_namespaces),
                ("watch of servers", self._own, (self.settings.operator_namespace,)),
            )
        ]
        if settings is not self.settings:
            watches.append(asyncio.create_task(self._await_gateway(), name="the wait for the Gateway API"))
        ends: set[asyncio.Task[object]] = {engine, stopped, *watches, *({lost} if lost is not None else ())}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        code = self._why(engine, watches, lost, stop)
        self._state = "stopping"
        kopf_stop.set()
        for task in (engine, resync, stopped):
            task.cancel()
        await leader.close()
        for task in watches[2:]:
            task.cancel()
        await asyncio.wait(watches, timeout=STOP_SECONDS)
        return code

    def _why(
        self,
        engine: "asyncio.Task[None]",
        watches: "list[asyncio.Task[None]]",
        lost: "asyncio.Task[None] | None",
        stop: asyncio.Event,
    ) -> int:
        if lost is not None and lost.done():
            log.error("the Lease was lost: this process ends, another one leads")
            return 1
        for task in (engine, *watches):
            if task.done() and not task.cancelled() and task.exception() is not None:
                log.error("%s ended: %s; the process ends and is started anew", task.get_name(), task.exception())
                return 1
            if task.done() and not stop.is_set():
                log.error("%s ended; the process ends and is started anew", task.get_name())
                return 1
        log.info("stopping: what is loaded stays loaded")
        return 0

    async def _read_all(self) -> tuple[Settings, tuple[Watched, ...]]:
        """Fill the cache; the settings and kinds that hold for this term."""
        settings = await self._with_gateway_if_there()
        # A namespaced installation may not read nodes: then zones and cordons are not known.
        everywhere = [watched for watched in EVERYWHERE if watched.kind != "Node" or not settings.watch_namespaces]
        kinds = (*everywhere, *(ROUTES if settings.gateway else ()))
        await self._prime((*kinds, *self._own))
        return settings, kinds

    async def _with_gateway_if_there(self) -> Settings:
        """The settings, without the Gateway where its API is not installed: models are served all the same."""
        if self.settings.gateway is None or await self._gateway_is_there() is not False:
            return self.settings
        log.warning("the Gateway API is not installed, so models get no routes; this is looked at again every minute")
        return replace(self.settings, gateway=None)

    async def _gateway_is_there(self) -> bool | None:
        """None where the API server does not tell now."""
        try:
            for watched in ROUTES:
                for namespace in self._namespaces(watched):
                    await self.client.list_all(watched.api_version, watched.kind, namespace, label_selector=watched.selector)
        except NotFound:
            return False
        except KubeError:
            return None
        return True

    async def _await_gateway(self) -> None:
        """Until the Gateway API is installed: then a new start takes it in."""
        while not await self._gateway_is_there():  # noqa: ASYNC110 - no event tells of a new kind
            await asyncio.sleep(GATEWAY_SECONDS)
        raise GatewayAppeared("the Gateway API was installed")

    async def _prime(self, kinds: tuple[Watched, ...]) -> None:
        """Read everything once before anything is decided; waits as long as the API server needs."""
        pause = 1.0
        while True:
            try:
                await asyncio.gather(*(self._read(watched) for watched in kinds))
                return
            except KindMissing as error:
                if self._state != str(error):
                    log.error("%s", error)
                    self._state = str(error)
                await asyncio.sleep(MISSING_SECONDS)
            except KubeError as error:
                log.warning("the cluster cannot be read yet: %s", error)
                await asyncio.sleep(pause)
                pause = min(15.0, pause * 1.5)

    async def _read(self, watched: Watched) -> None:
        for namespace in self._namespaces(watched):
            try:
                listed = await self.client.list_all(watched.api_version, watched.kind, namespace, label_selector=watched.selector)
            except NotFound as error:
                if watched.group != GROUP:
                    raise
                raise KindMissing(watched) from error
            for obj in listed:
                self._cache.put(watched.known_as, obj)

    @property
    def _own(self) -> tuple[Watched, ...]:
        """What is watched in the operator's own namespace."""
        gateway = self.settings.waking
        return (*OWN_NAMESPACE, gateway_slices(gateway.service)) if gateway is not None else OWN_NAMESPACE

    def _namespaces(self, watched: Watched) -> tuple[str | None, ...]:
        if watched in self._own:
            return (self.settings.operator_namespace,)
        cluster_scoped = ("AcceleratorPool", "EnergyBudget", "Namespace", "Node")
        return (None,) if watched.kind in cluster_scoped or not self.settings.watch_namespaces else self.settings.watch_namespaces

    async def _resync(self, kinds: tuple[Watched, ...]) -> None:
        """Now and then, and soon after a watch broke, compare with a full list: kopf does not tell of what vanished meanwhile."""
        pause = FIRST_RESYNC_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._relisted.wait(), pause)
                await asyncio.sleep(RELISTED_SECONDS)  # a broken connection breaks the watches of all kinds
            self._relisted.clear()
            pause = RESYNC_SECONDS
            for watched in kinds:
                held = self._cache.uids(watched.known_as)
                try:
                    listed = [
                        obj
                        for namespace in self._namespaces(watched)
                        for obj in await self.client.list_all(
                            watched.api_version, watched.kind, namespace, label_selector=watched.selector
                        )
                    ]
                except KubeError as error:
                    log.warning("%s could not be listed: %s", watched.plural, error)
                    continue
                went = held - self._cache.uids(watched.known_as)
                for obj in self._cache.missing(watched.known_as, listed):
                    if obj["metadata"]["uid"] in held:  # else it came while the list was read
                        log.info("%s %s is gone, which no event told", watched.kind, obj["metadata"]["name"])
                        self._cache.drop(watched.known_as, obj)
                for obj in listed:
                    if obj["metadata"]["uid"] not in went:  # else it went while the list was read
                        self._cache.put(watched.known_as, obj)

    def _seen(self, kind: str, listed_anew: bool) -> None:
        self.metrics.events.labels(kind).inc()
        if listed_anew:
            self._relisted.set()

    def _ready(self) -> str:
        return self._state

    def _refresh(self) -> None:
        if self._leader is not None:
            self._leader.refresh_metrics()


def _take_signals(stop: asyncio.Event) -> None:
    """SIGINT and SIGTERM ask for a graceful end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
