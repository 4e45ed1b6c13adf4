"""The leader dies and, before another leads, so does a server: how long its endpoint stands."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.engine.world import BIN, Operator, World, control_plane_pids, model, until, write_model

pytestmark = pytest.mark.cluster

BAR_SECONDS = 25.0


def local(world: World, *arguments: str) -> None:
    subprocess.run([str(BIN / "ergon"), "local", *arguments, "--name", world.cluster.name], check=True, timeout=60)


def delete_pod(world: World, operator: Operator) -> Callable[[], None]:
    world.kubectl("delete", "pod", "ergon-cpu-0", "-n", "ergon-system", "--grace-period=0", "--force")
    return lambda: None


def stop_node(world: World, operator: Operator) -> Callable[[], None]:
    pod = world.get("pod", "ergon-cpu-0", "-n", "ergon-system") or {}
    node = pod["spec"]["nodeName"]
    local(world, "node", "stop", node)
    return lambda: local(world, "node", "start", node)


def stop_node_unseen(world: World, operator: Operator) -> Callable[[], None]:
    """As long as nothing marks the dead node's pods not Ready, which takes 50 s in an ordinary cluster."""
    (manager,) = control_plane_pids(world.cluster, "kube-controller-manager")
    os.kill(manager, signal.SIGSTOP)
    start_node = stop_node(world, operator)

    def mend() -> None:
        os.kill(manager, signal.SIGCONT)
        start_node()

    return mend


@pytest.mark.parametrize("kill", [delete_pod, stop_node_unseen])
def test_leader_killed_then_a_server(
    kill: Callable[[World, Operator], Callable[[], None]], world: World, operator: Operator
) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo")))
        world.ready(ns, "echo")
        pod = world.get("pod", "ergon-cpu-0", "-n", "ergon-system") or {}
        standby = world.operator()
        until(lambda: "stands by" in standby.log, "a standby")
        uid = pod["metadata"]["uid"]
        operator.kill()
        began = time.monotonic()
        mend = kill(world, operator)

        def gone() -> bool:
            slices = world.get("endpointslices", "-n", ns, "-l", "ergon.dev/model=echo") or {"items": []}
            return all(e["targetRef"]["uid"] != uid for s in slices["items"] for e in s.get("endpoints") or ())

        try:
            until(gone, "the dead server's endpoint gone", 60)
            took = time.monotonic() - began
            print(f"leader killed, then {kill.__name__}: its endpoint is gone after {took:.1f} s")
        finally:
            mend()
        assert took <= BAR_SECONDS
        until(lambda: world.endpoints(ns, "echo"), "its endpoint back", 120)  # what is Ready may not have heard of it yet
        world.ready(ns, "echo", 120)
        assert world.ask(ns, "echo") == 42
