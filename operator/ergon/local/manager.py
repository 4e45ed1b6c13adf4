"""Inside the namespaces: starts the cluster's components in order, keeps them running, and writes down how they do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from dataclasses import asdict

import aiohttp

from ergon.local import bootstrap, controlplane
from ergon.local.kubeclient import Api, ApiError
from ergon.local.processes import Component
from ergon.local.state import ClusterRecord, Layout, write_atomically

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_WRITE_SECONDS = 1.0


class Health:
    """What `up` and `status` read: the phase, its start, and the components."""

    def __init__(self, layout: Layout, components: list[Component]) -> None:
        self._layout = layout
        self._components = components
        self._written = ""
        self.phase = "starting the API server"
        self.ready = False
        self.seconds: dict[str, float] = {}
        self._begun = time.monotonic()

    def enter(self, phase: str) -> None:
        """Begin the next phase of starting."""
        self.seconds[self.phase] = round(time.monotonic() - self._begun, 2)
        self.phase = phase
        self.write()

    def write(self) -> None:
        """Write when something differs from what is written."""
        state = {
            "ready": self.ready,
            "phase": self.phase,
            "seconds": self.seconds,
            "components": [asdict(component.state) for component in self._components],
        }
        text = json.dumps(state, indent=2)
        if text != self._written:
            write_atomically(self._layout.health, text)
            self._written = text


async def run(layout: Layout, record: ClusterRecord) -> None:
    """Bring all up and watch over it until killed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    control = {
        name: Component(name, command, layout.logs / f"{name}.log", {**os.environ, "GOGC": "200"})
        for name, command in controlplane.commands(layout, record.binaries).items()
    }
    rooms = {
        name: Component(name, [sys.executable, "-m", f"ergon.local.{name}", layout.name], layout.logs / f"{name}.log")
        for name in ("network", "relay", "node")
    }
    health = Health(layout, [*control.values(), *rooms.values()])
    health.write()
    control["etcd"].start()
    control["kube-apiserver"].start()
    rooms["relay"].start()
    async with Api(layout.pki / "node-agent.kubeconfig") as api:
        await _until_ready(api)
        for component in (*list(control.values())[2:], rooms["network"], rooms["node"]):
            component.start()
        health.enter("setting up namespaces and the Gateway")
        watching = asyncio.create_task(_watch(health))
        await bootstrap.apply_all(api)
        health.enter("waiting for nodes and the Gateway")
        await bootstrap.await_ready(api, len(record.nodes))
        health.ready = True
        health.enter("ready")
        await watching


async def _watch(health: Health) -> None:
    while True:
        health.write()
        await asyncio.sleep(_WRITE_SECONDS)


async def _until_ready(api: Api) -> None:
    """Until the API server says that it is ready."""
    while True:
        try:
            await api.request("GET", "/readyz", seconds=5.0)
            return
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError):
            await asyncio.sleep(_POLL_SECONDS)
