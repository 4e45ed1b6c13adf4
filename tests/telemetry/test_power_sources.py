"""Power sources over real HTTP: recorded pages, half pages, lies, silence."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from ergon.energy.meters import Reading
from ergon.telemetry import queries
from ergon.telemetry.power_sources import PowerSources, SourceError, read_triton_page

UUID_A, UUID_B = "GPU-1f4c7a2e-0000-4000-8000-00000000000a", "GPU-1f4c7a2e-0000-4000-8000-00000000000b"
# As Triton prints them; the model's lines stand for the thousands between.
PAGE = f"""\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="finance.invoice-ner",version="1"}} 183
# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{{gpu_uuid="{UUID_A}"}} 0.31
# HELP nv_gpu_power_limit GPU power management limit in watts
# TYPE nv_gpu_power_limit gauge
nv_gpu_power_limit{{gpu_uuid="{UUID_A}"}} 72
nv_gpu_power_limit{{gpu_uuid="{UUID_B}"}} 72
# HELP nv_gpu_power_usage GPU power usage in watts
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{{gpu_uuid="{UUID_A}"}} 33.562
nv_gpu_power_usage{{gpu_uuid="{UUID_B}"}} 16.4
# HELP nv_energy_consumption GPU energy consumption in joules since the Triton Server started
# TYPE nv_energy_consumption counter
nv_energy_consumption{{gpu_uuid="{UUID_A}"}} 18447.902
nv_energy_consumption{{gpu_uuid="{UUID_B}"}} 1.2e3
"""


@dataclass
class Site:
    """A server of one answer at a time."""

    address: str = ""
    status: int = 200
    body: str = ""
    wait: asyncio.Event | None = None
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(str(request.rel_url.query.get("query", request.path)))
        if self.wait is not None:
            await self.wait.wait()
        elsewhere = {"Location": "http://127.0.0.1:1/"} if self.status == 302 else {}
        return web.Response(status=self.status, text=self.body, headers=elsewhere)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    of = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", of.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    of.address = f"{host}:{port}"
    yield of
    if of.wait is not None:
        of.wait.set()
    await runner.cleanup()


@pytest.fixture
async def sources(site: Site) -> AsyncIterator[PowerSources]:
    of = PowerSources(f"http://{site.address}", seconds=0.5)
    yield of
    await of.close()


def test_triton_tells_joules_watts_and_limits_by_accelerator() -> None:
    assert read_triton_page(PAGE) == Reading(
        joules={UUID_A: 18447.902, UUID_B: 1200.0},
        watts={UUID_A: 33.562, UUID_B: 16.4},
        limit_watts={UUID_A: 72.0, UUID_B: 72.0},
    )


@pytest.mark.parametrize("length", range(0, len(PAGE), 7))
def test_half_a_page_gives_the_figures_it_holds_and_no_half_figure(length: int) -> None:
    whole, half = read_triton_page(PAGE), read_triton_page(PAGE[:length])
    for name in ("joules", "watts", "limit_watts"):
        assert getattr(half, name).items() <= getattr(whole, name).items()


@pytest.mark.parametrize("value", ["-1", "NaN", "+Inf", "-Inf", "many", "", "0x10"])
def test_what_is_no_figure_is_left_out_and_the_rest_is_read(value: str) -> None:
    page = PAGE.replace("33.562", value)
    assert read_triton_page(page).watts == {UUID_B: 16.4}


def test_a_build_for_cpu_tells_nothing() -> None:
    lines = [line for line in PAGE.splitlines(keepends=True) if "gpu_uuid" not in line]
    assert read_triton_page("".join(lines) + 'nv_energy_consumption{other="x"} 5\n') == Reading()


async def test_a_source_that_is_silent_or_gone(site: Site, sources: PowerSources) -> None:
    site.wait = asyncio.Event()
    with pytest.raises(SourceError, match=r"no answer within 0\.5 s"):
        await sources.prometheus("up")
    gone = PowerSources("http://127.0.0.1:1")
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:1"):
        await gone.prometheus("up")
    await gone.close()


async def test_an_answer_without_end_is_not_read(site: Site, sources: PowerSources) -> None:
    site.body = "x" * (2 << 20)
    with pytest.raises(SourceError, match="larger than 1 MiB"):
        await sources.prometheus("up")


def vector(*values: str, at: float = 1000.0) -> str:
    result = [{"metric": {"gpu": str(number)}, "value": [at, value]} for number, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (vector("172.25"), 172.25),
        (vector("0"), 0.0),
        (json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1000, "5e2"]}}), 500.0),
    ],
)
async def test_prometheus_gives_one_number(site: Site, sources: PowerSources, body: str, expected: float) -> None:
    site.body = body
    query = queries.dcgm_watts(Hostname="node-1")
    assert await sources.prometheus(query, now_seconds=1010.0) == expected
    assert site.asked == [query]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, vector(), "gave no series; is the exporter scraped"),
        (200, vector("1", "2", "3"), r"gave 3 series; put sum\(\.\.\.\) around it"),
        (200, vector("NaN"), "gave NaN"),
        (200, vector("+Inf"), r"gave \+Inf"),
        (200, vector("-3"), "gave -3, which is negative"),
        (200, vector("lots"), "gave 'lots', which is no number"),
        (200, vector("5", at=100.0), "its sample is 910 s old"),
        (200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}}), "gave a matrix result"),
        (200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": [{}]}}), "a series without a value"),
        (400, json.dumps({"status": "error", "error": "parse error at char 4"}), "parse error at char 4"),
        (200, "<html>", "answered 200 with something that is not Prometheus's"),
        (200, "[]", "not Prometheus's"),
        (503, "", "answered 503"),
    ],
)
async def test_an_answer_that_is_no_number_says_why(
    site: Site, sources: PowerSources, status: int, body: str, message: str
) -> None:
    site.status, site.body = status, body
    with pytest.raises(SourceError, match=f"^sum\\(x\\): .*{message}"):
        await sources.prometheus("sum(x)", now_seconds=1010.0)


async def test_without_a_prometheus_it_is_said_what_is_missing() -> None:
    alone = PowerSources()
    with pytest.raises(SourceError, match="no Prometheus is configured"):
        await alone.prometheus("up")
    await alone.close()


async def test_proxies_of_the_environment_are_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    direct = PowerSources(f"http://{site.address}")
    site.body = vector("1")
    assert await direct.prometheus("up") == 1
    await direct.close()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            queries.dcgm_watts(Hostname="node-1"),
            'sum(max by (UUID) (rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{Hostname="node-1"}[1m]))) / 1000',
        ),
        (queries.dcgm_gauge_watts(), "sum(max by (UUID) (DCGM_FI_DEV_POWER_USAGE))"),
        (
            queries.kepler_old_watts("5m", instance="n1"),
            'sum(rate(kepler_node_package_joules_total{instance="n1"}[5m]))'
            ' + sum(rate(kepler_node_dram_joules_total{instance="n1"}[5m]))',
        ),
        (
            queries.kepler_watts(node_name='a"b'),
            'sum(rate(kepler_node_cpu_joules_total{zone=~"package|dram",node_name="a\\"b"}[2m]))',
        ),
        (queries.kepler_gpu_watts(), "sum(rate(kepler_node_gpu_joules_total[2m]))"),
    ],
)
def test_queries_to_copy(query: str, text: str) -> None:
    assert query == text


def test_a_query_with_a_label_or_span_that_is_none() -> None:
    with pytest.raises(ValueError, match="no label name"):
        queries.dcgm_watts(**{"a b": "c"})
    with pytest.raises(ValueError, match="no time span"):
        queries.kepler_watts("often")
