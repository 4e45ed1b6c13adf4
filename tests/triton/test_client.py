"""What the operator relies on when it speaks to a real Triton."""

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable

import pytest

from ergon.triton import (
    ConfigurationInvalid,
    InstanceKind,
    LoadRefused,
    ModelNotServed,
    OutcomeUnknown,
    RepositoryState,
    ServerUnavailable,
    TritonServer,
    WrongKey,
    compose,
)
from ergon.triton.metrics import backend_failures
from tests.triton.server import CONFIG, DOUBLE, KEY, Server, free_ports

pytestmark = pytest.mark.cluster

RAISES = """
class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("no weights here\\nand a second line")

    def execute(self, requests):
        return []
"""
HANGS = """
import threading


class TritonPythonModel:
    def initialize(self, args):
        threading.Event().wait()
"""
TRIPLE = DOUBLE.replace("* 2", "* 3")
FAILS = """
import time


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.1)
        raise ValueError("not today")
"""


async def test_a_model_loads_serves_and_tells_its_revision(server: Server, triton: TritonServer) -> None:
    server.add("t.first")
    assert (await triton.index())["t.first"].state is RepositoryState.ABSENT
    await triton.load("t.first", server.config("t.first", revision="7"), 20)
    state = (await triton.index())["t.first"]
    assert (state.state, state.versions, state.reason) == (RepositoryState.READY, ("1",), "")
    assert (await triton.loaded("t.first")).revision == "7"
    assert (await triton.configuration("t.first"))["max_batch_size"] == 8
    assert await infer(server, "t.first", 21) == 42


async def test_an_ensemble_needs_to_name_neither_backend_nor_platform(server: Server, triton: TritonServer) -> None:
    server.add("t.step")
    await triton.load("t.step", server.config("t.step"), 30)
    names = 'input_map { key: "X" value: "X" } output_map { key: "Y" value: "Y" }'
    step = f'ensemble_scheduling {{ step [{{ model_name: "t.step" model_version: -1 {names} }}] }}'
    tensors = 'input [{ name: "X" data_type: TYPE_FP32 dims: [1] }] output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]'
    text = f"max_batch_size: 8 {tensors} {step}"
    server.add("t.both", config=text)
    config = compose(text, {}, name="t.both", backend="ensemble", revision="1", default_kind=InstanceKind.CPU)
    await triton.load("t.both", config, 30)
    assert (await triton.loaded("t.both")).revision == "1"


async def test_the_server_says_who_it_is(server: Server, triton: TritonServer) -> None:
    assert await triton.live()
    metadata = await triton.server_metadata()
    assert metadata.name == "triton"
    assert "model_repository" in metadata.extensions


async def test_a_new_revision_replaces_the_old_one(server: Server, triton: TritonServer) -> None:
    server.add("t.new")
    await triton.load("t.new", server.config("t.new", revision="1"), 20)
    server.add("t.new", TRIPLE)
    await triton.load("t.new", server.config("t.new", revision="2"), 20)
    assert (await triton.loaded("t.new")).revision == "2"
    assert await infer(server, "t.new", 10) == 30


async def test_files_older_than_the_loaded_ones_are_loaded_too(server: Server, triton: TritonServer) -> None:
    """A source's times say nothing: a rollback brings older files. The revision in the configuration makes them new."""
    server.add("t.older")
    await triton.load("t.older", server.config("t.older", revision="2"), 20)
    server.add("t.older", TRIPLE)
    for file in (server.repository / "t.older").rglob("*"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    await triton.load("t.older", server.config("t.older", revision="1"), 20)
    assert await infer(server, "t.older", 10) == 30


async def test_the_same_load_again_does_nothing(server: Server, triton: TritonServer) -> None:
    server.add("t.same")
    await triton.load("t.same", server.config("t.same"), 20)
    assert await infer(server, "t.same", 1) == 2
    await triton.load("t.same", server.config("t.same"), 20)
    assert (await triton.statistics())["t.same"].success_count == 1


async def test_the_number_of_instances_changes_in_place(server: Server, triton: TritonServer) -> None:
    server.add("t.wider")
    await triton.load("t.wider", server.config("t.wider"), 20)
    assert await infer(server, "t.wider", 1) == 2
    await triton.load("t.wider", server.config("t.wider", instance_group=[{"count": 3, "kind": "KIND_CPU"}]), 20)
    assert (await triton.configuration("t.wider"))["instance_group"][0]["count"] == 3
    assert (await triton.statistics())["t.wider"].success_count == 1


async def test_what_raises_in_initialize_is_refused_with_its_reason(server: Server, triton: TritonServer) -> None:
    server.add("t.raises", RAISES)
    with pytest.raises(LoadRefused) as refused:
        await triton.load("t.raises", server.config("t.raises"), 20)
    assert refused.value.reason == "RuntimeError: no weights here (model.py line 4)"
    state = (await triton.index())["t.raises"]
    assert (state.state, state.reason) == (RepositoryState.UNAVAILABLE, refused.value.reason)


async def test_a_refused_revision_leaves_the_old_one_serving(server: Server, triton: TritonServer) -> None:
    server.add("t.worse")
    await triton.load("t.worse", server.config("t.worse", revision="1"), 20)
    server.add("t.worse", RAISES)
    with pytest.raises(LoadRefused, match="no weights here"):
        await triton.load("t.worse", server.config("t.worse", revision="2"), 20)
    assert (await triton.index())["t.worse"].state is RepositoryState.READY
    assert (await triton.loaded("t.worse")).revision == "1"
    assert await infer(server, "t.worse", 4) == 8


async def test_a_model_that_is_not_there_is_refused(server: Server, triton: TritonServer) -> None:
    with pytest.raises(LoadRefused, match="finds no model directory"):
        await triton.load("t.nowhere", {"name": "t.nowhere", "backend": "python"}, 20)


async def test_a_configuration_that_this_server_cannot_run_is_refused(server: Server, triton: TritonServer) -> None:
    server.add("t.gpu")
    with pytest.raises(LoadRefused, match="no GPUs are available"):
        await triton.load("t.gpu", server.config("t.gpu", instance_group=[{"kind": "KIND_GPU"}]), 20)


async def test_an_override_that_is_not_allowed_reaches_no_server(server: Server) -> None:
    server.add("t.override")
    with pytest.raises(ConfigurationInvalid, match=r"config\.parameters\.EXECUTION_ENV_PATH"):
        server.config("t.override", parameters={"EXECUTION_ENV_PATH": {"string_value": "/tmp/e.tar.gz"}})


async def test_what_is_being_fetched_is_no_model(server: Server, triton: TritonServer) -> None:
    server.add("t.shown")
    for name in (".incoming/t.x-1/1", ".trash/t.y", "t.shown/.ergon-1"):
        (server.repository / name).mkdir(parents=True)
    assert not [name for name in await triton.index() if name.startswith(".")]
    await triton.load("t.shown", server.config("t.shown"), 20)


async def test_the_wrong_key_is_told_from_an_outage(server: Server) -> None:
    stranger = TritonServer(server.address, "guessed")
    for call in (stranger.index(), stranger.load("t.x", {}, 5), stranger.unload("t.x")):
        with pytest.raises(WrongKey) as refused:
            await call
        assert "guessed" not in str(refused.value)
    assert "guessed" not in repr(stranger)
    await stranger.close()


async def test_nobody_there_is_an_outage() -> None:
    nobody = TritonServer(f"127.0.0.1:{free_ports(1)[0]}", KEY)
    assert not await nobody.live()
    with pytest.raises(ServerUnavailable, match="does not answer"):
        await nobody.statistics()
    with pytest.raises(ServerUnavailable):
        await nobody.load("t.x", {}, 5)
    await nobody.close()


async def test_unloading_ends_in_unavailable_and_knows_no_unknown_names(server: Server, triton: TritonServer) -> None:
    server.add("t.leaves")
    await triton.load("t.leaves", server.config("t.leaves"), 20)
    await triton.unload("t.leaves")
    await until(lambda: in_state(triton, "t.leaves", RepositoryState.UNAVAILABLE))
    assert (await triton.index())["t.leaves"].reason == "unloaded"
    with pytest.raises(ModelNotServed):
        await triton.loaded("t.leaves")
    await triton.unload("t.never-seen")


async def test_statistics_count_requests_failures_and_busy_time(server: Server, triton: TritonServer) -> None:
    server.add(
        "t.counts",
        DOUBLE.replace("import", "import time\nimport", 1).replace("        return", "        time.sleep(0.05)\n        return"),
    )
    server.add("t.fails", FAILS)
    for name in ("t.counts", "t.fails"):
        await triton.load(name, server.config(name), 20)
    for number in range(4):
        assert await infer(server, "t.counts", number) == 2 * number
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError):
            await infer(server, "t.fails", 1)
    statistics = await triton.statistics()
    counts = statistics["t.counts"]
    assert (counts.success_count, counts.inference_count, counts.execution_count, counts.failure_count) == (4, 4, 4, 0)
    assert 0.2e9 <= counts.busy_ns <= counts.request_ns
    assert [(batch.batch_size, batch.executions) for batch in counts.batches] == [(1, 4)]
    assert counts.last_inference_ms > 1_700_000_000_000
    fails = statistics["t.fails"]
    assert (fails.success_count, fails.failure_count) == (0, 2)
    assert 0.2e9 <= fails.busy_ns <= fails.failure_ns


async def test_a_batch_is_busy_time_once(server: Server, triton: TritonServer) -> None:
    slow = DOUBLE.replace("import", "import time\nimport", 1).replace("        return", "        time.sleep(0.1)\n        return")
    server.add("t.batches", slow)
    await triton.load("t.batches", server.config("t.batches"), 20)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(infer(server, "t.batches", number) for number in range(8)))
    wall_ns = (asyncio.get_running_loop().time() - began) * 1e9
    counts = (await triton.statistics())["t.batches"]
    assert counts.success_count == 8
    assert counts.execution_count < 8
    assert 0.1e9 * counts.execution_count <= counts.busy_ns <= wall_ns


async def test_a_load_that_hangs_has_an_unknown_outcome(own_server: Server, own_triton: TritonServer) -> None:
    own_server.add("t.hangs", HANGS)
    with pytest.raises(OutcomeUnknown, match="may still go on"):
        await own_triton.load("t.hangs", own_server.config("t.hangs"), 1)
    assert (await own_triton.index())["t.hangs"].state is RepositoryState.LOADING
    with pytest.raises(OutcomeUnknown):
        await own_triton.unload("t.hangs", 0.5)


async def test_a_load_that_outlives_its_deadline_ends_ready(server: Server, triton: TritonServer) -> None:
    server.add(
        "t.slow",
        DOUBLE.replace(
            "    def execute", "    def initialize(self, args):\n        import time; time.sleep(1.5)\n\n    def execute"
        ),
    )
    with pytest.raises(OutcomeUnknown):
        await triton.load("t.slow", server.config("t.slow"), 0.3)
    await triton.load("t.slow", server.config("t.slow"), 20)  # joins the one that runs
    assert (await triton.index())["t.slow"].state is RepositoryState.READY


async def test_a_dead_stub_shows_as_failures_and_is_mended_by_unload_and_load(
    own_server: Server, own_triton: TritonServer
) -> None:
    own_server.add("t.dies")
    await own_triton.load("t.dies", own_server.config("t.dies"), 20)
    (stub,) = own_server.stubs()
    os.kill(stub, signal.SIGKILL)
    answers = await asyncio.gather(*(infer(own_server, "t.dies", 1) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, urllib.error.HTTPError) for answer in answers)
    assert (await own_triton.index())["t.dies"].state is RepositoryState.READY
    dead = (await own_triton.statistics())["t.dies"]
    assert (dead.failure_count, dead.execution_count, dead.success_count) == (3, 0, 0)
    assert dead.failure_ns >= 3 * 0.9e9
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(own_server.metrics_url).read().decode())
    assert backend_failures(page, "t.dies") == 3
    await own_triton.unload("t.dies")
    await own_triton.load("t.dies", own_server.config("t.dies"), 20)
    assert await infer(own_server, "t.dies", 1) == 2


async def test_a_server_that_dies_during_a_load_is_an_outage(own_server: Server, own_triton: TritonServer) -> None:
    own_server.add("t.hangs", HANGS)
    load = asyncio.create_task(own_triton.load("t.hangs", own_server.config("t.hangs"), 30))
    await until(lambda: in_state(own_triton, "t.hangs", RepositoryState.LOADING))
    own_server.kill()
    with pytest.raises(ServerUnavailable):
        await load


async def test_closing_ends_calls_under_way_without_cancelling_their_callers(own_server: Server) -> None:
    own_server.add("t.hangs", HANGS)
    client = TritonServer(own_server.address, KEY)
    load = asyncio.create_task(client.load("t.hangs", own_server.config("t.hangs"), 30))
    await until(lambda: in_state(client, "t.hangs", RepositoryState.LOADING))
    await client.close()
    with pytest.raises(ServerUnavailable, match="was closed"):
        await load
    with pytest.raises(ServerUnavailable, match="was closed"):
        await client.index()


async def test_a_cancelled_call_is_cancelled(own_server: Server, own_triton: TritonServer) -> None:
    own_server.add("t.hangs", HANGS)
    load = asyncio.create_task(own_triton.load("t.hangs", own_server.config("t.hangs"), 30))
    await until(lambda: in_state(own_triton, "t.hangs", RepositoryState.LOADING))
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load


async def test_a_model_of_a_missing_file_hangs_and_is_why_the_store_looks_first(
    own_server: Server, own_triton: TritonServer
) -> None:
    (own_server.repository / "t.empty" / "1").mkdir(parents=True)
    (own_server.repository / "t.empty" / "config.pbtxt").write_text(CONFIG)
    with pytest.raises(OutcomeUnknown):
        await own_triton.load("t.empty", own_server.config("t.empty"), 1)
    assert (await own_triton.index())["t.empty"].state is RepositoryState.LOADING


async def in_state(triton: TritonServer, name: str, state: RepositoryState) -> bool:
    found = (await triton.index()).get(name)
    return found is not None and found.state is state


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15.0) -> None:
    """Wait for what only asking again can tell."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def infer(server: Server, model: str, value: float) -> float:
    """One request over HTTP, as a client sends it: without the pool's key."""
    body = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}
    request = urllib.request.Request(f"http://127.0.0.1:{server.http}/v2/models/{model}/infer", json.dumps(body).encode())

    def send() -> float:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return float(json.load(answer)["outputs"][0]["data"][0])

    return await asyncio.to_thread(send)
