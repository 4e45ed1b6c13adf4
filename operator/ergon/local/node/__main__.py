"""The node agent: `python -m ergon.local.node CLUSTER`, one process for all nodes, started inside the cluster's namespaces."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp

from ergon.local.kubeclient import Api, ApiError, Informer
from ergon.local.node.addresses import PodAddresses, node_address
from ergon.local.node.endpoint import serve
from ergon.local.node.images import Images
from ergon.local.node.node import Node
from ergon.local.node.root import launcher_paths
from ergon.local.state import ClusterRecord, Layout, LocalError

Object = dict[str, Any]
CONTROL_SOCKET = "nodes.sock"


class Agent:
    """All nodes of the cluster and the routing of pods to them."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self._pods: dict[str, Object] = {}

    def pod_changed(self, old: Object | None, new: Object | None) -> None:
        """Informer callback for pods."""
        item = new or old
        assert item is not None
        node = self.nodes.get(item["spec"].get("nodeName", ""))
        if new is None:
            self._pods.pop(item["metadata"]["uid"], None)
        else:
            self._pods[item["metadata"]["uid"]] = new
        if node is None:
            return
        if new is None:
            node.pod_gone(item)
        else:
            node.pod_changed(new)

    async def command(self, line: str) -> str:
        """Carry out `stop NODE` or `start NODE`; the answer is `ok` or what is wrong."""
        verb, _, name = line.partition(" ")
        node = self.nodes.get(name)
        if node is None:
            return f"no node {name!r}; there are {', '.join(self.nodes)}"
        if verb == "stop" and node.alive:
            node.stop()
        elif verb == "start" and not node.alive:
            node.sweep(set(self._pods))
            try:
                await node.start()
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                return f"node {name!r} cannot register with the API server: {error or type(error).__name__}"
            for pod in list(self._pods.values()):
                if pod["spec"].get("nodeName") == name:
                    node.pod_changed(pod)
        return "ok"


async def _run(layout: Layout) -> None:
    record = ClusterRecord.load(layout.record)
    if record is None:
        raise LocalError(f"{layout.record} cannot be read")
    environment = Path(record.triton_environment)
    images = Images(environment)
    images.write_shims(layout.nodes / "shims")
    mirrors = launcher_paths(environment)
    addresses = PodAddresses()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with Api(layout.pki / "node-agent.kubeconfig") as api:
        nodes = {
            spec.name: Node(api, spec, record, node_address(index), layout.nodes / spec.name, images, mirrors, addresses)
            for index, spec in enumerate(record.nodes)
        }
        await asyncio.gather(*(node.start() for node in nodes.values()))
        endpoints = [await serve(node, layout.pki) for node in nodes.values()]
        agent = Agent(nodes)
        informer = asyncio.create_task(Informer(api, "/api/v1/pods", agent.pod_changed).run())
        control = await _listen(agent, layout.sockets)
        await stopped.wait()
        informer.cancel()
        control.close()
        for node in nodes.values():
            node.stop()
        for endpoint in endpoints:
            await endpoint.cleanup()


async def _listen(agent: Agent, sockets: Path) -> asyncio.Server:
    """The control socket; its name is relative because Unix socket paths are short."""
    os.chdir(sockets)
    _remove(CONTROL_SOCKET)

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode().strip()
        writer.write((await agent.command(line)).encode() + b"\n")
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(serve_one, CONTROL_SOCKET)


def _remove(name: str) -> None:
    """Remove a socket that an earlier run left."""
    Path(name).unlink(missing_ok=True)


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_run(Layout.of(sys.argv[1])))


if __name__ == "__main__":
    main()
