"""Task routes on a real cluster: the small model first, the big one for the rest, through failures of every part."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.engine.gateway import asleep, burst, gateway_and_operator, kill, pods, route_url, steady
from tests.engine.world import Object, Operator, World, model, triton_pids, until, write_model

pytestmark = pytest.mark.cluster

SURE = """
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "X").as_numpy()
            score = np.where(x < LIMIT, 0.9, 0.1).astype(np.float32)
            answers.append(pb.InferenceResponse([pb.Tensor("Y", x * FACTOR), pb.Tensor("SCORE", score)]))
        return answers
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }, { name: "SCORE" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""
SMALL_POINT = {"accelerator": "cpu", "batch": 1, "requestsPerSecond": 500, "latency": "2ms", "watts": 20}
BIG_POINT = {"accelerator": "cpu", "batch": 1, "requestsPerSecond": 50, "latency": "20ms", "watts": 60}
SURE_OF, NOT_SURE_OF = 1.0, 50.0


@pytest.fixture(autouse=True, scope="module")
def gateway(running: World) -> Iterator[Operator]:
    """Two gateways and an operator that knows of them."""
    with gateway_and_operator(running) as operator:
        yield operator


def route(namespace: str, name: str = "r", **spec: object) -> Object:
    """A route over the namespace's models of task echo, which asks the next where SCORE is low."""
    when = [{"output": "SCORE", "below": 0.5}]
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "TaskRoute",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"task": "echo", "escalation": {"when": when}, "timeout": "20s", **spec},
    }


def status(world: World, namespace: str, name: str = "r") -> Object:
    """A route's status."""
    found: Object = (world.get("troute", name, "-n", namespace) or {}).get("status") or {}
    return found


def said(world: World, namespace: str, kind: str, reason: str, seconds: float = 30.0) -> Object:
    """Wait until a route's condition has that reason."""
    obj = lambda: world.get("troute", "r", "-n", namespace) or {}  # noqa: E731
    return until(
        lambda: condition if (condition := world.condition(obj(), kind)).get("reason") == reason else None,
        f"the route {kind} {reason}",
        seconds,
    )


@contextmanager
def routed(world: World, big: Object | None = None, **spec: object) -> Iterator[str]:
    """A route over a small model, which is sure of numbers below 10, and a big one, which is sure of all."""
    small_uri = write_model(world.cluster.models, "sure-small", SURE.replace("LIMIT", "10"), factor=2, config=CONFIG)
    big_uri = write_model(world.cluster.models, "sure-big", SURE.replace("LIMIT", "1000"), factor=3, config=CONFIG)
    with world.namespace() as namespace:
        world.apply(
            model(namespace, "small", small_uri, variant={"quality": 0.8, "profiles": [SMALL_POINT]}),
            model(namespace, "big", big_uri, variant={"quality": 0.95, "profiles": [BIG_POINT]}, **(big or {})),
            route(namespace, **spec),
        )
        world.ready(namespace, "small")
        world.ready(namespace, "big")
        said(world, namespace, "Ready", "Ready")
        yield namespace


def ask(world: World, namespace: str, value: float) -> tuple[float, str]:
    """One request: the answer, and who was asked."""
    body = json.dumps({"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [value]}]})
    done = world.inside("curl", "-sS", "-i", "-m", "20", "-X", "POST", route_url(namespace, "r"), "-d", body)
    assert done.returncode == 0, done.stderr
    head, _, text = done.stdout.replace("\r", "").partition("\n\n")
    assert head.startswith("HTTP/1.1 200"), done.stdout
    headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:])
    outputs = {output["name"]: output["data"][0] for output in json.loads(text)["outputs"]}
    assert float(headers["ergon-joules"]) > 0
    assert headers["ergon-joules-provenance"] == "assumed"
    return outputs["Y"], headers["ergon-models"]


def test_the_small_model_answers_what_it_is_sure_of_and_the_big_one_the_rest(world: World) -> None:
    with routed(world) as namespace:
        told = status(world, namespace)
        assert [each["model"] for each in told["candidates"]] == ["small", "big"]
        assert told["candidates"][0]["joulesPerRequest"] < told["candidates"][1]["joulesPerRequest"]
        assert ask(world, namespace, SURE_OF) == (2.0, "small")
        assert ask(world, namespace, NOT_SURE_OF) == (150.0, "small,big")
        # What gateways count comes back as figures. What came before the operator's first look at them is not among it, so the
        # same mix is asked until a status tells of it.
        quarter = pytest.approx(0.25, abs=0.1)

        def asked_and_told() -> Object | None:
            burst(world, route_url(namespace, "r"), 75, value=SURE_OF)
            burst(world, route_url(namespace, "r"), 25, value=NOT_SURE_OF)
            told = status(world, namespace)
            return told if told.get("escalationRate") == quarter else None

        told = until(asked_and_told, "an escalation rate of a quarter", 90)
        assert told["escalationRate"] == quarter
        assert told["requestsPerSecond"] > 0
        assert told["joulesPerRequest"] > 0


def test_what_is_wrong_with_a_route_is_a_condition(world: World) -> None:
    with routed(world) as namespace:
        world.apply(route(namespace, minQuality=0.99))
        assert "0.95" in said(world, namespace, "Ready", "QualityTooLow")["message"]
        world.apply(route(namespace, fallback="other"), route(namespace, "other", fallback="r"))
        assert "r -> other -> r" in said(world, namespace, "Accepted", "FallbackCycle")["message"]
        world.apply(route(namespace, fallback=None, task="nothing"))
        said(world, namespace, "Ready", "NoCandidate")
        assert said(world, namespace, "Accepted", "Accepted")["status"] == "True"


def test_a_killed_operator_costs_no_request(world: World) -> None:
    with routed(world) as namespace:
        operator = next(each for each in world.operators if each.process.poll() is None)
        with steady(world, route_url(namespace, "r"), NOT_SURE_OF) as clients:
            operator.kill()
            time.sleep(3)
            world.operator(identity=operator.identity).leads()  # its start takes some seconds more
            time.sleep(1)
        clients.assert_unharmed()


def test_a_killed_gateway_costs_the_requests_it_had_and_no_more(world: World) -> None:
    with routed(world) as namespace:
        with steady(world, route_url(namespace, "r"), SURE_OF) as clients:
            time.sleep(1)
            kill(pods(world)[0])
            time.sleep(6)
        counts = clients.stop()["http"]
        assert counts["answered"] > 50, counts
        # Connections that were open to it break; a new one may meet its address until the node has told of its end.
        assert all("ClientConnectorError" in text or "ClientOSError" in text for text in counts["failed"]), counts
        until(lambda: len(pods(world)) == 2, "the gateway back", 60)
        assert burst(world, route_url(namespace, "r"), 50, value=SURE_OF)["statuses"] == {"200": 50}


def test_a_killed_server_costs_no_request_that_another_can_answer(world: World) -> None:
    spec: Object = {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}
    with routed(world, escalation={"when": []}, order=["big"], big=spec) as namespace:
        operator = next(each for each in world.operators if each.process.poll() is None)
        servers = world.endpoints(namespace, "big")
        assert len(servers) == 2
        address = (world.get("pod", servers[1], "-n", "ergon-system") or {})["status"]["podIP"]
        with steady(world, route_url(namespace, "r"), SURE_OF) as clients:
            time.sleep(1)
            for pid in triton_pids(operator, address):
                os.kill(pid, signal.SIGKILL)
            time.sleep(8)
        clients.assert_unharmed()


def test_a_route_wakes_its_big_model_when_it_is_needed(world: World) -> None:
    with routed(world, big={"autoscaling": {"minReplicas": 0, "idleAfter": "5s"}}) as namespace:
        asleep(world, namespace, "big")
        until(
            lambda: [each["state"] for each in status(world, namespace)["candidates"]] == ["Ready", "Asleep"],
            "the route says who sleeps",
            30,
        )
        assert ask(world, namespace, SURE_OF) == (2.0, "small")  # nobody is woken for it
        assert world.condition(world.model(namespace, "big"), "Ready")["reason"] == "Asleep"
        results: list[Object] = []
        waiting = threading.Thread(
            target=lambda: results.append(burst(world, route_url(namespace, "r"), 20, seconds=20, value=NOT_SURE_OF))
        )
        waiting.start()
        waiting.join(40)
        assert results[0]["statuses"] == {"200": 20}, results
