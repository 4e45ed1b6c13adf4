"""A gateway's page as the plan takes it."""

import logging
import time

import aiohttp
import pytest
from aiohttp import web

from ergon.demand.cascade import RouteCounters
from ergon.fleet.types import ModelKey
from ergon.telemetry.gateway_page import BESIDE_BYTES, GatewayPages, Told, read_gateway_page

PAGE = """
# TYPE ergon_gateway_requests_total counter
ergon_gateway_requests_total{namespace="t",route="r",model="small",outcome="answered"} 80
ergon_gateway_requests_total{namespace="t",route="r",model="big",outcome="answered"} 19
ergon_gateway_requests_total{namespace="t",route="r",model="",outcome="expired"} 1
ergon_gateway_requests_total{namespace="t",route="r",model="",outcome="refused"} 7
# TYPE ergon_gateway_asked_total counter
ergon_gateway_asked_total{namespace="t",route="r",model="small"} 100
ergon_gateway_asked_total{namespace="t",route="r",model="big"} 20
# TYPE ergon_gateway_escalations_total counter
ergon_gateway_escalations_total{namespace="t",route="r",model="small",to="big",reason="Output"} 15
ergon_gateway_escalations_total{namespace="t",route="r",model="small",to="big",reason="Failed"} 5
# TYPE ergon_gateway_wished_escalations_total counter
ergon_gateway_wished_escalations_total{namespace="t",route="r"} 30
# TYPE ergon_gateway_joules_total counter
ergon_gateway_joules_total{namespace="t",route="r"} 812.5
# TYPE ergon_gateway_sample_quality gauge
ergon_gateway_sample_quality{namespace="t",route="r",rate="0"} 0.8
ergon_gateway_sample_quality{namespace="t",route="r",rate="0.05"} 0.85
ergon_gateway_sample_quality{namespace="t",route="r",rate="1"} NaN
ergon_gateway_sample_quality{namespace="t",route="r",rate="many"} 0.9
# TYPE ergon_gateway_held_requests gauge
ergon_gateway_held_requests{namespace="t",model="small"} 3
# TYPE ergon_gateway_first_answer_seconds histogram
ergon_gateway_first_answer_seconds_bucket{namespace="t",model="small",le="0.25"} 1
ergon_gateway_first_answer_seconds_count{namespace="t",model="small"} 2
ergon_gateway_first_answer_seconds_sum{namespace="t",model="small"} 0.75
# TYPE process_open_fds gauge
process_open_fds 12
"""


def test_what_it_says_of_a_route() -> None:
    page = read_gateway_page(PAGE)
    route = ModelKey("t", "r")
    assert page.routes == {route: RouteCounters(100.0, {"small": 100.0, "big": 20.0}, 20.0, 30.0, 812.5)}
    assert page.samples == {route: {0.0: 0.8, 0.05: 0.85}}
    assert page.first_answers == {ModelKey("t", "small"): Told(2.0, 0.75)}


def test_an_empty_page_says_nothing() -> None:
    assert read_gateway_page("").routes == {}


def test_what_is_no_page_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        read_gateway_page("<html>{}</html>")


def large(routes: int) -> str:
    """A page of so many routes, with the histograms that make up most of it."""
    lines = ["# TYPE ergon_gateway_requests_total counter"]
    labelled = [f'namespace="t",route="r{n}",model="m"' for n in range(routes)]
    lines += [f'ergon_gateway_requests_total{{{labels},outcome="answered"}} {n}' for n, labels in enumerate(labelled)]
    lines.append("# TYPE ergon_gateway_request_seconds histogram")
    for labels in labelled:
        lines += [f'ergon_gateway_request_seconds_bucket{{{labels},le="{le}"}} 7' for le in range(100)]
    lines += ["# TYPE ergon_gateway_joules_total counter", 'ergon_gateway_joules_total{namespace="t",route="r1"} 3', ""]
    return "\n".join(lines)


def test_a_page_of_many_routes_is_read_in_a_fraction_of_its_interval() -> None:
    text = large(1000)
    assert len(text) > 7_000_000
    began = time.process_time()
    page = read_gateway_page(text)
    assert time.process_time() - began < 0.5
    assert len(page.routes) == 1000
    assert page.routes[ModelKey("t", "r1")] == RouteCounters(requests=1.0, joules=3.0)


async def test_a_page_that_cannot_be_taken_is_told_once_and_again_after_it_could(caplog: pytest.LogCaptureFixture) -> None:
    said = {"text": PAGE}
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=said["text"])

    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    beside = large(100)
    assert len(beside) > BESIDE_BYTES
    async with aiohttp.ClientSession() as session:
        pages = GatewayPages(session, port=runner.addresses[0][1], largest_bytes=8 << 20)
        with caplog.at_level(logging.WARNING):
            for text in (PAGE, "x" * 9_000_000, "x" * 9_000_000, PAGE, "<html></html>", beside):
                said["text"] = text
                page = await pages.read("127.0.0.1")
                assert (page is not None) == ("ergon_gateway" in text)
        assert len(caplog.records) == 2
        assert "larger than 8 MiB" in caplog.messages[0]
        await runner.cleanup()
        assert await pages.read("127.0.0.1") is None  # nobody is there, which is no ground for a warning
        assert len(caplog.records) == 2
