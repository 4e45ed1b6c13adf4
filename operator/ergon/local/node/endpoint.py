"""The kubelet's endpoint that the API server proxies `kubectl logs` to: HTTPS on the node's address, for the API server only."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from aiohttp import web

from ergon.local.node.container import ContainerRunner
from ergon.local.node.node import KUBELET_PORT, Node

_CHUNK_BYTES = 1 << 16
_FOLLOW_SECONDS = 0.2
_SHUTDOWN_SECONDS = 0.5


async def serve(node: Node, pki: Path) -> web.AppRunner:
    """Listen on the node's address; only holders of a certificate of the cluster's authority are answered."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(pki / f"node-{node.spec.name}.crt", pki / f"node-{node.spec.name}.key")
    application = web.Application()

    async def logs(request: web.Request) -> web.StreamResponse:
        return await _logs(node, request)

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    application.router.add_get("/healthz", healthy)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, node.address, KUBELET_PORT, ssl_context=tls).start()
    return runner


def _find(node: Node, request: web.Request) -> ContainerRunner | None:
    place = (request.match_info["namespace"], request.match_info["pod"])
    for worker in node.workers.values():
        metadata = worker.context.object["metadata"]
        if (metadata["namespace"], metadata["name"]) == place:
            return worker.runner(request.match_info["container"])
    return None


async def _logs(node: Node, request: web.Request) -> web.StreamResponse:
    runner = _find(node, request) if node.alive else None
    if runner is None:
        return web.Response(status=404, text=f"no such container on node {node.spec.name}")
    file = runner.log_file(previous=request.query.get("previous") == "true")
    if not file.exists():
        return web.Response(status=400, text=f"container {runner.view.name!r} has no log yet")
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    limit = int(request.query["limitBytes"]) if "limitBytes" in request.query else None
    with file.open("rb") as log:
        if "tailLines" in request.query:
            log.seek(tail_offset(file, int(request.query["tailLines"])))
        await _copy(log, response, limit)
        writes = request.query.get("follow") == "true"
        while writes:
            await asyncio.sleep(_FOLLOW_SECONDS)
            writes = runner.writes(file)  # asked before the last look, so that no last words are lost
            if log.tell() > file.stat().st_size:
                log.seek(0)  # it was begun anew, having grown too large
            await _copy(log, response, None)
    await response.write_eof()
    return response


async def _copy(log: object, response: web.StreamResponse, limit: int | None) -> None:
    left = limit
    while data := log.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left)):  # type: ignore[attr-defined]
        await response.write(data)
        if left is not None:
            left -= len(data)


def tail_offset(file: Path, lines: int) -> int:
    """Where the last `lines` lines of a file begin."""
    size = file.stat().st_size
    position, found = size, 0
    with file.open("rb") as log:
        while position > 0:
            step = min(_CHUNK_BYTES, position)
            position -= step
            log.seek(position)
            block = log.read(step)
            for index in range(len(block) - 1, -1, -1):
                if block[index] == 0x0A and position + index != size - 1:
                    found += 1
                    if found == lines:
                        return position + index + 1
    return 0 if lines > 0 else size
