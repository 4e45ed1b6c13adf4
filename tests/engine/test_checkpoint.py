"""What is kept over a restart is never lost to a process that had not read it."""

import asyncio
import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from ergon.engine.cache import Cache
from ergon.engine.checkpoint import Checkpoint
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.engine.servers import Servers
from ergon.kube.client import KubeClient
from ergon.kube.pace import Pace
from tests.kube.server import Answer, Request, Script, hang_up, say, serving, status

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


def held(**parts: object) -> Callable[[Request], Answer]:
    """A checkpoint with these parts."""
    packed = {
        name: base64.b64encode(gzip.compress(part if isinstance(part, bytes) else json.dumps(part).encode())).decode()
        for name, part in parts.items()
    }
    return say(200, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ergon-checkpoint"}, "binaryData": packed})


def energy_of(request: Request) -> dict[str, Any]:
    """What was written of energy."""
    state: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(request.body["binaryData"]["energy"])))
    return state


async def test_nothing_is_written_before_what_was_kept_was_read() -> None:
    async with serving(NOT_FOUND) as script, client_of(script) as client:
        checkpoint = Checkpoint(client, "ergon-system", *keepers())
        await checkpoint.save()
        assert not script.requests
        await checkpoint.restore()
        await checkpoint.save()
        assert len(written(script)) == 1


@pytest.mark.parametrize("trouble", [status(403, "not now"), status(503, "etcd"), hang_up], ids=["forbidden", "outage", "cut"])
async def test_what_cannot_be_read_at_first_is_read_later_and_written_only_then(
    trouble: Callable[[Request], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("READ_SECONDS", 0.2), ("READ_AGAIN_SECONDS", 0.05), ("CHECKPOINT_SECONDS", 0.05)):
        monkeypatch.setattr(f"ergon.engine.checkpoint.{name}", seconds)
    written_once = asyncio.Event()

    def wrote(_: Request) -> Answer:
        written_once.set()
        return None

    kept = {"budgets": {"site": {"energy": {"windows": [[1e9, 3.6e6, 0.0]]}}}}
    async with serving(trouble) as script, client_of(script) as client:
        demand, energy = keepers()
        checkpoint = Checkpoint(client, "ergon-system", demand, energy)
        await checkpoint.restore()
        keeping = asyncio.create_task(checkpoint.keep(lambda: True))
        await asyncio.sleep(0)
        assert not checkpoint.restored
        script.answers[:] = [held(energy=kept)] * (len(script.requests) + 1) + [wrote]
        await asyncio.wait_for(written_once.wait(), 20)
        keeping.cancel()
    first = written(script)[0]
    assert energy_of(first)["budgets"]["site"]["energy"]["windows"] == [[1e9, 3.6e6, 0.0]]


async def test_what_is_none_of_ours_costs_nothing_else() -> None:
    good = {"energy": {"windows": [[1e9, 3.6e6, 0.0]]}}
    state = {
        "ledger": {"wall_seconds": 1e9, "gone_pools": {"device": [5.0, 0.0]}},
        "budgets": {"good": good, "bad": {"way": "sideways"}, "worse": 7},
        "counters": [{"pool": 1}, "x"],
    }
    async with serving(held(energy=state, demand=b"no JSON"), say(200)) as script, client_of(script) as client:
        demand, energy = keepers()
        checkpoint = Checkpoint(client, "ergon-system", demand, energy)
        await checkpoint.restore()
        await checkpoint.save()
    again = energy_of(written(script)[0])
    assert list(again["budgets"]) == ["good"]
    assert again["budgets"]["good"]["energy"]["windows"] == [[1e9, 3.6e6, 0.0]]
    assert energy.ledger.gone_pools.device.joules == 5.0
