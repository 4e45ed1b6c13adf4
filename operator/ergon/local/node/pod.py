"""A pod's life on a node: address, volumes, init containers, containers, status, and an end with grace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import aiohttp

from ergon.local.kubeclient import STRATEGIC_PATCH, ApiError
from ergon.local.node.container import ContainerRunner
from ergon.local.node.context import PodContext
from ergon.local.node.paths import pod_path
from ergon.local.node.status import Conditions, PodFacts, Terminated, Waiting, build, now
from ergon.local.node.volumes import VolumeError

Object = dict[str, Any]

_log = logging.getLogger(__name__)
_SETTLE_SECONDS = 0.02
_RETRY_SECONDS = 1.0
_MOUNT_AGAIN_SECONDS = 1.0
_REFRESH_SECONDS = 10.0


class PodWorker:
    """Runs one pod from binding to deletion."""

    def __init__(self, context: PodContext) -> None:
        self.context = context
        spec = context.object["spec"]
        policy = str(spec.get("restartPolicy") or "Always")
        init_policy = "Never" if policy == "Never" else "OnFailure"
        self._policy = policy
        self._init = [
            ContainerRunner(context, container, "Always" if container.get("restartPolicy") == "Always" else init_policy)
            for container in spec.get("initContainers") or []
        ]
        self._sidecars = {container["name"] for container in spec.get("initContainers") or [] if "restartPolicy" in container}
        self._main = [ContainerRunner(context, container, policy) for container in spec["containers"]]
        for runner in self._main:
            runner.view.state = Waiting("PodInitializing" if self._init else "ContainerCreating")
        self._carry_on(context.object)
        self._started_at = now()
        self._volumes_ready = False
        self._initialised = not self._init
        self._failed_init = False
        self._conditions = Conditions()
        self._dirty = asyncio.Event()
        self._sent: Object | None = None
        self._terminating = False
        self._tasks: list[asyncio.Task[Any]] = []
        context.changed = self._dirty.set

    def start(self) -> None:
        """Begin the pod's life in the background."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._live()), loop.create_task(self._report()), loop.create_task(self._refresh())]
        self._tasks[0].add_done_callback(self._tell_bug)
        self._dirty.set()

    def _tell_bug(self, life: asyncio.Task[None]) -> None:
        """A pod whose life ended by an error of this node would else wait for ever without a word."""
        if not life.cancelled() and (error := life.exception()) is not None:
            _log.error("the life of %s ended", self.context.full_name, exc_info=error)
            self.context.warn("FailedSync", f"the local node failed: {type(error).__name__}: {error}")

    def _carry_on(self, item: Object) -> None:
        """Containers that ran before this node came back have been started once more."""
        status = item.get("status") or {}
        before = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
        counts = {entry["name"]: int(entry.get("restartCount") or 0) + 1 for entry in before if entry.get("containerID")}
        for runner in (*self._init, *self._main):
            runner.carry_on(counts.get(runner.view.name, 0))

    def runner(self, name: str) -> ContainerRunner | None:
        """The container called `name`."""
        return next((runner for runner in (*self._init, *self._main) if runner.view.name == name), None)

    def observe(self, item: Object) -> None:
        """Take in a newer version of the pod's object (readiness gates, labels)."""
        self.context.object = item
        self._dirty.set()

    @property
    def terminating(self) -> bool:
        return self._terminating

    async def terminate(self, grace_seconds: float, *, delete: bool) -> None:
        """End all containers within the grace period, clean up, and with `delete` remove the pod from the API."""
        self._terminating = True
        self._tasks[0].cancel()
        self.context.note("Killing", "Stopping the pod's containers")
        await asyncio.gather(*(runner.stop(grace_seconds) for runner in self._main))
        await asyncio.gather(*(runner.stop(min(grace_seconds, 2.0)) for runner in reversed(self._init)))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if delete:
            await self._delete()
        self.context.volumes.tear_down()

    def kill(self) -> None:
        """End all at once and say nothing, as a node that loses power does."""
        for runner in (*self._main, *self._init):
            runner.kill()
        for task in self._tasks:
            task.cancel()
        self.context.volumes.lose_memory()

    async def _live(self) -> None:
        await self._mount()
        for runner in self._init:
            if not await self._initialise(runner):
                self._failed_init = True
                self._dirty.set()
                return
        self._initialised = True
        for runner in self._main:
            runner.view.state = Waiting("ContainerCreating")
        self._dirty.set()
        await asyncio.wait([runner.start() for runner in self._main])
        for runner in self._init:
            await runner.stop(float(self.context.grace_seconds))

    async def _mount(self) -> None:
        """Set up the volumes, trying again until they can be had."""
        while True:
            try:
                await self.context.volumes.set_up()
                break
            except (VolumeError, aiohttp.ClientError, TimeoutError) as error:
                self.context.warn("FailedMount", f"MountVolume.SetUp failed for {error}")
                await asyncio.sleep(_MOUNT_AGAIN_SECONDS)
        self._volumes_ready = True
        self._dirty.set()

    async def _initialise(self, runner: ContainerRunner) -> bool:
        """Run an init container to its end, or a sidecar until it has started; False when the pod has failed by it."""
        task = runner.start()
        if runner.view.name in self._sidecars:
            await runner.running.wait()
            return True
        await asyncio.wait([task])
        code = task.result()
        if code == 0:
            runner.view.ready = True
        return code == 0

    async def _refresh(self) -> None:
        """Keep projected volumes current, and logs small, while the pod lives."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            for runner in self._main:
                runner.trim_log()
            if self._volumes_ready:
                try:
                    await self.context.volumes.refresh()
                except Exception as error:
                    _log.warning("volumes of %s: %s", self.context.full_name, error)

    async def _report(self) -> None:
        """Write the status whenever it has changed; failures are tried again."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._dirty.clear()
            try:
                await self._write_status()
            except ApiError as error:
                if error.status != 404:
                    _log.warning("status of %s: %s", self.context.full_name, error)
                    await asyncio.sleep(_RETRY_SECONDS)
                    self._dirty.set()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                _log.warning("status of %s: %s", self.context.full_name, error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._dirty.set()

    async def _write_status(self) -> None:
        status = self._status()
        if status != self._sent or self._overruled(status):
            body = {"metadata": {"uid": self.context.object["metadata"]["uid"]}, "status": status}
            path = pod_path(self.context.object)
            await self.context.api.request("PATCH", f"{path}/status", body, content_type=STRATEGIC_PATCH)
            self._sent = status

    def _overruled(self, status: Object) -> bool:
        """Whether somebody else has changed a condition: the node lifecycle controller does when the node seemed lost."""
        seen = {c["type"]: c["status"] for c in (self.context.object.get("status") or {}).get("conditions") or []}
        return any(seen.get(c["type"], c["status"]) != c["status"] for c in status["conditions"])

    def _status(self) -> Object:
        item = self.context.object
        facts = PodFacts(
            pod_address=self.context.address,
            node_address=self.context.node_address,
            started_at=self._started_at,
            restart_policy=self._policy,
            volumes_ready=self._volumes_ready,
            initialised=self._initialised,
            failed_init=self._failed_init,
            readiness_gates=tuple(gate["conditionType"] for gate in item["spec"].get("readinessGates") or []),
        )
        gates = {
            condition["type"]: condition["status"] == "True" for condition in (item.get("status") or {}).get("conditions") or []
        }
        init = [runner.view for runner in self._init]
        return build(facts, init, [runner.view for runner in self._main], self._conditions, gates)

    async def _delete(self) -> None:
        """Write the last status, then remove the object for good; a pod that is gone already is fine."""
        item = self.context.object
        give_up = time.monotonic() + 60.0
        while time.monotonic() < give_up:
            try:
                with contextlib.suppress(ApiError):
                    await self._write_status()
                body = {"gracePeriodSeconds": 0, "preconditions": {"uid": item["metadata"]["uid"]}}
                await self.context.api.request("DELETE", pod_path(item), body)
                return
            except ApiError as error:
                if error.status in (404, 409):
                    return
                _log.warning("deletion of %s: %s", self.context.full_name, error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                _log.warning("deletion of %s: %s", self.context.full_name, error)
            await asyncio.sleep(_RETRY_SECONDS)

    @property
    def finished(self) -> bool:
        """Whether every main container has ended for good."""
        return all(isinstance(runner.view.state, Terminated) for runner in self._main)
