"""Pools that name queries: what a Prometheus answers reaches the ledger, and what it cannot answer is said once."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ergon.engine.cache import Cache
from ergon.engine.energy import POOL_READING, EnergyKeeper
from ergon.engine.servers import Servers
from ergon.engine.sources import SourceReader
from ergon.telemetry.power_sources import PowerSources
from tests.engine.test_planner import put
from tests.engine.world import pool

ANSWERS = {"watts": "340.5", "grams": "212"}


ROUNDS = 3


@pytest.fixture
def rounds() -> asyncio.Event:
    """Set once every query was asked a few times."""
    return asyncio.Event()


@pytest.fixture
async def prometheus(rounds: asyncio.Event) -> AsyncIterator[str]:
    """Something that answers instant queries as Prometheus does."""
    asked = Counter[str]()

    async def query(request: web.Request) -> web.Response:
        asked[request.query["query"]] += 1
        if len(asked) == 3 and min(asked.values()) > ROUNDS:
            rounds.set()
        value = ANSWERS.get(request.query["query"])
        result = [] if value is None else [{"metric": {}, "value": [2e9, value]}]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    app = web.Application()
    app.router.add_get("/api/v1/query", query)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def test_queries_reach_the_ledger_and_what_is_not_known_is_said_once(
    prometheus: str, rounds: asyncio.Event, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ergon.engine.sources.TICK_SECONDS", 0.01)
    cache = Cache()
    metered = {"source": "Prometheus", "prometheus": {"query": "watts"}}
    put(cache, pool("good", power=metered, carbon={"prometheus": {"query": "grams"}}), "p1")
    put(cache, pool("bad", power={"source": "Prometheus", "prometheus": {"query": "nothing"}}), "p2")
    put(cache, pool("plain"), "p3")
    servers = Servers(cache, lambda *_: pytest.fail("no server is connected to"), lambda _: ())
    energy = EnergyKeeper(cache, servers, lambda: 0.0, lambda: 0.0)
    sources = PowerSources(prometheus)
    with caplog.at_level(logging.WARNING, "ergon.energy"):
        reading = asyncio.create_task(SourceReader(cache, energy, sources).run())
        await asyncio.wait_for(rounds.wait(), 20)
        reading.cancel()
    await sources.close()
    assert energy.pool_readings["good"].watts == {POOL_READING: 340.5}
    assert energy.pool_readings["bad"].watts == {}
    assert energy.intensity == {"good": 212.0}
    (said,) = [record.getMessage() for record in caplog.records]
    assert "the power of pool bad is not known" in said
    assert "gave no series" in said


async def test_what_a_query_said_is_gone_with_the_query(prometheus: str) -> None:
    cache = Cache()
    servers = Servers(cache, lambda *_: pytest.fail("no server is connected to"), lambda _: ())
    energy = EnergyKeeper(cache, servers, lambda: 0.0, lambda: 0.0)
    sources = PowerSources(prometheus)
    reader, known = SourceReader(cache, energy, sources), []
    for generation, query in enumerate(("grams", None, "grams", "nothing"), 1):
        carbon = {"gramsPerKilowattHour": 30} if query is None else {"prometheus": {"query": query}}
        put(cache, pool(carbon=carbon), "p1", generation)
        await reader.look()
        known.append(dict(energy.intensity))
    await sources.close()
    assert known == [{"cpu": 212.0}, {}, {"cpu": 212.0}, {}]
