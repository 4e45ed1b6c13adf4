"""The cluster as a bench sees it: objects it makes, and watches that say when something came about."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import yaml

from bench.common import ROOT, BenchFailed
from ergon.kube.client import KubeClient
from ergon.kube.configuration import load_configuration
from ergon.kube.keys import KeyMaterial
from ergon.kube.pace import Pace
from ergon.kube.resources import resource_of

Object = dict[str, Any]
SYSTEM = "ergon-system"
NAMESPACE = "bench"
MODEL = ("ergon.dev/v1alpha1", "SpecializedModel")
POOL = ("ergon.dev/v1alpha1", "AcceleratorPool")
SLICE = ("discovery.k8s.io/v1", "EndpointSlice")


@asynccontextmanager
async def prepared() -> AsyncIterator[KubeClient]:
    """A client of the cluster, with Ergon's kinds and the namespaces installed; too fast a pace to be what is measured."""
    pace = Pace(queries_per_second=5000, burst=5000)
    async with await KubeClient.from_environment(pace=pace) as client:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            for definition in yaml.safe_load_all(path.read_text()):
                if definition and definition.get("kind") == "CustomResourceDefinition":
                    await client.apply(definition)
                    await _established(client, definition["metadata"]["name"])
        for name in (SYSTEM, NAMESPACE):
            await client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield client


async def _established(client: KubeClient, name: str) -> None:
    ends_at = time.monotonic() + 30
    while time.monotonic() < ends_at:
        found = await client.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
        if condition(found, "Established").get("status") == "True":
            return
        await asyncio.sleep(0.1)
    raise BenchFailed(f"the CustomResourceDefinition {name} is not established after 30 s; see the API server's log")


def model(name: str, uri: str, *, pool_labels: dict[str, str] | None = None, revision: str = "1") -> Object:
    """A SpecializedModel with one variant for processors."""
    return {
        "apiVersion": MODEL[0],
        "kind": MODEL[1],
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "task": "doubling",
            **({"pools": {"matchLabels": pool_labels}} if pool_labels else {}),
            "variants": [
                {
                    "name": "cpu",
                    "accelerators": ["cpu"],
                    "backend": "python",
                    "source": {"uri": uri, "revision": revision},
                    "memory": "10Mi",
                }
            ],
        },
    }


def pool(
    name: str, *, servers: int, max_models: int | None, drain_timeout: str = "30s", pod_spec: Object | None = None
) -> Object:
    """An AcceleratorPool of real servers on the processor, `servers` of them always, with /sources in their stores."""
    pod_spec = pod_spec or {"nodeSelector": {"ergon.dev/accelerator": "cpu"}}
    store = {"name": "store", "volumeMounts": [{"name": "sources", "mountPath": "/sources", "readOnly": True}]}
    containers = [store, *pod_spec.get("containers", [])]
    volumes = [{"name": "sources", "hostPath": {"path": "/var/lib/ergon/sources"}}, *pod_spec.get("volumes", [])]
    return {
        "apiVersion": POOL[0],
        "kind": POOL[1],
        "metadata": {"name": name, "labels": {"bench": name}},
        "spec": {
            "accelerator": {"class": "cpu"},
            "memory": "2Gi",
            "disk": "4Gi",
            "sharedMemory": "256Mi",
            "servers": {"min": servers, "max": servers},
            "namespaces": {},
            **({"maxModels": max_models} if max_models else {}),
            "triton": {"backends": ["python"]},
            "drainTimeout": drain_timeout,
            "template": {"spec": {**pod_spec, "containers": containers, "volumes": volumes}},
        },
    }


def condition(obj: Object, name: str) -> Object:
    """A condition of an object, empty where it has none."""
    return next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == name), {})


def is_ready(obj: Object) -> bool:
    """Whether the object says Ready=True about its present generation."""
    found = condition(obj, "Ready")
    return found.get("status") == "True" and found.get("observedGeneration") == obj["metadata"]["generation"]


async def pool_keys(client: KubeClient, name: str) -> KeyMaterial:
    """What the pool's servers ask of those who speak to them."""
    return KeyMaterial.from_secret(await client.get("v1", "Secret", f"ergon-{name}-keys", SYSTEM))


async def server_addresses(client: KubeClient, name: str) -> list[str]:
    """IP addresses of a pool's servers, by ordinal."""
    pods = await client.list_all("v1", "Pod", SYSTEM, label_selector=f"ergon.dev/pool={name}")
    by_ordinal = {int(pod["metadata"]["name"].rpartition("-")[2]): pod["status"]["podIP"] for pod in pods}
    return [by_ordinal[ordinal] for ordinal in sorted(by_ordinal)]


async def for_all(items: Iterable[Any], work: Callable[[Any], Awaitable[Any]], at_once: int = 48) -> None:
    """Do something for every item, so many at once."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: Any) -> None:
        async with slots:
            await work(item)

    await asyncio.gather(*(one(item) for item in items))


class Watch:
    """Follows one kind: keeps the objects as they are, and when each first met a named milestone (monotonic seconds).

    `milestones` are looked at once for every change of an object, until it meets them.
    """

    def __init__(self, kind: tuple[str, str], milestones: Mapping[str, Callable[[Object], bool]], namespace: str = "") -> None:
        self.objects: dict[str, Object] = {}
        self.met: dict[str, dict[str, float]] = {name: {} for name in milestones}
        self.events = 0
        self._resource = resource_of(*kind)
        self._namespace = namespace or None
        self._milestones = milestones
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Watch":
        listed = asyncio.Event()
        self._task = asyncio.create_task(self._follow(listed))
        self._task.add_done_callback(lambda _: self._changed.set())
        waiting = asyncio.create_task(listed.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, reached: Callable[[], bool], seconds: float, what: str) -> None:
        """Until `reached` holds, looked at after every change. Raises BenchFailed after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    if self._task is not None and self._task.done():
                        self._task.result()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            counts = ", ".join(f"{len(met)} {name}" for name, met in self.met.items())
            raise BenchFailed(f"{what} did not come about in {seconds:g} s ({len(self.objects)} objects: {counts})") from None

    async def all_met(self, milestone: str, count: int, seconds: float) -> float:
        """Until so many objects have met the milestone; when the last of them did (monotonic seconds)."""
        await self.until(lambda: len(self.met[milestone]) >= count, seconds, f"{count} x {milestone}")
        return max(self.met[milestone].values())

    async def _follow(self, listed: asyncio.Event) -> None:
        configuration = await load_configuration()
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        headers = {setting["key"]: setting["value"] for setting in (await configuration.auth_settings()).values()}
        url = configuration.host + self._resource.path(self._namespace)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, read_bufsize=1 << 22) as session:
            found = await self._list(session, url, context)
            for obj in found["items"]:
                self._take("ADDED", obj)
            version = found["metadata"]["resourceVersion"]
            listed.set()
            while True:
                query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
                async with session.get(url, params=query, ssl=context) as answer:
                    async for line in answer.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise BenchFailed(f"the watch on {self._resource.plural} broke: {event['object'].get('message')}")
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            self.events += 1
                            self._take(event["type"], event["object"])

    async def _list(self, session: aiohttp.ClientSession, url: str, context: ssl.SSLContext) -> Object:
        """Everything there is; a kind that was installed a moment ago may not be served yet."""
        ends_at = time.monotonic() + 30
        while True:
            async with session.get(url, ssl=context) as answer:
                found: Object = await answer.json(content_type=None) if answer.status == 200 else {}
            if answer.status == 200:
                return found
            if time.monotonic() > ends_at:
                raise BenchFailed(f"{self._resource.plural} cannot be listed: the API server answers {answer.status}")
            await asyncio.sleep(0.2)

    def _take(self, kind: str, obj: Object) -> None:
        name = obj["metadata"]["name"]
        if kind == "DELETED":
            self.objects.pop(name, None)
            for met in self.met.values():
                met.pop(name, None)
        else:
            self.objects[name] = obj
            now = time.monotonic()
            for milestone, holds in self._milestones.items():
                if name not in self.met[milestone] and holds(obj):
                    self.met[milestone][name] = now
        self._changed.set()
