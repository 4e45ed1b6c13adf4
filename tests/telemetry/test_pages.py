"""One reader for all pages that come over HTTP: whole however they are sent, and never more or longer than allowed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from ergon.demand.cascade import RouteCounters
from ergon.fleet.types import ModelKey
from ergon.pages import PageError, PageTooLarge, read_page
from ergon.telemetry.gateway_page import GatewayPages
from ergon.telemetry.power_sources import read_triton_page
from ergon.triton.metrics import MetricsPage, model_metrics

PIECES = 200
MARK = "# TYPE ergon_gateway_requests_total counter\n"
LAST = (
    'nv_inference_pending_request_count{model="a.last",version="1"} 3\n'
    'nv_energy_consumption{gpu_uuid="GPU-1"} 71.5\n'
    'ergon_gateway_requests_total{namespace="t",route="r",model="m",outcome="answered"} 7\n'
)
"""What each reader looks for, at the very end of a page."""


async def in_pieces(request: web.Request) -> web.StreamResponse:
    """A page of 200 pieces, each sent on its own; what is looked for comes last."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(MARK.encode())
    for number in range(PIECES):
        await answer.write(f"filler {number} {'x' * 4000}\n".encode())
        await asyncio.sleep(0)
    await answer.write(LAST.encode())
    return answer


async def half(request: web.Request) -> web.StreamResponse:
    """A page that never ends."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b"the first half")
    await asyncio.sleep(60)
    return answer


async def elsewhere(request: web.Request) -> web.StreamResponse:
    """A page that is somewhere else."""
    raise web.HTTPFound("/metrics")


Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves a page at /metrics; the port."""
    runners = []

    async def start(page: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> int:
        app = web.Application()
        app.router.add_get("/metrics", page)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """One that does not look at the environment's proxies."""
    async with aiohttp.ClientSession(trust_env=False) as made:
        yield made


async def test_every_reader_reads_a_page_of_many_pieces_to_its_end(serve: Serve, session: aiohttp.ClientSession) -> None:
    port = await serve(in_pieces)
    page = await MetricsPage(session, f"http://127.0.0.1:{port}/metrics").read()
    assert len(page) > PIECES * 4000
    assert model_metrics(page)["a.last"].pending == 3
    told = await GatewayPages(session, port=port).read("127.0.0.1")
    assert told is not None
    assert told.routes == {ModelKey("t", "r"): RouteCounters(requests=7.0)}
    assert read_triton_page(page).joules == {"GPU-1": 71.5}


async def test_a_page_is_read_up_to_its_limit_and_no_further(serve: Serve, session: aiohttp.ClientSession) -> None:
    url = f"http://127.0.0.1:{await serve(in_pieces)}/metrics"
    status, body = await read_page(session, url, limit_bytes=2 << 20, seconds=10)
    assert status == 200
    assert (await read_page(session, url, limit_bytes=len(body), seconds=10))[1] == body
    with pytest.raises(PageTooLarge, match=r"larger than [\d,]+ bytes"):
        await read_page(session, url, limit_bytes=len(body) - 1, seconds=10)


async def test_a_page_that_hangs_is_waited_for_no_longer_than_allowed(serve: Serve, session: aiohttp.ClientSession) -> None:
    url = f"http://127.0.0.1:{await serve(half)}/metrics"
    async with asyncio.timeout(5):
        with pytest.raises(PageError, match=r"no answer within 0\.2 s"):
            await read_page(session, url, limit_bytes=1000, seconds=0.2)


async def test_nobody_there_and_redirects(serve: Serve, session: aiohttp.ClientSession) -> None:
    with pytest.raises(PageError, match="Cannot connect"):
        await read_page(session, "http://127.0.0.1:1/metrics", limit_bytes=1000, seconds=5)
    url = f"http://127.0.0.1:{await serve(elsewhere)}/metrics"
    assert (await read_page(session, url, limit_bytes=1000, seconds=5))[0] == 302
