"""One process node: its Node object and heartbeats, and the workers of the pods bound to it."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import aiohttp

from ergon.local.kubeclient import MERGE_PATCH, STRATEGIC_PATCH, Api, ApiError
from ergon.local.namespaces import resolver_configuration
from ergon.local.node.addresses import PodAddresses
from ergon.local.node.context import PodContext
from ergon.local.node.events import Events
from ergon.local.node.images import Images
from ergon.local.node.paths import lease_path, node_path
from ergon.local.node.pod import PodWorker
from ergon.local.node.root import PodFiles
from ergon.local.node.status import now
from ergon.local.node.volumes import PodVolumes
from ergon.local.state import ClusterRecord, NodeSpec

Object = dict[str, Any]

_log = logging.getLogger(__name__)
_LEASE_SECONDS = 20
_HEARTBEAT_SECONDS = 4.0
_STATUS_EVERY_BEATS = 15
_VERSION = "v1.36.3-ergon.local"
_PODS = 500
_ARCHITECTURE = {"aarch64": "arm64"}.get(os.uname().machine, "amd64")
KUBELET_PORT = 10250


class Node:
    """A node that this process plays; `stop` makes it fall silent as a machine that lost power."""

    def __init__(
        self,
        api: Api,
        spec: NodeSpec,
        record: ClusterRecord,
        address: str,
        folder: Path,
        images: Images,
        mirrors: tuple[str, ...],
        addresses: PodAddresses,
    ) -> None:
        self.spec = spec
        self.address = address
        self.workers: dict[str, PodWorker] = {}
        self.alive = False
        self._api = api
        self._record = record
        self._folder = folder
        self._images = images
        self._mirrors = mirrors
        self._addresses = addresses
        self._events = Events(api, spec.name)
        self._heart: asyncio.Task[None] | None = None
        self._ends: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Register and begin to beat; a stopped node comes back by this, too."""
        await self._register()
        self.alive = True
        self._heart = asyncio.get_running_loop().create_task(self._beat())

    def stop(self) -> None:
        """Fall silent: no heartbeat, every process of every pod killed."""
        self.alive = False
        if self._heart is not None:
            self._heart.cancel()
        for worker in self.workers.values():
            worker.kill()
            self._addresses.free(worker.context.address)
        self.workers.clear()

    def sweep(self, known: set[str]) -> None:
        """Delete what is left of pods that are no longer there; `known` are the uids of those that are."""
        for folder in (self._folder / "pods").glob("*_*_*"):
            if folder.name.rpartition("_")[2] not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def pod_changed(self, pod: Object) -> None:
        """A pod bound to this node was added or changed."""
        if not self.alive:
            return
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        deleting = pod["metadata"].get("deletionTimestamp") is not None
        if worker is None:
            if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") and not deleting:
                return
            worker = self.workers[uid] = PodWorker(self._context(pod))
            worker.start()
        else:
            worker.observe(pod)
        if deleting and not worker.terminating:
            self._end(worker, _remaining_grace(pod), delete=True)

    def pod_gone(self, pod: Object) -> None:
        """A pod vanished from the API: whatever still runs of it is killed."""
        worker = self.workers.get(pod["metadata"]["uid"])
        if worker is not None and not worker.terminating:
            self._end(worker, 0.0, delete=False)

    def _end(self, worker: PodWorker, grace_seconds: float, *, delete: bool) -> None:
        async def end() -> None:
            await worker.terminate(grace_seconds, delete=delete)
            self.workers.pop(worker.context.object["metadata"]["uid"], None)
            self._addresses.free(worker.context.address)

        task = asyncio.get_running_loop().create_task(end())
        self._ends.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ends.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("the end of a pod failed", exc_info=task.exception())

    def _context(self, pod: Object) -> PodContext:
        metadata, spec = pod["metadata"], pod["spec"]
        folder = self._folder / "pods" / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        folder.mkdir(parents=True, exist_ok=True)
        address = self.address if spec.get("hostNetwork") else self._addresses.take()
        facts = {
            "status.podIP": address,
            "status.podIPs": address,
            "status.hostIP": self.address,
            "status.hostIPs": self.address,
        }
        return PodContext(
            api=self._api,
            object=pod,
            address=address,
            node_address=self.address,
            node_capacity={"cpu": self._record.cpus, "memory": self._record.memory_bytes},
            folder=folder,
            files=_pod_files(folder, pod, address),
            shims=self._folder.parent / "shims",
            mirrors=self._mirrors,
            images=self._images,
            volumes=PodVolumes(self._api, pod, folder, Path(self._record.models), facts),
            events=self._events,
            changed=lambda: None,
            facts=facts,
        )

    async def _register(self) -> None:
        name = self.spec.name
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _ARCHITECTURE,
            "topology.kubernetes.io/zone": self.spec.zone,
            "topology.kubernetes.io/region": "local",
            "ergon.dev/accelerator": self.spec.accelerator,
        }
        if self.spec.simulated:
            labels["ergon.dev/simulated"] = "true"
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"providerID": f"ergon-local://{self._record.name}/{name}"},
        }
        try:
            await self._api.request("POST", "/api/v1/nodes", body)
        except ApiError as error:
            if error.status != 409:
                raise
        await self._write_lease()
        await self._write_status()

    async def _beat(self) -> None:
        """Renew the Lease every few seconds and the status every minute; a Node that was deleted stays deleted."""
        beats = 0
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            beats += 1
            try:
                if beats % _STATUS_EVERY_BEATS == 0:
                    await self._write_status()
                await self._write_lease()
            except ApiError as error:
                if error.status != 404:
                    _log.warning("heartbeat of %s: %s", self.spec.name, error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                _log.warning("heartbeat of %s: %s", self.spec.name, error)

    async def _write_lease(self) -> None:
        spec = {
            "holderIdentity": self.spec.name,
            "leaseDurationSeconds": _LEASE_SECONDS,
            "renewTime": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        path = lease_path(self.spec.name)
        try:
            await self._api.request("PATCH", path, {"spec": spec}, content_type=MERGE_PATCH)
        except ApiError as error:
            if error.status != 404:
                raise
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.spec.name},
                "spec": spec,
            }
            await self._api.request("POST", path.rpartition("/")[0], body)

    async def _write_status(self) -> None:
        capacity = {
            "cpu": str(self._record.cpus),
            "memory": str(self._record.memory_bytes),
            "ephemeral-storage": "100Gi",
            "pods": str(_PODS),
            **{name: str(count) for name, count in self.spec.resources},
        }
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": _conditions(),
            "addresses": [
                {"type": "InternalIP", "address": self.address},
                {"type": "Hostname", "address": self.spec.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
            "nodeInfo": {
                "machineID": self.spec.name,
                "systemUUID": self.spec.name,
                "bootID": self.spec.name,
                "kernelVersion": "local",
                "osImage": "processes of this machine",
                "containerRuntimeVersion": "process://1",
                "kubeletVersion": _VERSION,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": _ARCHITECTURE,
            },
        }
        path = f"{node_path(self.spec.name)}/status"
        await self._api.request("PATCH", path, {"status": status}, content_type=STRATEGIC_PATCH)


def _conditions() -> list[Object]:
    beat = now()
    healthy = [("Ready", "True", "KubeletReady", "the process node is ready")]
    pressures = [(f"{kind}Pressure", "False", f"KubeletHasNo{kind}Pressure", "") for kind in ("Memory", "Disk", "PID")]
    return [
        {"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": beat}
        for kind, status, reason, message in healthy + pressures
    ]


def _remaining_grace(pod: Object) -> float:
    """Seconds until the deletion's deadline, which the API server has set from the grace period."""
    deadline = datetime.datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])
    left = (deadline - datetime.datetime.now(datetime.UTC)).total_seconds()
    grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
    return max(0.0, min(left + 1.0, grace))


def _pod_files(folder: Path, pod: Object, address: str) -> PodFiles:
    """Write hosts, resolv.conf and hostname of a pod."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    hostname = str(spec.get("hostname") or pod["metadata"]["name"])[:63]
    names = [hostname]
    if spec.get("subdomain"):
        names.insert(0, f"{hostname}.{spec['subdomain']}.{namespace}.svc.cluster.local")
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{address} {' '.join(names)}"]
    lines += [f"{alias['ip']} {' '.join(alias.get('hostnames') or [])}" for alias in spec.get("hostAliases") or []]
    files = PodFiles(folder / "hosts", folder / "resolv.conf", folder / "hostname")
    files.hosts.write_text("\n".join(lines) + "\n")
    files.resolv_conf.write_text(resolver_configuration(namespace))
    files.hostname.write_text(f"{hostname}\n")
    return files
