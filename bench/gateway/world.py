"""A local cluster with servers, an operator that leads and gateways as the overlay installs them, to break things in."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engine.gateway import gateway_and_operator
from tests.engine.world import World, pool, until
from tests.gateway.world import Inside

from bench.common import ROOT, BenchFailed, Report, console, say

POOL_SECONDS = 120.0


@dataclass
class OwnCluster:
    """A cluster of this bench's own."""

    name: str
    kubeconfig: Path
    gateway: str
    models: Path


@contextmanager
def world(
    name: str, *, servers: int = 2, memory: str = "1Gi", gateways: int = 2, keep: bool = False
) -> Iterator[tuple[World, Inside]]:
    """The world, and who asks in it. Raises BenchFailed where the cluster does not come up."""
    with _cluster(name, keep=keep) as cluster:
        made = World(cluster)
        made.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        made.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        made.kubectl("create", "namespace", "ergon-system", check=False)
        made.apply(pool(memory=memory, servers={"min": servers, "max": servers}))
        with gateway_and_operator(made, gateways):
            ready = {"desired": servers, "ready": servers}
            until(lambda: (made.get("ap", "cpu") or {}).get("status", {}).get("servers") == ready, "the servers", POOL_SECONDS)
            inside = Inside(made)
            try:
                yield made, inside
            finally:
                inside.close()
        made.reader.close()


def measured(report: Report, arguments: argparse.Namespace, measure: Callable[[World, Inside], None], **of_the_world: Any) -> int:
    """Measure in a world and report; the exit code."""
    try:
        with world(arguments.cluster, keep=arguments.keep, **of_the_world) as (at, inside):
            measure(at, inside)
    except (BenchFailed, AssertionError) as problem:
        console.print(f"[bold red]{report.name}:[/] {problem}")
        return 1
    report.finish(arguments)
    return 0


@contextmanager
def _cluster(name: str, *, keep: bool) -> Iterator[OwnCluster]:
    ergon = [sys.executable, "-m", "ergon.local"]
    subprocess.run([*ergon, "down", "--name", name], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    say(f"a cluster: {name}")
    if subprocess.run([*ergon, "up", "--name", name], cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode:
        raise BenchFailed("the local cluster does not come up")
    try:
        done = subprocess.run([*ergon, "env", "--name", name], cwd=ROOT, check=True, capture_output=True, text=True)
        lines = [line.removeprefix("export ") for line in done.stdout.splitlines() if line.startswith("export ")]
        values = {key: value.strip("'\"") for key, value in (line.split("=", 1) for line in lines)}
        os.environ["KUBECONFIG"] = values["KUBECONFIG"]
        yield OwnCluster(name, Path(values["KUBECONFIG"]), values["ERGON_GATEWAY"], Path(values["ERGON_MODELS"]))
    finally:
        if not keep:
            subprocess.run([*ergon, "down", "--name", name], cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
