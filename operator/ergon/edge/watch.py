"""Kubernetes events, by kopf: each handler takes the object into the cache and wakes the loop, nothing more.

`on.event` only: change handlers, daemons, timers and indices cost writes or grow with the square of the objects (measured:
2 PATCHes a change; index start-up 87 s for 4,000 objects). Two kopf operators run side by side, since one watches the whole
cluster and the other only the operator's own namespace, where alone it may read pods and StatefulSets.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import kopf

from ergon.engine.cache import Cache

log = logging.getLogger("ergon.edge")
Seen = Callable[[str, bool], None]
"""Told of every event: its kind, and whether a watch that had begun broke, so that its kind is listed anew."""

_LONGEST_BACKOFF_SECONDS = 30.0
_ENDING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind to watch; `selector` filters on the server. `held_as`: what the cache calls it, where not by its kind."""

    group: str
    version: str
    plural: str
    kind: str
    selector: str = ""
    held_as: str = ""

    @property
    def api_version(self) -> str:
        """As objects of the kind carry it."""
        return f"{self.group}/{self.version}".lstrip("/")

    @property
    def known_as(self) -> str:
        """The name under which the cache holds it."""
        return self.held_as or self.kind


ERGON_SELECTOR = "app.kubernetes.io/managed-by=ergon"
EVERYWHERE = (
    Watched("ergon.dev", "v1alpha1", "specializedmodels", "SpecializedModel"),
    Watched("ergon.dev", "v1alpha1", "acceleratorpools", "AcceleratorPool"),
    Watched("ergon.dev", "v1alpha1", "energybudgets", "EnergyBudget"),
    Watched("ergon.dev", "v1alpha1", "taskroutes", "TaskRoute"),
    Watched("", "v1", "namespaces", "Namespace"),
    Watched("", "v1", "nodes", "Node"),
    Watched("", "v1", "services", "Service", ERGON_SELECTOR),
    Watched("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", ERGON_SELECTOR),
)
ROUTES = (Watched("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", ERGON_SELECTOR),)
OWN_NAMESPACE = (
    Watched("", "v1", "pods", "Pod", ERGON_SELECTOR),
    Watched("apps", "v1", "statefulsets", "StatefulSet", ERGON_SELECTOR),
)


def gateway_slices(service: str) -> Watched:
    """The EndpointSlices of the gateway's Service in the operator's namespace: they say which of its pods are ready."""
    return Watched(
        "discovery.k8s.io",
        "v1",
        "endpointslices",
        "EndpointSlice",
        f"kubernetes.io/service-name={service}",
        held_as="GatewaySlice",
    )


class EndlessBackoffs:
    """Pauses between retries that never end, so that an API server that is down for long does not end the operator."""

    def __iter__(self) -> Iterator[float]:
        pause = 1.0
        while True:
            yield pause * random.uniform(0.8, 1.2)
            pause = min(_LONGEST_BACKOFF_SECONDS, pause * 1.6)


class NothingToCompare(kopf.DiffBaseStorage):
    """No change handlers, so no last state to compare with: kopf's own would copy every object at every event (1 ms each)."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        """What would be compared: nothing."""
        return {}

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """What was compared last: nothing."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Keep nothing: the operator never writes to what users own."""


def registry(cache: Cache, kinds: tuple[Watched, ...], seen: Seen) -> kopf.OperatorRegistry:
    """Handlers that feed the cache."""
    handlers = kopf.OperatorRegistry()
    for watched in kinds:
        _register(handlers, cache, watched, seen)
    kopf.on.login(registry=handlers)(_login)
    return handlers


def _register(handlers: kopf.OperatorRegistry, cache: Cache, watched: Watched, seen: Seen) -> None:
    begun = False

    async def take(type: str | None, body: kopf.Body, **_: Any) -> None:
        nonlocal begun
        seen(watched.known_as, begun and type is None)
        begun = type is not None
        obj = dict(body)
        if type == "DELETED":
            cache.drop(watched.known_as, obj)
        else:
            cache.put(watched.known_as, obj)

    take.__name__ = f"take_{watched.plural}"
    kopf.on.event(watched.group, watched.version, watched.plural, registry=handlers)(take)


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def settings(kinds: tuple[Watched, ...]) -> kopf.OperatorSettings:
    """Settings for a spectator: no writes, no events, no scanning of what it may not list, filters on the server."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.queueing.idle_timeout = 1.0
    chosen.watching.connect_timeout = 10
    chosen.watching.chunk_size = 500
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.networking.error_backoffs = EndlessBackoffs()
    chosen.persistence.diffbase_storage = NothingToCompare()
    chosen.process.ultimate_exiting_timeout = 10
    for watched in kinds:
        if watched.selector:
            chosen.watching.label_selectors[watched.group, watched.version, watched.plural] = watched.selector
    return chosen


async def watch(
    cache: Cache,
    kinds: tuple[Watched, ...],
    namespaces: tuple[str, ...],
    seen: Seen,
    stop: asyncio.Event,
    started: Callable[[], None],
) -> None:
    """Run kopf until `stop`. Returns, or raises, when kopf gives up: then the process ends and is started anew.

    `started` is called once it runs: kopf has taken the process's signals for itself by then.

    Not by `kopf.operator`: at its end that takes every task of the event loop for its own, waits 5 s for them, and cancels them.
    """
    identity: Any = "ergon"  # given, since kopf else asks for the user's name, and a container's user has none
    tasks = await kopf.spawn_tasks(
        identity=identity,
        registry=registry(cache, kinds, seen),
        settings=settings(kinds),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
    )
    started()
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancelled(tasks)
    for task in ended:
        task.result()


async def _cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel kopf's tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=_ENDING_SECONDS)
    for task in done:
        if not task.cancelled():
            task.exception()  # taken, so that asyncio does not tell it as lost
