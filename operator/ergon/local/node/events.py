"""Events about pods, as `kubectl describe` shows them; the same words about the same pod are counted, not repeated."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Any

import aiohttp

from ergon.local.kubeclient import MERGE_PATCH, Api, ApiError
from ergon.local.node.status import now

Object = dict[str, Any]


class Events:
    """Writes events in the background; an event that cannot be written is dropped."""

    def __init__(self, api: Api, node: str) -> None:
        self._api = api
        self._node = node
        self._counts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def record(self, pod: Object, reason: str, message: str, *, warning: bool = False, container: str = "") -> None:
        """Note that something happened to a pod, or to one of its containers."""
        metadata = pod["metadata"]
        digest = hashlib.sha256(f"{reason}{container}{message}".encode()).hexdigest()[:10]
        name = f"{metadata['name']}.{metadata['uid'][:8]}{digest}"
        self._counts[name] = self._counts.get(name, 0) + 1
        task = asyncio.get_running_loop().create_task(
            self._write(name, self._counts[name], pod, reason, message, "Warning" if warning else "Normal", container)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, name: str, count: int, pod: Object, reason: str, message: str, kind: str, container: str) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/events"
        with contextlib.suppress(ApiError, aiohttp.ClientError, OSError, TimeoutError):
            if count > 1:
                change = {"count": count, "lastTimestamp": now()}
                await self._api.request("PATCH", f"{path}/{name}", change, content_type=MERGE_PATCH)
                return
            involved = {
                "apiVersion": "v1",
                "kind": "Pod",
                **{key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")},
            }
            if container:
                involved["fieldPath"] = f"spec.containers{{{container}}}"
            body = {
                "metadata": {"name": name, "namespace": metadata["namespace"]},
                "involvedObject": involved,
                "reason": reason,
                "message": message[:1000],
                "type": kind,
                "count": 1,
                "firstTimestamp": now(),
                "lastTimestamp": now(),
                "source": {"component": "ergon-local", "host": self._node},
                "reportingComponent": "ergon-local",
                "reportingInstance": self._node,
            }
            await self._api.request("POST", path, body)
