"""Triton's metrics page: what is read of it, and what is passed over."""

import aiohttp
import numpy as np
import pytest
import tritonclient.grpc.aio as grpcclient
from hypothesis import given
from hypothesis import strategies as st

from ergon.triton import ServerUnavailable, TritonServer
from ergon.triton.metrics import MetricsPage, ModelMetrics, gpu_memory_used_bytes, model_metrics
from tests.triton.server import Server

PAGE = """\
# HELP nv_inference_pending_request_count Instantaneous number of pending requests awaiting execution per-model.
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="a.one",version="1"} 3
nv_inference_pending_request_count{model="a.one",version="2"} 1
nv_inference_pending_request_count{model="a.two",version="1"} 0
nv_inference_request_summary_us_count{model="a.one",version="1"} 12
nv_inference_request_summary_us_sum{model="a.one",version="1"} 9000
nv_inference_request_summary_us{model="a.one",version="1",quantile="0.5"} 1000
nv_inference_request_summary_us{model="a.one",version="1",quantile="0.95"} 2500
nv_inference_request_summary_us{model="a.one",version="2",quantile="0.95"} 4000.5
nv_inference_request_summary_us{model="a.two",version="1",quantile="0.95"} Nan
nv_gpu_power_usage{gpu_uuid="GPU-1"} 71.5
"""


def test_waiting_requests_and_latencies_are_read_by_model() -> None:
    found = model_metrics(PAGE)
    assert found["a.one"] == ModelMetrics(4, {0.5: 0.001, 0.95: 0.0040005})
    assert found["a.two"] == ModelMetrics(0, {})
    assert found.keys() == {"a.one", "a.two"}


@pytest.mark.parametrize(("percentile", "latency"), [(50, 0.001), (51, 0.0040005), (95, 0.0040005), (96, None)])
def test_a_percentile_that_is_not_there_is_the_next_above(percentile: float, latency: float | None) -> None:
    assert model_metrics(PAGE)["a.one"].latency_at(percentile) == latency


@pytest.mark.parametrize(
    "line",
    [
        'nv_inference_pending_request_count{model="m",version="1"} -3',
        'nv_inference_pending_request_count{model="m",version="1"} 1e300',
        'nv_inference_pending_request_count{model="m",version="1"} ',
        'nv_inference_pending_request_count{model="m",vers',
        'nv_inference_pending_request_count{version="1"} 3',
        'nv_inference_request_summary_us{model="m",quantile="7"} 3',
        'nv_inference_request_summary_us{model="m",quantile="x"} 3',
        'nv_inference_request_summary_us{model="m",quantile="0.95"} x',
    ],
)
def test_what_cannot_be_is_passed_over(line: str) -> None:
    assert model_metrics(line + "\n") == {}


@pytest.mark.parametrize(
    ("lines", "used"),
    [
        (['nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1073741824'], 1 << 30),
        (['nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 5e8', 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-2"} 7e8'], 1_200_000_000),
        (['nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 5e8', 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-2"} Nan'], None),
        (['nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 5e8'], None),
        (["nv_cpu_memory_used_bytes 4500000000"], None),
        ([], None),
    ],
)
def test_memory_in_use_is_that_of_all_gpus_or_unknown(lines: list[str], used: int | None) -> None:
    assert gpu_memory_used_bytes("\n".join([PAGE, *lines, ""])) == used


@given(st.integers(0, len(PAGE)))
def test_half_a_page_is_half_the_truth_and_no_lie(length: int) -> None:
    whole, half = model_metrics(PAGE), model_metrics(PAGE[:length].rpartition("\n")[0] + "\n")
    for name, metrics in half.items():
        assert (metrics.pending or 0) <= (whole[name].pending or 0)
        assert metrics.latency_seconds.keys() <= whole[name].latency_seconds.keys()


@pytest.mark.cluster
async def test_a_real_server_says_how_long_requests_take(server: Server, triton: TritonServer) -> None:
    server.add("metered")
    await triton.load("metered", server.config("metered"), 30)
    client = grpcclient.InferenceServerClient(server.address)
    tensor = grpcclient.InferInput("X", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
    for _ in range(20):
        await client.infer("metered", [tensor])
    await client.close()
    async with aiohttp.ClientSession(trust_env=False) as session:
        found = model_metrics(await MetricsPage(session, server.metrics_url).read())["metered"]
        with pytest.raises(ServerUnavailable, match="does not answer"):
            await MetricsPage(session, "http://127.0.0.1:1/metrics").read()
    assert found.pending == 0
    latency = found.latency_at(95)
    assert latency is not None
    assert 0 < latency < 10
