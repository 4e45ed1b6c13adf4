"""What the command line shows of a running cluster: a table of its parts, and logs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from ergon.local.kubeclient import Api, ApiError, Object
from ergon.local.state import ClusterRecord, Layout, LocalError

_FOLLOW_SECONDS = 0.2
_SHOWN_RESOURCES = ("cpu", "memory", "ephemeral-storage", "pods")


def print_status(layout: Layout, record: ClusterRecord, health: dict[str, Any], console: Console) -> None:
    """Components, then nodes with their pods, then where clients connect."""
    version, nodes, pods = asyncio.run(_look(layout))
    state = "ready" if health.get("ready") else str(health.get("phase", "starting"))
    console.print(f"Cluster [bold]{record.name}[/] is {state}, Kubernetes {version}")
    components = Table("component", "state", "restarts")
    for component in health.get("components", []):
        running = "running" if component["running"] else "[red]not running[/]"
        components.add_row(component["name"], running, str(component["restarts"]))
    console.print(components)
    console.print(_nodes_table(nodes, pods))
    places = Table(show_header=False)
    places.add_row("API server", f"https://127.0.0.1:{record.api_port}")
    places.add_row("Gateway", record.gateway_url)
    places.add_row("models", record.models)
    places.add_row("kubeconfig", str(layout.kubeconfig))
    places.add_row("control plane", str(Path(record.binaries["kube-apiserver"]).parent))
    places.add_row("Triton", record.triton_environment)
    console.print(places)


async def _look(layout: Layout) -> tuple[str, list[Object], list[Object]]:
    """Version, nodes and pods; empty when the API server does not answer."""
    async with Api(layout.kubeconfig) as api:
        try:
            version = await api.get("/version")
            nodes = await api.get("/api/v1/nodes")
            pods = await api.get("/api/v1/pods")
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"(API server: {error})", [], []
    return str(version["gitVersion"]), list(nodes["items"]), list(pods["items"])


def _nodes_table(nodes: list[Object], pods: list[Object]) -> Table:
    counts = Counter(pod["spec"].get("nodeName", "") for pod in pods)
    table = Table("node", "state", "accelerator", "advertises", "pods")
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        simulated = labels.get("ergon.dev/simulated") == "true"
        capacity = (node.get("status") or {}).get("capacity") or {}
        extended = ", ".join(f"{count} {name}" for name, count in capacity.items() if name not in _SHOWN_RESOURCES)
        name = node["metadata"]["name"]
        accelerator = labels.get("ergon.dev/accelerator", "") + (" (simulated)" if simulated else "")
        table.add_row(name, _node_state(node), accelerator, extended, str(counts[name]))
    return table


def _node_state(node: Object) -> str:
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    cordoned = ", cordoned" if node["spec"].get("unschedulable") else ""
    return ("Ready" if ready else "[red]NotReady[/]") + cordoned


def component_log(layout: Layout, component: str) -> Path:
    """Where a component's output goes."""
    return layout.logs / f"{Path(component).name}.log"


def print_last_words(layout: Layout) -> bool:
    """The last lines of every component's log. Whether there was any log."""
    files = sorted(layout.logs.glob("*.log"))
    for file in files:
        for line in _last_lines(file, 3):
            sys.stdout.write(f"{file.stem}: {line}\n")
    return bool(files)


def find_pod(layout: Layout, place: str) -> tuple[str, str]:
    """Namespace and name of the pod that `place` (NAME or NAMESPACE/NAME) means; raises LocalError where that is not one pod."""
    namespace, _, name = place.rpartition("/")
    found = [each for each in asyncio.run(_namespaces_of(layout, name)) if namespace in ("", each)]
    if not found:
        where = f" in namespace {namespace}" if namespace else ""
        raise LocalError(f"no component and no pod{where} is called {name!r}: see `ergon local status` and `kubectl get pods -A`")
    if len(found) > 1:
        raise LocalError(f"pods called {name!r} are in {', '.join(sorted(found))}: say which with --namespace")
    return found[0], name


async def _namespaces_of(layout: Layout, pod: str) -> list[str]:
    async with Api(layout.kubeconfig) as api:
        try:
            listed = await api.request("GET", "/api/v1/pods", query={"fieldSelector": f"metadata.name={pod}"})
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            raise LocalError(f"the API server does not say where pod {pod!r} is: {error}") from error
    return [str(item["metadata"]["namespace"]) for item in listed["items"]]


def print_log(file: Path, lines: int, follow: bool) -> None:
    """The last lines of a log, and with `follow` whatever comes after them until interrupted."""
    sys.stdout.write("".join(f"{line}\n" for line in _last_lines(file, lines)))
    sys.stdout.flush()
    if not follow:
        return
    with file.open() as log:
        log.seek(0, 2)
        try:
            while True:
                sys.stdout.write(log.read())
                sys.stdout.flush()
                time.sleep(_FOLLOW_SECONDS)
        except KeyboardInterrupt:
            return


def _last_lines(file: Path, count: int) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-count:]
