"""`ergon profile`: how it measures, by virtual time on servers whose speed is known; what it prints."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ergon.api.model import Profile
from ergon.api.quantities import duration_seconds
from ergon.cli.main import app
from ergon.cli.profile_flow import CannotProfile, Request, Target, _yaml, duration, find_target, remarks
from ergon.cli.profile_sweep import (
    Effort,
    Step,
    brings_nothing,
    half_interval,
    in_flight_steps,
    measure,
    percentile,
    worth_pasting,
)
from ergon.fleet.types import ModelKey, ServerKey
from ergon.kube.client import KubeClient
from ergon.triton.errors import CallFailed
from ergon.triton.inference import Input, ModelMetadata, example_request
from tests.kube import server as api

EFFORT = Effort(window_seconds=2.0, warm_seconds=1.0)


def step(in_flight: int, rate: float, **changes: object) -> Step:
    values = {"latency_seconds": in_flight / rate, "uncertainty": 0.01, "windows": 3, "requests": 1000, "failed": 0}
    values |= {"problem": "", "client_share": 0.1, **changes}
    return Step(in_flight=in_flight, requests_per_second=rate, **values)  # type: ignore[arg-type]


class Server:
    """Answers `slots` requests at a time, each in `seconds`."""

    def __init__(self, seconds: float, slots: int = 1, fails_every: int = 0) -> None:
        self._seconds, self._free, self._fails_every, self._asked = seconds, asyncio.Semaphore(slots), fails_every, 0

    async def ask(self) -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        self._asked += 1
        if self._fails_every and self._asked % self._fails_every == 0:
            raise CallFailed("it says no")
        async with self._free:
            await asyncio.sleep(self._seconds)
        return clock() - began


@pytest.mark.looptime
@pytest.mark.parametrize(("in_flight", "slots"), [(1, 1), (4, 1), (4, 4), (8, 2)])
async def test_throughput_and_latency_are_those_of_the_server(in_flight: int, slots: int) -> None:
    found = await measure(Server(0.02, slots).ask, in_flight, 95, EFFORT)
    served = min(in_flight, slots)
    assert found.requests_per_second == pytest.approx(served / 0.02, rel=0.02)
    assert found.latency_seconds == pytest.approx(0.02 * in_flight / served, rel=0.02)
    assert found.windows == 3
    assert found.uncertainty < 0.03
    assert not found.broken


@pytest.mark.looptime
async def test_a_slow_model_is_given_longer_windows() -> None:
    found = await measure(Server(3.0).ask, 1, 50, EFFORT)
    assert found.requests_per_second == pytest.approx(1 / 3, rel=0.2)
    assert found.requests >= 30


@pytest.mark.looptime
async def test_failures_end_a_step_and_are_told() -> None:
    found = await measure(Server(0.02, fails_every=3).ask, 2, 95, EFFORT)
    assert found.broken
    assert found.problem == "it says no"


@pytest.mark.looptime
async def test_nothing_is_asked_after_the_measurement() -> None:
    before = len(asyncio.all_tasks())
    await measure(Server(0.02).ask, 16, 95, EFFORT)
    assert len(asyncio.all_tasks()) == before


def test_steps_double_up_to_the_most() -> None:
    assert list(in_flight_steps(20)) == [1, 2, 4, 8, 16, 20]
    assert list(in_flight_steps(1)) == [1]


def test_a_sweep_ends_after_two_steps_that_bring_nothing() -> None:
    rates = [100, 180, 300, 301, 299]
    steps = [step(2**n, rate) for n, rate in enumerate(rates)]
    assert [brings_nothing(steps[: n + 1]) for n in range(5)] == [False, False, False, False, True]
    assert [point.in_flight for point in worth_pasting(steps)] == [1, 2, 4]


def test_a_step_that_broke_is_not_pasted() -> None:
    assert [point.in_flight for point in worth_pasting([step(1, 100), step(2, 190, failed=500)])] == [1]


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=30), st.floats(0.1, 1000))
def test_uncertainty_knows_no_unit(values: list[float], scale: float) -> None:
    assert half_interval([value * scale for value in values]) == pytest.approx(half_interval(values), rel=1e-6, abs=1e-9)


def test_the_interval_is_student_s() -> None:
    assert half_interval([9.0, 10.0, 11.0]) == pytest.approx(4.30 * 1 / math.sqrt(3) / 10)
    assert half_interval([10.0]) == math.inf


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=50), st.integers(1, 99))
def test_a_percentile_is_a_value_that_so_many_are_at_or_below(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= percent / 100 * len(values)
    assert sum(value < found for value in values) < percent / 100 * len(values) or found == min(values)


@given(st.floats(1e-5, 9e3))
def test_durations_are_those_the_api_reads(seconds: float) -> None:
    assert duration_seconds(duration(seconds)) == pytest.approx(seconds, rel=1e-3)


def test_a_made_up_request_fits_the_inputs() -> None:
    inputs = (
        Input("TEXT", "BYTES", (-1, 1)),
        Input("MASK", "BOOL", (2,)),
        Input("X", "FP32", (-1, 3)),
        Input("ID", "INT64", (1,)),
    )
    tensors = {t["name"]: t for t in json.loads(example_request(ModelMetadata("python", inputs)))["inputs"]}
    assert tensors["TEXT"]["shape"] == [1, 1]
    assert isinstance(tensors["TEXT"]["data"][0], str)
    assert tensors["MASK"]["data"] == [True, True]
    assert tensors["X"]["data"] == [0.5, 0.5, 0.5]
    assert tensors["ID"]["data"] == [1]


def target(**changes: object) -> Target:
    values = {"product": "", "neighbours": ()}
    return Target(
        ModelKey("finance", "invoices"),
        "http://x",
        ServerKey("xeon", 0),
        "int8",
        "cpu",
        percentile=95,
        **{**values, **changes},  # type: ignore[arg-type]
    )


def request(**changes: object) -> Request:
    values = {"tokens": 0.0, "watts": 0.0, "request_path": None, "as_json": False, "context": None}
    return Request(model="finance/invoices", url="", server="", most=64, window_seconds=2.0, **{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of", "asked", "fields"),
    [
        ({}, {}, {"accelerator": "cpu", "requestsPerSecond": 123.5}),
        ({"product": "XEON-8480"}, {"watts": 210.0}, {"product": "XEON-8480", "requestsPerSecond": 123.5, "watts": 210}),
        ({}, {"tokens": 40.0}, {"accelerator": "cpu", "tokensPerSecond": 4938}),
    ],
)
def test_what_is_printed_can_be_pasted(of: dict[str, object], asked: dict[str, object], fields: dict[str, object]) -> None:
    text = "\n".join(_yaml(target(**of), [step(8, 123.456)], request(**asked), made_up=True))
    (entry,) = yaml.safe_load(text)["profiles"]
    assert entry == {"batch": 8, "latency": "64.8ms", **fields}
    Profile.model_validate(entry)
    assert "±1.0% over 3 windows" in text


def test_remarks_say_what_the_figures_are_worth() -> None:
    busy = target(neighbours=("a/one", "b/two"))
    said = " / ".join(remarks(busy, [step(1, 10, client_share=0.9), step(2, 20, failed=3, problem="it says no")], made_up=True))
    for part in (
        "a/one, b/two are on xeon-0 too",
        "--request FILE",
        "took a whole core",
        "3 of 1003 requests failed: it says no",
    ):
        assert part in said
    assert list(remarks(target(), [step(1, 10)], made_up=False)) == []


def a_cluster(*endpoints: tuple[str, str], forbidden: tuple[str, ...] = (), classes: tuple[str, ...] = ("gpu",)) -> Any:
    """An API server that holds finance/invoices on l4-0 beside ops/other, and these endpoints (pod, address)."""
    placements = [{"pool": "l4", "server": 0, "variant": "fp16", "state": "Ready"}]
    status = {"placements": placements}
    model = {
        "metadata": {"namespace": "finance", "name": "invoices"},
        "spec": {"variants": [{"name": "fp16", "accelerators": list(classes)}]},
        "status": status,
    }
    other = {"metadata": {"namespace": "ops", "name": "other"}, "status": status}
    slices = [{"endpoints": [{"targetRef": {"name": pod}, "addresses": [address]} for pod, address in endpoints]}]
    pool = {"spec": {"accelerator": {"class": "gpu", "product": "NVIDIA-L4"}}}
    answers = {
        "/namespaces/finance/specializedmodels/invoices": model,
        "/namespaces/finance/specializedmodels": {"metadata": {}, "items": [model]},
        "/specializedmodels": {"metadata": {}, "items": [model, other]},
        "/endpointslices": {"metadata": {}, "items": slices},
        "/acceleratorpools/l4": pool,
    }

    def answer(request: api.Request) -> api.Answer:
        path = request.path.replace("/apis/ergon.dev/v1alpha1", "")
        found = next(body for end, body in answers.items() if path.endswith(end))
        return api.status(403, "no")(request) if path in forbidden else api.say(200, found)(request)

    return answer


async def found_target(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Target:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    async with api.serving(answer) as script, KubeClient(script.configuration()) as client:
        return await find_target(client, ModelKey("finance", "invoices"), request())


@pytest.mark.parametrize(
    ("endpoints", "url"),
    [
        ([("ergon-big-l4-0", "10.0.0.7"), ("ergon-l4-0", "10.0.0.8")], "http://10.0.0.8:8000"),
        ([("ergon-l4-0", "fd00::8")], "http://[fd00::8]:8000"),
    ],
)
async def test_the_server_that_is_asked_is_the_model_s_own(
    endpoints: list[tuple[str, str]], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await found_target(monkeypatch, a_cluster(*endpoints))).url == url


async def test_a_server_of_a_like_name_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotProfile, match="l4-0 is in no EndpointSlice"):
        await found_target(monkeypatch, a_cluster(("ergon-big-l4-0", "10.0.0.7")))


HERE = ("ergon-l4-0", "10.0.0.8")


async def test_who_may_read_all_is_told_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await found_target(monkeypatch, a_cluster(HERE))
    assert (found.accelerator, found.product, found.neighbours, found.unknown) == ("gpu", "NVIDIA-L4", ("ops/other",), ())


@pytest.mark.parametrize(
    ("classes", "told"), [(("gpu",), "its product is not known"), (("gpu", "cpu"), "whether it is gpu or cpu")]
)
async def test_who_may_read_one_namespace_alone_measures_and_is_told_what_is_not_known(
    classes: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await found_target(
        monkeypatch, a_cluster(HERE, forbidden=("/acceleratorpools/l4", "/specializedmodels"), classes=classes)
    )
    assert (found.accelerator, found.product, found.neighbours) == ("gpu", "", ())
    pool, models = remarks(found, [step(1, 10)], made_up=False)
    assert told in pool
    assert models == "you may read models of finance only: whether others are on l4-0 is not known"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a/b/c"], "'a/b/c' names no model: write namespace/name"),
        (["ok", "--request", "missing.json"], "--request missing.json cannot be used: "),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = CliRunner().invoke(app, ["profile", *arguments])
    assert done.exit_code == 1
    assert f"ergon: {told}" in done.output
    assert "Traceback" not in done.output
