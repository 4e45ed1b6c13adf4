"""What clients of a gateway notice when servers, the API server or a gateway itself fail: as little as can be."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.engine.world import World, control_plane_pids, triton_pids, until
from tests.gateway.world import Gateway, request, route, scored

pytestmark = pytest.mark.cluster


def answering(gateway: Gateway, name: str) -> str:
    """Which model answers for a route; empty: none."""
    answer = gateway.infer(name, "x")
    return str(answer.output("LABEL")) if answer.status == 200 else ""


def test_a_server_that_is_killed_costs_no_request(world: World, gateway: Gateway) -> None:
    with world.namespace() as namespace:
        world.apply(scored(world, namespace, "small", 0.7, replicas=2), route(namespace, "guess"))
        world.ready(namespace, "small", 120)
        until(lambda: len(world.endpoints(namespace, "small")) == 2, "two servers", 60)
        until(lambda: gateway.infer(f"{namespace}/guess", "x").status == 200, "an answer", 30)
        operator = next(operator for operator in world.operators if operator.process.poll() is None)
        pod = world.endpoints(namespace, "small")[1]
        address = (world.get("pods", pod, "-n", "ergon-system") or {})["status"]["podIP"]
        inside, sent = gateway.inside, []
        urls = (f"{gateway.url}/{namespace}/guess/v2/models/any/infer", f"{gateway.url}/v2/models/{namespace}.small/infer")
        for number in range(400):
            sent.append(inside.begin(urls[number % 2], request("x")))
            if number == 100:
                for pid in triton_pids(operator, address):
                    os.kill(pid, signal.SIGKILL)
            if number % 4 == 0:
                inside.answer(sent[-1])
        statuses = [inside.answer(number).status for number in sent]
        assert statuses == [200] * 400


def test_without_an_api_server_the_gateway_goes_on_and_then_follows_again(world: World, gateway: Gateway) -> None:
    with world.namespace() as namespace:
        world.apply(scored(world, namespace, "small", 0.7), route(namespace, "guess"))
        world.ready(namespace, "small")
        until(lambda: gateway.infer(f"{namespace}/guess", "x").status == 200, "an answer", 30)
        stopped = control_plane_pids(world.cluster, "kube-apiserver")
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            ends_at = time.monotonic() + 5
            while time.monotonic() < ends_at:
                assert gateway.infer(f"{namespace}/guess", "x").status == 200
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        world.apply(route(namespace, "later"))
        until(lambda: gateway.infer(f"{namespace}/later", "x").status == 200, "a new route followed", 60)


def test_a_gateway_that_is_stopped_ends_what_it_has_begun(world: World, gateways: Callable[..., Gateway]) -> None:
    gateway = gateways()
    with world.namespace() as namespace:
        world.apply(scored(world, namespace, "small", 0.7), route(namespace, "guess"))
        world.ready(namespace, "small")
        until(lambda: gateway.infer(f"{namespace}/guess", "x").status == 200, "an answer", 30)
        url = f"{gateway.url}/{namespace}/guess/v2/models/any/infer"
        slow = gateway.inside.begin(url, request("small-seconds=3"))
        asked = f'ergon_gateway_asked_total{{model="small",namespace="{namespace}",route="guess"}}'
        until(lambda: gateway.metrics().get(asked, 0) >= 2, "the slow request under way", 10)
        gateway.signal(signal.SIGTERM)
        ready = f"http://127.0.0.1:{gateway.number + 2}/readyz"
        until(lambda: gateway.inside.ask(ready, method="GET").status == 503, "not ready", 5)
        late = gateway.inside.ask(url, request("x"))  # Services still lead here
        assert (late.status, late.header("connection")) == (200, "close")
        assert gateway.inside.answer(slow).status == 200
        assert gateway.process.wait(timeout=30) == 0


def test_a_model_that_goes_and_two_gateways(world: World, gateways: Callable[..., Gateway]) -> None:
    with world.namespace() as namespace:
        world.apply(scored(world, namespace, "small", 0.7), scored(world, namespace, "big", 0.9), route(namespace, "guess"))
        world.ready(namespace, "small")
        world.ready(namespace, "big")
        both = gateways(), gateways()
        for gateway in both:
            until(lambda at=gateway: answering(at, f"{namespace}/guess") == "small", "small answering", 30)
        world.kubectl("delete", "sm", "small", "-n", namespace, "--wait=false")
        until(lambda: all(answering(gateway, f"{namespace}/guess") == "big" for gateway in both), "big answering", 30)
        assert both[0].stop() == 0
        assert answering(both[1], f"{namespace}/guess") == "big"
