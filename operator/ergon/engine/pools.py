"""What is written to the API server for one pool: its StatefulSet, Services, Secret, policies, finalizer and status."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any

from ergon.api.conditions import merge
from ergon.api.types import API_VERSION
from ergon.engine.cache import Cache, PoolRecord
from ergon.engine.compare import covers
from ergon.engine.queue import KeyedQueue
from ergon.kube.builders import (
    Owner,
    ServerSettings,
    TemplateRefused,
    disruption_budget,
    headless_service,
    key_secret,
    network_policy,
    server_statefulset,
)
from ergon.kube.builders.common import POOL_LABEL, key_secret_name
from ergon.kube.client import KubeClient
from ergon.kube.errors import Conflict, Invalid, NotFound
from ergon.kube.keys import KeyMaterial, generate, server_names
from ergon.reconcile.figures import keep_figures
from ergon.reconcile.pools import PodView, PoolDecision
from ergon.reconcile.status import Fact

log = logging.getLogger("ergon.pools")
Object = dict[str, Any]

FINALIZER = "ergon.dev/pool"
APPLY_AGAIN_SECONDS = 600.0
KEYS_AGAIN_SECONDS = 60.0
"""Between looks at a pool's Secret: without it no new pod starts."""


class PoolWriter:
    """Brings the API server to what was last decided for each pool."""

    def __init__(
        self,
        client: KubeClient,
        cache: Cache,
        settings: ServerSettings,
        now_text: Callable[[], str],
    ) -> None:
        self._client = client
        self._cache = cache
        self._settings = settings
        self._now_text = now_text
        self._wishes: dict[str, tuple[PoolDecision | None, list[Fact], Object]] = {}
        self._applied: dict[tuple[str, str], tuple[str, int, float]] = {}
        self.keys: dict[str, KeyMaterial] = {}
        self._keys_looked_at: dict[str, float] = {}
        self.template_refused: dict[str, str] = {}
        self.name_taken: set[str] = set()
        self.queue: KeyedQueue[str] = KeyedQueue(self._sync, 4, "write pool")

    def wish(self, name: str, decision: PoolDecision | None, facts: list[Fact], body: Object) -> None:
        """Take over what should stand; `decision` None: servers are left as they are."""
        self._wishes[name] = (decision, facts, body)
        self.queue.add(name)

    def forget(self, name: str) -> None:
        """The pool is gone; its children go by their owner."""
        self._wishes.pop(name, None)
        self.keys.pop(name, None)
        self._keys_looked_at.pop(name, None)
        self.template_refused.pop(name, None)
        self.name_taken.discard(name)
        for key in [key for key in self._applied if key[0] == name]:
            del self._applied[key]

    async def _sync(self, name: str) -> None:
        record, wish = self._cache.pools.get(name), self._wishes.get(name)
        if record is None or wish is None:
            return
        decision, facts, body = wish
        try:
            if decision is not None:
                await self._keep_finalizer(record, decision)
                if record.spec is not None and not (record.deleting and decision.release):
                    await self._servers(record, decision)
                    for pod in decision.give_up if name not in self.template_refused else ():
                        await self._give_up(record, pod)
            await self._sync_status(record, facts, body)
        except NotFound:
            return  # the pool went away meanwhile

    async def _keep_finalizer(self, record: PoolRecord, decision: PoolDecision) -> None:
        held = FINALIZER in record.finalizers
        if record.deleting:
            if held and decision.release:
                log.info("pool %s is deleted and empty: it is released", record.name)
                await self._write_finalizers(record, [f for f in record.finalizers if f != FINALIZER])
        elif not held:
            await self._write_finalizers(record, [*record.finalizers, FINALIZER])

    async def _write_finalizers(self, record: PoolRecord, finalizers: list[str]) -> None:
        patch: list[Object] = [
            {"op": "test", "path": "/metadata/uid", "value": record.uid},
            {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
        ]
        await self._client.patch_json(API_VERSION, "AcceleratorPool", record.name, None, patch)
        record.finalizers = tuple(finalizers)

    async def _servers(self, record: PoolRecord, decision: PoolDecision) -> None:
        assert record.spec is not None
        owner, name = Owner("AcceleratorPool", record.name, record.uid), record.name
        await self._know_keys(record, owner)
        try:
            held = self._cache.statefulsets.get(name)
            statefulset = server_statefulset(name, record.spec, self._settings, decision.servers, owner, held=held)
        except TemplateRefused as error:
            return self._refuse(name, str(error))
        children = (
            headless_service(name, self._settings, owner),
            network_policy(name, self._settings, owner),
            disruption_budget(name, self._settings, owner),
            statefulset,
        )
        try:
            if taken := [_what(obj) for obj in children if not await self._may_have(record, obj)]:
                problem = (
                    f"{' and '.join(taken)} in namespace {self._settings.namespace} is not the pool's: rename one of the two"
                )
                self.name_taken.add(name)
                return self._refuse(name, problem)
            self.name_taken.discard(name)
            for obj in children:
                await self._apply(record, obj)
        except Invalid as error:
            return self._refuse(name, f"the API server refuses what spec asks for: {error.message}")
        if self.template_refused.pop(name, None) is not None:
            self._cache.wake(pools=[name])
        return None

    def _refuse(self, name: str, problem: str) -> None:
        if self.template_refused.get(name) != problem:
            self.template_refused[name] = problem
            log.warning("pool %s: %s", name, problem)
            self._cache.wake(pools=[name])

    async def _know_keys(self, record: PoolRecord, owner: Owner) -> None:
        """Look at the pool's Secret now and then. One that is gone is made anew; servers that have other keys are replaced."""
        name, now = record.name, asyncio.get_running_loop().time()
        known = self.keys.get(name)
        if known is not None and now - self._keys_looked_at[name] < KEYS_AGAIN_SECONDS:
            return
        try:
            found = await self._secret(record, owner)
        except ValueError as error:
            if known is None:
                raise
            log.warning("pool %s: its servers keep the keys that they have: %s", name, error)
            found = known
        self._keys_looked_at[name] = now
        if found != known:
            if known is not None:
                log.info("pool %s has new keys: servers that have the old ones are replaced, one at a time", name)
            self.keys[name] = found
            self._cache.wake(pools=[name])

    async def _secret(self, record: PoolRecord, owner: Owner) -> KeyMaterial:
        name, namespace = key_secret_name(record.name), self._settings.namespace
        held = await self._client.find("v1", "Secret", name, namespace)
        if held is None:
            made = await asyncio.to_thread(generate, server_names(record.name, namespace))
            try:
                held = await self._client.create(key_secret(record.name, self._settings, made, owner))
            except Conflict:
                held = await self._client.get("v1", "Secret", name, namespace)
        return KeyMaterial.from_secret(held)

    async def _may_have(self, record: PoolRecord, obj: Object) -> bool:
        """Whether a child is the pool's own, or not there: a release named `ergon-<pool>` has objects of these very names.

        Asked once, by a patch that changes nothing unless the label is another: the operator has no right to read most of them.
        """
        if (record.name, _what(obj)) in self._applied:
            return True
        label: list[Object] = [{"op": "test", "path": f"/metadata/labels/{POOL_LABEL.replace('/', '~1')}", "value": record.name}]
        try:
            await self._client.patch_json(
                obj["apiVersion"], obj["kind"], obj["metadata"]["name"], self._settings.namespace, label
            )
        except NotFound:
            return True
        except Invalid:
            return False
        return True

    async def _apply(self, record: PoolRecord, obj: Object) -> None:
        """Apply unless this very text was applied before and the object was not changed since."""
        key = (record.name, _what(obj))
        digest = hashlib.sha256(json.dumps(obj, sort_keys=True, default=str).encode()).hexdigest()
        now = asyncio.get_running_loop().time()
        applied = self._applied.get(key)
        held = self._cache.statefulsets.get(record.name) if obj["kind"] == "StatefulSet" else None
        generation = int(held["metadata"].get("generation", 0)) if held is not None else 0
        untouched = obj["kind"] != "StatefulSet" or (held is not None and applied is not None and generation <= applied[1])
        if applied is not None and applied[0] == digest and now - applied[2] < APPLY_AGAIN_SECONDS and untouched:
            return
        answer = await self._client.apply(obj)
        self._applied[key] = (digest, int(answer["metadata"].get("generation", 0)), now)
        if obj["kind"] == "StatefulSet":
            before = (held or {}).get("spec", {}).get("replicas")
            if before != obj["spec"]["replicas"]:
                log.info("pool %s: %s servers, %s before", record.name, obj["spec"]["replicas"], before or "none")
            self._cache.put("StatefulSet", answer)

    async def _give_up(self, record: PoolRecord, pod: PodView) -> None:
        log.info("server %s-%d holds nothing any more and is replaced: %s", record.name, pod.ordinal, pod.leaving)
        await self._client.delete("v1", "Pod", pod.name, self._settings.namespace, uid=pod.uid)

    async def _sync_status(self, record: PoolRecord, facts: list[Fact], body: Object) -> None:
        previous = record.status
        status = {
            **body,
            **keep_figures(body, previous, ("busyShare", "watts", "provenance")),
            "observedGeneration": record.generation,
            "conditions": merge(previous.get("conditions") or (), facts, generation=record.generation, now=self._now_text()),
        }
        if covers(previous, status) and len(previous.get("conditions") or ()) == len(status["conditions"]):
            return
        answer = await self._client.apply_status(
            {"apiVersion": API_VERSION, "kind": "AcceleratorPool", "metadata": {"name": record.name}, "status": status}
        )
        record.status = answer.get("status") or {}


def _what(obj: Object) -> str:
    return f"{obj['kind']} {obj['metadata']['name']}"
