"""What is kept over a restart is never lost to a process that had not read it."""

from collections.abc import Callable

import pytest

from ergon.engine.cache import Cache
from ergon.engine.checkpoint import Checkpoint
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.engine.servers import Servers
from ergon.kube.client import KubeClient
from ergon.kube.pace import Pace
from tests.kube.server import Answer, Request, Script, serving, status

FAST = Pace(attempt_seconds=0.5, total_seconds=0.2, first_delay_seconds=0.01, longest_delay_seconds=0.05)


def keepers() -> tuple[DemandKeeper, EnergyKeeper]:
    cache = Cache()
    servers = Servers(cache, lambda *_: pytest.fail("no server is connected to"), lambda _: ())
    demand = DemandKeeper(cache, lambda: 0.0, 0.0, plan_seconds=60, stabilise_seconds=300)
    return demand, EnergyKeeper(cache, servers, lambda: 0.0, lambda: 1e9)


def client_of(script: Script) -> KubeClient:
    return KubeClient(script.configuration(), pace=FAST)


def written(script: Script) -> list[Request]:
    return [request for request in script.requests if request.method == "PATCH"]


NOT_FOUND: Callable[[Request], Answer] = status(404, "no such thing", "NotFound")


async def test_nothing_is_written_before_what_was_kept_was_read() -> None:
    async with serving(NOT_FOUND) as script, client_of(script) as client:
        checkpoint = Checkpoint(client, "ergon-system", *keepers())
        await checkpoint.save()
        assert not script.requests
        await checkpoint.restore()
        await checkpoint.save()
        assert len(written(script)) == 1
