"""What is kept over a restart is never lost to a process that had not read it."""

import asyncio
import base64
import gzip
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from ergon.demand.cascade import Cascades, RouteCounters
from ergon.engine.cache import Cache
from ergon.engine.checkpoint import Checkpoint, Part, parts_of
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.engine.packed import unpacked
from ergon.engine.servers import Servers
from ergon.fleet.types import ModelKey
from ergon.kube.client import KubeClient
from ergon.kube.pace import Pace
from tests.kube.server import Answer, Request, Script, hang_up, say, serving, status

FAST = Pace(attempt_seconds=0.5, total_seconds=0.2, first_delay_seconds=0.01, longest_delay_seconds=0.05)


def keepers() -> tuple[DemandKeeper, EnergyKeeper]:
    cache = Cache()
    servers = Servers(cache, lambda *_: pytest.fail("no server is connected to"), lambda _: ())
    demand = DemandKeeper(cache, lambda: 0.0, 0.0, plan_seconds=60, stabilise_seconds=300)
    return demand, EnergyKeeper(cache, servers, lambda: 0.0, lambda: 1e9)


def all_parts(demand: DemandKeeper, energy: EnergyKeeper) -> tuple[Part, ...]:
    return parts_of(demand, energy, Cascades(), lambda: 1e9)


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
    return unpacked(request.body["binaryData"]["energy"])


async def test_nothing_is_written_before_what_was_kept_was_read() -> None:
    async with serving(NOT_FOUND) as script, client_of(script) as client:
        checkpoint = Checkpoint(client, "ergon-system", all_parts(*keepers()))
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
        checkpoint = Checkpoint(client, "ergon-system", all_parts(demand, energy))
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
        checkpoint = Checkpoint(client, "ergon-system", all_parts(demand, energy))
        await checkpoint.restore()
        await checkpoint.save()
    again = energy_of(written(script)[0])
    assert list(again["budgets"]) == ["good"]
    assert again["budgets"]["good"]["energy"]["windows"] == [[1e9, 3.6e6, 0.0]]
    assert energy.ledger.gone_pools.device.joules == 5.0


async def test_too_much_of_everything_leaves_room_for_each_and_costs_what_is_least_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ergon.engine.checkpoint.LARGEST_CHARACTERS", 20_000)
    chance = random.Random(0)
    demand, energy = keepers()
    models = [ModelKey("team", f"m{number}") for number in range(200)]
    for minute in range(20):
        for number, key in enumerate(models):
            demand.book.forecaster.add(key, minute * 60, minute * 60 + 60, number + chance.random())
        demand.book.forecaster.advance(minute * 60 + 70)
    restored = energy_state(chance)
    energy.restore(restored)
    async with serving(NOT_FOUND, say(200)) as script, client_of(script) as client:
        checkpoint = Checkpoint(client, "ergon-system", all_parts(demand, energy))
        await checkpoint.restore()
        await checkpoint.save()
    kept = written(script)[0].body["binaryData"]
    assert sum(map(len, kept.values())) <= 20_000
    energy_kept, demand_kept = unpacked(kept["energy"]), unpacked(kept["demand"])
    assert energy_kept["budgets"].keys() == restored["budgets"].keys()
    assert energy_kept["ledger"]["gone_pools"]["device"] == [5.0, 0.0]
    busiest = [replica["name"] for replica in energy_kept["counters"]]
    assert busiest == [f"m{number}" for number in range(499, 499 - len(busiest), -1)]
    asked = list(demand_kept["forecasts"])
    assert asked == [str(key) for key in reversed(models)][: len(asked)]
    assert len(busiest) > 20
    assert len(asked) > 20


def energy_state(chance: random.Random) -> dict[str, Any]:
    """Of two budgets and 500 replicas, the last ones busiest."""
    counters = [
        {
            "pool": "cpu",
            "ordinal": 0,
            "namespace": "team",
            "name": f"m{number}",
            "epoch": f"{chance.random()}",
            "at": 1e9,
            "succeeded": number,
            "failed": 0,
            "executions": number,
            "rows": number,
            "batches": [[1, number, number / 10]],
        }
        for number in range(500)
    ]
    used = {"energy": {"windows": [[1e9, 3.6e6, 0.0]]}}
    ledger = {"wall_seconds": 1e9, "gone_pools": {"device": [5.0, 0.0]}}
    return {"ledger": ledger, "budgets": {"site": used, "team": used}, "counters": counters}


async def test_the_loop_goes_on_while_a_large_state_is_written() -> None:
    """As many turns as pieces: none of them holds everything else up."""
    turns, done = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    part = Part("demand", lambda: ({"forecasts": {str(n): {}}} for n in range(50)), lambda _: None, ())
    async with serving(NOT_FOUND, say(200)) as script, client_of(script) as client:
        checkpoint = Checkpoint(client, "ergon-system", [part])
        await checkpoint.restore()
        beside = asyncio.create_task(others())
        await checkpoint.save()
        done.set()
        await beside
    assert turns >= 50
    assert len(unpacked(written(script)[0].body["binaryData"]["demand"])["forecasts"]) == 50


async def test_what_is_known_of_routes_comes_back_as_it_was() -> None:
    route, before, after = ModelKey("team", "languages"), Cascades(), Cascades()
    for number in range(20):
        counted = RouteCounters(10.0 * number, {"small": 10.0 * number, "big": 2.0 * number}, 2.0 * number)
        before.observe(1e9 + 5 * number, {"pod": {route: counted}})
    async with serving(NOT_FOUND) as script, client_of(script) as client:
        checkpoint = Checkpoint(client, "ergon-system", parts_of(*keepers(), before, lambda: 1e9))
        await checkpoint.restore()
        await checkpoint.save()
        text = written(script)[0].body["binaryData"]["routes"]
    parts_of(*keepers(), after, lambda: 1e9)[-1].restore(unpacked(text))
    assert after.figures(route, {}) == before.figures(route, {})
    assert after.figures(route, {}) is not None
