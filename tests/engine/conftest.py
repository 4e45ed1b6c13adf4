"""A world: the cluster with Ergon's kinds, a pool of real servers, and one operator that leads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.world import Cluster, NeverHappened, Operator, World, pool, settle, until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package")
def bare_world(cluster: Cluster) -> Iterator[World]:
    """The cluster with Ergon's kinds and namespace, without an operator."""
    world = World(cluster)
    world.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    world.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    world.kubectl("create", "namespace", "ergon-system", check=False)
    yield world
    for operator in world.operators:
        operator.kill()
    world.reader.close()


@pytest.fixture(scope="package")
def running(bare_world: World) -> Iterator[World]:
    """With a pool and an operator that leads."""
    world = bare_world
    world.apply(pool())
    world.operator().leads()
    until(lambda: world.condition(world.get("ap", "cpu") or {}, "Ready").get("status") == "True", "the pool Ready", 60)
    yield world
    if all(operator.process.poll() is not None for operator in world.operators):
        world.operator().leads()
    world.kubectl("delete", "ap", "--all", "--wait=false", check=False)
    try:
        until(lambda: (world.get("ap") or {"items": []})["items"] == [], "all pools gone", 120)
    except NeverHappened as error:
        alive = next(operator for operator in world.operators if operator.process.poll() is None)
        raise AssertionError(f"{error}: {world.kubectl('get', 'ap,sm,pods', '-A').stdout}\n{alive.log[-3000:]}") from None
    for operator in world.operators:
        operator.kill()
    world.operators.clear()


@pytest.fixture
def world(running: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """A running world with an operator alive; its log is shown where a test fails."""
    settle(running)
    yield running
    for operator in running.operators:
        request.node.add_report_section("call", operator.identity, operator.log[-6000:])


@pytest.fixture
def operator(world: World) -> Operator:
    """The operator that runs."""
    return next(operator for operator in world.operators if operator.process.poll() is None)
