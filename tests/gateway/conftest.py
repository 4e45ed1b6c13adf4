"""The engine's world with a gateway in it, and a process that asks inside the cluster's network."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.engine.conftest import bare_world, running, world
from tests.engine.world import World
from tests.gateway.world import Gateway, Inside

__all__ = ["bare_world", "running", "world"]

_PORTS = itertools.count(21000, 10)


@pytest.fixture(scope="package")
def inside(bare_world: World) -> Iterator[Inside]:
    """Who asks."""
    process = Inside(bare_world)
    yield process
    process.close()


@pytest.fixture
def gateways(world: World, inside: Inside, request: pytest.FixtureRequest) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways, which end with the test; their logs are shown where it fails."""
    started: list[Gateway] = []

    def start(*arguments: str) -> Gateway:
        started.append(Gateway(world, inside, next(_PORTS), arguments))
        return started[-1]

    yield start
    for gateway in started:
        request.node.add_report_section("call", f"gateway {gateway.number}", gateway.log[-6000:])
        if gateway.process.poll() is None:
            gateway.stop()


@pytest.fixture
def gateway(gateways: Callable[..., Gateway]) -> Gateway:
    """A gateway that is ready."""
    return gateways()
