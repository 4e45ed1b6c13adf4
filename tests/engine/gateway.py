"""The gateway as the local overlay installs it, beside an operator that knows of it, and what the tests ask of both."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.engine.world import Clients, Object, Operator, World, processes, until

MANIFEST = Path(__file__).parents[2] / "manifests" / "overlays" / "local" / "operator.yaml"
NAMESPACE = "ergon-system"
WAKE_ADDRESS = "10.243.0.1"
"""The address under which everything in the local cluster's network reaches a process that runs there beside the pods."""
ARGUMENTS = (
    "--gateway-service=ergon-gateway",
    f"--wake-address={WAKE_ADDRESS}",
    "--plan-every=5",
    "--stabilise=10",
    "--improve-after=5",
)
CLIENTS = Path(__file__).with_name("route_clients.py")


def objects(replicas: int) -> list[Object]:
    """What the gateway is made of."""
    found = [obj for obj in yaml.safe_load_all(MANIFEST.read_text()) if obj]
    mine = []
    for obj in found:
        labels, name = obj["metadata"]["labels"], obj["metadata"]["name"]
        if labels["app.kubernetes.io/component"] == "gateway" or (obj["kind"], name) == ("Service", "ergon-leader"):
            if obj["kind"] == "Deployment":
                obj["spec"]["replicas"] = replicas
            mine.append(obj)
    return mine


def pods(world: World) -> list[Object]:
    """The gateway's pods that are ready."""
    found = world.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=gateway") or {"items": []}
    return [pod for pod in found["items"] if world.condition(pod, "Ready").get("status") == "True"]


@contextmanager
def gateway_and_operator(world: World, replicas: int = 2) -> Iterator[Operator]:
    """Both, until the test's module is over."""
    for operator in world.operators:
        if operator.process.poll() is None:
            operator.stop()
    # As an installation does: tests of the installation apply the same objects to this cluster.
    world.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(objects(replicas)))
    world.arguments = ARGUMENTS
    operator = world.operator()
    operator.leads()
    until(lambda: len(pods(world)) == replicas, "the gateway's pods ready", 90)
    try:
        yield operator
    finally:
        world.arguments = ()
        for each in world.operators:
            if each.process.poll() is None:
                each.stop()
        kinds = "deployment,service,serviceaccount,networkpolicy,httproute,clusterrole,clusterrolebinding"
        world.kubectl("delete", kinds, "-n", NAMESPACE, "-l", "app.kubernetes.io/component=gateway", "--wait=false")
        world.kubectl("delete", "service", "ergon-leader", "-n", NAMESPACE, "--ignore-not-found")


def slices(world: World, namespace: str, name: str) -> tuple[bool, list[str]]:
    """Whether the model's Service points at gateways, and at which pods."""
    found = (world.get("endpointslices", "-n", namespace, "-l", f"ergon.dev/model={name}") or {"items": []})["items"]
    asleep = any(each["metadata"]["labels"].get("ergon.dev/asleep") == "true" for each in found)
    return asleep, sorted(e["targetRef"]["name"] for each in found for e in each.get("endpoints") or ())


def asleep(world: World, namespace: str, name: str, seconds: float = 60.0) -> None:
    """Wait until a model sleeps: its Service points at every gateway, and no server holds it."""
    world.reason(namespace, name, "Asleep", seconds)
    names = sorted(pod["metadata"]["name"] for pod in pods(world))
    until(lambda: slices(world, namespace, name) == (True, names), f"{name}'s Service points at {names}", 30)
    until(lambda: not world.model(namespace, name)["status"].get("placements"), f"{name} on no server", seconds)


def url_of(namespace: str, name: str) -> str:
    """Where a model answers."""
    return f"http://{name}.{namespace}:8000/v2/models/{namespace}.{name}/infer"


def route_url(namespace: str, name: str) -> str:
    """Where a route answers."""
    return f"http://ergon-gateway.{NAMESPACE}:8000/{namespace}/{name}/v2/models/{name}/infer"


def burst(world: World, url: str, count: int = 1, seconds: float = 30.0, value: float = 21.0) -> Object:
    """So many requests at once: {"statuses": {…}, "failed": […], "first": seconds, "last": seconds}."""
    done = world.inside(
        sys.executable, str(CLIENTS), "burst", url, str(count), f"{seconds:g}", f"{value:g}", seconds=seconds + 60
    )
    assert done.returncode == 0, done.stderr
    result: Object = json.loads(done.stdout)
    return result


@contextmanager
def steady(world: World, url: str, value: float = 1.0) -> Iterator[Clients]:
    """Clients that ask a URL again and again."""
    with world.asking(CLIENTS, "steady", url, f"{value:g}") as clients:
        yield clients


def kill(pod: Object) -> None:
    """kill -9 the gateway process of a pod."""
    address = f"--host={pod['status']['podIP']}".encode()
    victims = [pid for pid, arguments in processes() if address in arguments and b"gateway" in arguments]
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def asked(answer: Object) -> Any:
    """The value that a model answered with."""
    return answer["outputs"][0]["data"][0]
