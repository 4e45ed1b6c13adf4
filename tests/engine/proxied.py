"""A proxy before the API server, as a test handles it: what runs behind it sees faults that nobody else does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.engine.world import World
from tests.inside import inside

_EVERYWHERE = ["specializedmodels", "acceleratorpools", "energybudgets", "namespaces", "nodes", "services", "endpointslices"]
KINDS = [*_EVERYWHERE, "httproutes", "pods", "statefulsets"]
_SCRIPT = Path(__file__).with_name("api_proxy.py")


class ApiProxy:
    """A running proxy. `kubeconfig` leads through it."""

    def __init__(self, world: World, port: int) -> None:
        self.kubeconfig = world.cluster.kubeconfig.parent / f"kubeconfig.proxy-{port}"
        cluster = {"name": "proxied", "cluster": {"server": f"http://127.0.0.1:{port}"}}
        context = {"name": "proxied", "context": {"cluster": "proxied", "user": "proxied"}}
        user = {"name": "proxied", "user": {}}
        config = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "proxied"}
        self.kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
        command = inside(world.cluster.name, sys.executable, str(_SCRIPT), str(port))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == "serving"

    def tell(self, **order: Any) -> dict[str, int]:
        """Give an order; what the proxy has done so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        counts: dict[str, int] = json.loads(self._read())
        return counts

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)
        self.kubeconfig.unlink()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def proxy(world: World) -> Iterator[ApiProxy]:
    """A proxy for the length of a test."""
    running = ApiProxy(world, 18000 + next(world.ports))
    try:
        yield running
    finally:
        running.stop()
