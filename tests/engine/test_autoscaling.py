"""The fleet follows what is asked, on real servers: replicas come within seconds, go after a quiet while, no request fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.engine.askers import Askers
from tests.engine.test_profile import SERVICE_SECONDS, SLOW
from tests.engine.world import Object, World, model, pool, until, write_model

pytestmark = pytest.mark.cluster

PROFILE = {"accelerator": "cpu", "batch": 1, "requestsPerSecond": 1 / SERVICE_SECONDS, "latency": "20ms", "watts": 60}
SECONDS = 90.0


@pytest.fixture(autouse=True, scope="module")
def operator_that_follows_soon(running: World) -> Iterator[None]:
    """An operator that plans every 5 s and takes a lower demand for one after 10 s."""
    for operator in running.operators:
        if operator.process.poll() is None:
            operator.stop()
    soon = running.operator("--plan-every=5", "--stabilise=10", "--improve-after=5")
    soon.leads()
    yield
    soon.stop()


@contextmanager
def scaled(world: World, namespace: str, **spec: object) -> Iterator[None]:
    """A pool of up to two servers of the test's own, and a model that one of them serves 50 times a second."""
    world.apply(pool("scaling", servers={"min": 1, "max": 2}, drainTimeout="15s", power={"idleWatts": 10, "busyWatts": 60}))
    world.kubectl("label", "ap", "scaling", "test=scaling")
    uri = write_model(world.cluster.models, "slow", SLOW)
    variant = {"profiles": [PROFILE]}
    world.apply(model(namespace, "slow", uri, variant=variant, pools={"matchLabels": {"test": "scaling"}}, **spec))
    try:
        yield
    finally:
        world.kubectl("delete", "sm", "slow", "-n", namespace, "--wait=false", check=False)
        world.kubectl("delete", "ap", "scaling", "--wait=false")
        until(lambda: world.get("ap", "scaling") is None, "the pool gone", SECONDS)


def ready_replicas(world: World, namespace: str) -> int:
    return int((world.model(namespace, "slow").get("status") or {}).get("readyReplicas", 0))


def servers(world: World) -> Object:
    found: Object = ((world.get("ap", "scaling") or {}).get("status") or {}).get("servers", {})
    return found


def demand(world: World, namespace: str) -> Object:
    found: Object = (world.model(namespace, "slow").get("status") or {}).get("demand") or {}
    return found


@pytest.mark.timeout(600)
def test_replicas_come_with_the_demand_and_go_after_it(world: World) -> None:
    with world.namespace() as namespace, scaled(world, namespace):
        world.ready(namespace, "slow")
        with Askers(world, namespace, "slow", clients=12, rate=5) as askers:
            askers.begun()
            until(lambda: ready_replicas(world, namespace) == 2, "two replicas", SECONDS)
            said = until(lambda: demand(world, namespace), "a demand in the status", 30)
            assert said["unit"] == "requests"
            assert said["forecast"] > 0.7 * PROFILE["requestsPerSecond"], said
            assert servers(world)["desired"] == 2
        # Minutes make a forecast: the one in which the load ended, and one without it, must be over.
        until(lambda: ready_replicas(world, namespace) == 1, "one replica again", 3 * SECONDS)
        until(lambda: servers(world) == {"desired": 1, "ready": 1}, "the second server gone", SECONDS)
        assert askers.answered > 100
        assert askers.failed == []


def test_a_fixed_number_of_replicas_overrules_the_demand(world: World) -> None:
    with world.namespace() as namespace, scaled(world, namespace, replicas=1):
        world.ready(namespace, "slow")
        with Askers(world, namespace, "slow", clients=12, rate=5):
            said = until(lambda: demand(world, namespace).get("message"), "a reason", 40)
            assert said == "1 replica: spec.replicas says so"
            assert ready_replicas(world, namespace) == 1
