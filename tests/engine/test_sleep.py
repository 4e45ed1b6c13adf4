"""Models that nobody asks for cost nothing, and answer when asked: on a real cluster, through the gateway."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.engine.gateway import asleep, burst, gateway_and_operator, kill, pods, slices, url_of
from tests.engine.world import Object, Operator, World, model, pool, until, write_model

pytestmark = pytest.mark.cluster
WAKE_BEYOND_LOAD_SECONDS = 2.5
"""Less than the 3 s after which a gateway asks again: the first wake was heard."""


@pytest.fixture(autouse=True, scope="module")
def gateway(running: World) -> Iterator[Operator]:
    """Two gateways and an operator that knows of them."""
    with gateway_and_operator(running) as operator:
        yield operator


@contextmanager
def sleepy(world: World, idle_after: str = "5s", **spec: object) -> Iterator[tuple[str, str]]:
    """A model that sleeps."""
    uri = write_model(world.cluster.models, "echo")
    with world.namespace() as namespace:
        world.apply(model(namespace, "m", uri, autoscaling={"minReplicas": 0, "idleAfter": idle_after}, **spec))
        world.ready(namespace, "m")
        asleep(world, namespace, "m")
        yield namespace, "m"


def test_it_sleeps_when_idle_wakes_when_asked_and_its_answers_are_its_own(world: World) -> None:
    with sleepy(world) as (namespace, name):
        woken = burst(world, url_of(namespace, name))  # through its own Service
        assert woken["statuses"] == {"200": 1}, woken
        world.ready(namespace, name)
        assert slices(world, namespace, name) == (False, ["ergon-cpu-0"])

        def told() -> Object | None:
            cold = world.model(namespace, name)["status"]["coldStart"]
            return cold if "firstAnswerSeconds" in cold else None

        cold = until(told, "the gateway's part of the cold start in the status", 20)
        print(f"woken and answered in {woken['first']:.2f} s; {cold}")
        assert set(cold) == {"serverSeconds", "fetchSeconds", "loadSeconds", "totalSeconds", "firstAnswerSeconds"}
        assert cold["firstAnswerSeconds"] < woken["first"]
        assert woken["first"] - cold["loadSeconds"] <= WAKE_BEYOND_LOAD_SECONDS
        assert world.ask(namespace, name) == 42.0  # the server itself now
        asleep(world, namespace, name)


def test_a_pool_without_servers_starts_one(world: World) -> None:
    world.apply(pool("cold", servers={"min": 0, "max": 1}))
    world.kubectl("label", "ap", "cold", "test=cold")
    try:
        with sleepy(world, pools={"matchLabels": {"test": "cold"}}) as (namespace, name):

            def servers() -> Object:
                return dict(((world.get("ap", "cold") or {}).get("status") or {}).get("servers", {}))

            until(lambda: servers() == {"desired": 0, "ready": 0}, "the pool without a server", 90)
            # While its last pod ends, there is no room for another one of its name.
            until(lambda: world.get("pod", "ergon-cold-0", "-n", "ergon-system") is None, "its last pod gone", 90)
            woken = burst(world, url_of(namespace, name), 3, seconds=90)
            cold = world.ready(namespace, name)["status"]["coldStart"]
            print(f"server started, woken and answered in {woken['last']:.2f} s; {cold}")
            assert woken["statuses"] == {"200": 3}, woken
            assert cold["serverSeconds"] > cold["loadSeconds"]
    finally:
        world.kubectl("delete", "ap", "cold", "--wait=false")


def test_a_thousand_requests_wake_it_once_and_none_fails(world: World, gateway: Operator) -> None:
    with sleepy(world, idle_after="10s") as (namespace, name):
        before = gateway.log.count("is brought up")
        result = burst(world, url_of(namespace, name), 1000, seconds=30)
        print(result)
        assert result["statuses"] == {"200": 1000}, result
        assert gateway.log.count("is brought up") - before == 1


def test_what_sleeps_when_the_operator_is_killed_is_answered_or_refused_in_time(world: World, gateway: Operator) -> None:
    with sleepy(world) as (namespace, name):
        operator = next(each for each in world.operators if each.process.poll() is None)
        operator.kill()
        begun = time.monotonic()
        refused = burst(world, url_of(namespace, name), 5, seconds=4)
        assert refused["statuses"] == {"503": 5}, refused
        assert time.monotonic() - begun < 30
        results: list[Object] = []
        waiting = threading.Thread(target=lambda: results.append(burst(world, url_of(namespace, name), 5, seconds=60)))
        waiting.start()
        world.operator(identity=operator.identity).leads()
        waiting.join(90)
        assert results[0]["statuses"] == {"200": 5}, results
        # A model that slept before sleeps on: the new operator woke nothing by itself.


def test_a_new_operator_lets_sleep_what_slept(world: World) -> None:
    with sleepy(world) as (namespace, name):
        operator = next(each for each in world.operators if each.process.poll() is None)
        operator.kill()
        new = world.operator(identity=operator.identity)
        new.leads()
        until(lambda: "asleep: the gateway wakes it" in new.log, "the new operator's first look", 30)
        time.sleep(3)  # long enough for a load, if there were one
        assert world.condition(world.model(namespace, name), "Ready")["reason"] == "Asleep"
        assert "is brought up" not in new.log


def test_a_gateway_killed_with_requests_held_loses_those_and_no_more(world: World) -> None:
    with sleepy(world) as (namespace, name):
        operator = next(each for each in world.operators if each.process.poll() is None)
        operator.kill()  # so that requests are held for as long as it takes
        results: list[Object] = []
        waiting = threading.Thread(target=lambda: results.append(burst(world, url_of(namespace, name), 20, seconds=60)))
        waiting.start()
        time.sleep(2)
        victim = pods(world)[0]
        kill(victim)
        until(lambda: len(pods(world)) == 2, "the gateway back", 60)
        world.operator(identity=operator.identity).leads()
        waiting.join(90)
        print(results)
        statuses = results[0]["statuses"]
        assert set(statuses) <= {"200", "503", "ServerDisconnectedError", "ClientOSError", "ClientConnectorError"}
        assert statuses.get("200", 0) > 0  # those that the other one held
        assert burst(world, url_of(namespace, name), 20)["statuses"] == {"200": 20}


def test_without_any_gateway_what_slept_is_loaded(world: World) -> None:
    with sleepy(world) as (namespace, name):
        world.kubectl("scale", "deployment/ergon-gateway", "-n", "ergon-system", "--replicas=0")
        try:
            world.reason(namespace, name, "NoGateway", 30)
            world.ready(namespace, name, 90)
            assert world.condition(world.model(namespace, name), "Accepted")["reason"] == "NoGateway"
            assert world.ask(namespace, name) == 42.0
        finally:
            world.kubectl("scale", "deployment/ergon-gateway", "-n", "ergon-system", "--replicas=2")
            until(lambda: len(pods(world)) == 2, "the gateway back", 60)
        asleep(world, namespace, name)


def test_a_wake_that_cannot_be_is_refused_with_the_reason(world: World) -> None:
    with sleepy(world) as (namespace, name):
        world.kubectl(
            "patch",
            "sm",
            name,
            "-n",
            namespace,
            "--type=json",
            "-p",
            '[{"op": "replace", "path": "/spec/variants/0/source/uri", "value": "file:///no-such-model"}]',
        )
        result = burst(world, url_of(namespace, name), 1, seconds=25)
        assert result["statuses"] == {"503": 1}, result
        assert "SourceNotFound" in result["failed"][0], result


def test_clients_of_a_model_that_falls_asleep_and_wakes_are_unharmed(world: World) -> None:
    with sleepy(world) as (namespace, name):
        for _ in range(2):
            assert burst(world, url_of(namespace, name), 3)["statuses"] == {"200": 3}
            time.sleep(6)  # it falls asleep meanwhile, and is asked while it does
