"""Requests for a model that sleeps: held, woken once, sent on in order, or told why not."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ergon.gateway.directory import MODEL, SLICE, Directory
from ergon.gateway.metrics import Metrics
from ergon.gateway.waking import Waker, retry_seconds
from tests.gateway.wire import GOOD, Server, answered, wire

PLAIN = "/v2/models/a.m/infer"


async def test_many_requests_wake_a_model_once_and_go_on_in_order() -> None:
    order: list[int] = []

    def takes(_: int, request: bytes) -> bytes:
        order.append(json.loads(request.split(b"\r\n\r\n", 1)[1])["number"])
        return answered()

    asked, began = asyncio.Event(), asyncio.get_running_loop().time()

    def wake(_: Any) -> tuple[int, Any]:
        asked.set()
        return 202, {"state": "Waking"}

    async with wire(Server(takes), wake=wake) as world:
        world.model("m", asleep=True)
        tasks = []
        for number in range(200):
            tasks.append(asyncio.create_task(world.post(PLAIN, data=json.dumps({"number": number}).encode())))
            if number % 20 == 0:
                await asyncio.sleep(0)
        await asyncio.wait_for(asked.wait(), 5)
        while world.counted("ergon_gateway_held_requests", namespace="a", model="m") < 200:  # noqa: ASYNC110 - another party's count
            await asyncio.sleep(0.01)
        world.model("m", "127.0.0.2")
        assert [(await task)[0] for task in tasks] == [200] * 200
        assert (
            1 <= len(world.wakes) <= 1 + (asyncio.get_running_loop().time() - began) // 3
        )  # the operator is told again every 3 s
        assert (world.wakes[0]["namespace"], world.wakes[0]["model"]) == ("a", "m")
        assert world.counted("ergon_gateway_held_requests", namespace="a", model="m") == 0
        assert world.counted("ergon_gateway_wake_seconds_count", namespace="a", model="m") == 1
        assert world.counted("ergon_gateway_first_answer_seconds_count", namespace="a", model="m") == 1
        assert world.counted("ergon_gateway_first_answer_seconds_sum", namespace="a", model="m") < 5
        assert len(order) == 200


async def test_held_requests_are_sent_in_the_order_they_came() -> None:
    order: list[int] = []

    def takes(_: int, request: bytes) -> bytes:
        order.append(json.loads(request.split(b"\r\n\r\n", 1)[1])["number"])
        return answered()

    async with wire(Server(takes), wake=lambda _: (202, {})) as world:
        world.model("m", asleep=True)
        tasks = []
        for number in range(50):
            tasks.append(asyncio.create_task(world.post(PLAIN, data=json.dumps({"number": number}).encode())))
            while world.counted("ergon_gateway_held_requests", namespace="a", model="m") <= number:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        world.model("m", "127.0.0.2")
        await asyncio.gather(*tasks)
        assert order == list(range(50))


async def test_a_model_that_cannot_be_woken_is_told_with_the_reason() -> None:
    async with wire(wake=lambda _: (409, {"reason": "NoRoom", "message": "no server has 4Gi free"})) as world:
        world.model("m", asleep=True)
        status, headers, body = await world.post(PLAIN)
        assert status == 503
        assert "NoRoom: no server has 4Gi free" in body["error"]
        assert int(headers["Retry-After"]) > 0


async def test_a_wake_whose_load_fails_is_told_with_the_reason() -> None:
    woken = asyncio.Event()

    def wake(_: Any) -> tuple[int, Any]:
        woken.set()
        return 202, {"state": "Waking"}

    async with wire(wake=wake) as world:
        world.model("m", asleep=True)
        task = asyncio.create_task(world.post(PLAIN))
        await asyncio.wait_for(woken.wait(), 5)
        world.model("m", asleep=True, stalled="model.py: no module named torch")
        status, _, body = await asyncio.wait_for(task, 5)
        assert status == 503
        assert "LoadRefused: model.py: no module named torch" in body["error"]


async def test_an_operator_that_is_away_is_asked_again_until_the_deadline() -> None:
    answers = iter([(503, {}), (503, {}), (202, {"state": "Waking"})])

    async with wire(Server(lambda number, _: answered()), wake=lambda _: next(answers)) as world:
        world.model("m", asleep=True)
        task = asyncio.create_task(world.post(PLAIN))
        while len(world.wakes) < 3:  # noqa: ASYNC110 - another party's count
            await asyncio.sleep(0.01)
        world.model("m", "127.0.0.2")
        assert (await task)[0] == 200


@pytest.mark.parametrize(
    ("silent_seconds", "least", "most"), [(0, 0.125, 0.25), (0.25, 0.125, 0.25), (1, 0.5, 1), (60, 1.5, 3), (1e6, 1.5, 3)]
)
def test_an_operator_that_stays_away_is_asked_less_and_less(silent_seconds: float, least: float, most: float) -> None:
    assert retry_seconds(silent_seconds, 0) == least
    assert retry_seconds(silent_seconds, 1) == most


async def test_where_nobody_wakes_it_the_answer_comes_by_the_deadline() -> None:
    async with wire(wake=lambda _: (503, {})) as world:
        world.model("m", asleep=True)
        began = time.monotonic()
        status, headers, body = await world.post(PLAIN, ergon_timeout="700ms")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "HTTP 503" in body["error"]
        assert 0.5 < time.monotonic() - began < 20
        assert len(world.wakes) > 1
        assert world.counted("ergon_gateway_held_requests", namespace="a", model="m") == 0


async def test_more_than_can_be_held_is_told_to_come_again() -> None:
    async with wire(Server(lambda number, _: answered()), wake=lambda _: (202, {}), held_requests=10) as world:
        world.model("m", asleep=True)
        tasks = [asyncio.create_task(world.post(PLAIN)) for _ in range(30)]
        while sum(task.done() for task in tasks) < 20:  # noqa: ASYNC110 - another party's count
            await asyncio.sleep(0.01)
        world.model("m", "127.0.0.2")
        statuses = sorted([(await task)[0] for task in tasks])
        assert statuses == [200] * 10 + [429] * 20


async def test_more_bytes_than_can_be_held_are_refused() -> None:
    async with wire(Server(lambda number, _: answered()), wake=lambda _: (202, {}), held_bytes=1000) as world:
        world.model("m", asleep=True)
        status, headers, _ = await world.post(PLAIN, data=b"x" * 2000)
        assert (status, headers["Retry-After"]) == (429, "1")


@pytest.mark.parametrize("announced", [True, False])
async def test_more_bytes_than_may_be_under_way_are_told_to_come_again(announced: bool) -> None:
    came, release = asyncio.Event(), asyncio.Event()

    async def holds(_: int, __: bytes) -> bytes:
        came.set()
        await release.wait()
        return answered()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b"x" * 1000

    async with wire(Server(holds), bytes_at_once=100_000) as world:
        world.model("m", "127.0.0.2")
        world.route()
        first = asyncio.create_task(world.post(data=b"x" * 60_000))
        await asyncio.wait_for(came.wait(), 5)
        status, headers, _ = await world.post(data=b"x" * 60_000 if announced else pieces())
        assert (status, headers["Retry-After"]) == (429, "1")
        release.set()
        assert (await first)[0] == 200
        assert (await world.post(data=b"x" * 60_000))[0] == 200


async def test_a_question_whether_a_model_is_ready_does_not_wake_it() -> None:
    async with wire(Server(lambda number, _: answered()), wake=lambda _: (202, {})) as world:
        world.model("m", asleep=True)
        world.model("gone")
        for path, status in (("a.m/ready", 200), ("a.m/versions/1/ready", 200), ("a.gone/ready", 503), ("a.none/ready", 404)):
            async with world.client.get(f"http://127.0.0.1:{world.port}/v2/models/{path}") as answer:
                assert answer.status == status
        assert world.wakes == []


async def test_a_model_whose_last_start_took_too_long_is_passed_over() -> None:
    async with wire(Server(lambda number, _: answered()), wake=lambda _: (202, {})) as world:
        world.model("small", asleep=True, quality=0.1, coldStart={"totalSeconds": 1, "serverSeconds": 40})
        world.model("big", "127.0.0.2", quality=0.9)
        world.route()
        _, headers, _ = await world.post(ergon_timeout="20s")
        assert (headers["ergon-models"], headers["ergon-escalated"], world.wakes) == ("small,big", "Unavailable", [])


async def test_who_goes_away_is_held_no_longer_and_the_model_is_not_asked() -> None:
    server = Server(lambda number, _: answered())
    async with wire(server, wake=lambda _: (202, {})) as world:
        world.model("m", asleep=True)
        tasks = [asyncio.create_task(world.post(PLAIN)) for _ in range(5)]
        while world.counted("ergon_gateway_held_requests", namespace="a", model="m") < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for task in tasks[:4]:
            task.cancel()
        while world.counted("ergon_gateway_held_requests", namespace="a", model="m") > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        world.model("m", "127.0.0.2")
        assert (await tasks[4])[0] == 200
        assert len(server.requests) == 1


@pytest.mark.parametrize("gone", [True, False])
async def test_who_goes_away_as_its_turn_comes_leaves_the_turn_to_the_next(gone: bool) -> None:
    directory = Directory()
    waker = Waker(directory, Metrics(), "http://127.0.0.1:9/wake")
    directory.put(MODEL, {"metadata": {"namespace": "a", "name": "m"}, "spec": {}})

    async def asks() -> str:
        async with waker.turn("a.m", asyncio.get_running_loop().time() + 5):
            return "served"

    first, second = asyncio.create_task(asks()), asyncio.create_task(asks())
    await asyncio.sleep(0)
    turn = waker._sleepers["a.m"].waiting[0]
    labels = {"ergon.dev/model": "m"}
    directory.put(
        SLICE, {"metadata": {"namespace": "a", "name": "m-0", "labels": labels}, "endpoints": [{"addresses": ["10.0.0.1"]}]}
    )
    while not turn.done():  # noqa: ASYNC110 - the very iteration is what is tested
        await asyncio.sleep(0)
    if gone:
        first.cancel()
    await asyncio.wait({first})
    assert first.cancelled() == gone
    assert await asyncio.wait_for(second, 2) == "served"
    await asyncio.sleep(0)
    assert not waker.must_wait("a.m", 0, wake=True)
    await waker.close()


async def test_the_token_is_read_anew_for_each_call(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with wire(wake=lambda _: (503, {}), wake_token_file=token) as world:
        world.model("m", asleep=True)
        await world.post(PLAIN, ergon_timeout="100ms")
        token.write_text("two\n")
        await world.post(PLAIN, ergon_timeout="100ms")
        seen = [wake["authorization"] for wake in world.wakes]
        assert (seen[0], seen[-1]) == ("Bearer one", "Bearer two")


async def test_a_route_wakes_its_first_model_and_where_that_takes_too_long_asks_the_next() -> None:
    async with wire(Server(lambda number, _: answered()), wake=lambda _: (202, {})) as world:
        world.model("small", asleep=True, quality=0.1)
        world.model("big", "127.0.0.2", quality=0.9)
        world.route()
        status, headers, body = await world.post(ergon_timeout="1s")
        assert (status, body, headers["ergon-models"], headers["ergon-escalated"]) == (200, GOOD, "small,big", "Unavailable")
        assert [wake["model"] for wake in world.wakes] == ["small"]


async def test_a_route_whose_bigger_model_cannot_be_woken_keeps_the_first_answer() -> None:
    unsure = {"outputs": [{"name": "SCORE", "datatype": "FP32", "shape": [1, 1], "data": [0.1]}]}
    async with wire(Server(lambda number, _: answered(unsure)), wake=lambda _: (409, {"reason": "NoRoom"})) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", asleep=True, quality=0.9)
        world.route()
        status, headers, body = await world.post()
        assert (status, body, headers["ergon-models"]) == (200, unsure, "small,big")
        assert headers["ergon-escalated"] == "Confidence,held"


async def test_who_asks_whether_a_model_is_ready_does_not_wake_it() -> None:
    async with wire(wake=lambda _: (202, {})) as world:
        world.model("m", asleep=True)
        world.model("loading")
        for name, status in (("m", 200), ("loading", 503), ("none", 404)):
            async with world.client.get(f"http://127.0.0.1:{world.port}/v2/models/a.{name}/ready") as answer:
                assert answer.status == status
        assert world.wakes == []


async def test_a_turn_that_comes_at_the_very_moment_of_giving_up_is_the_next_ones() -> None:
    directory = Directory()
    directory.put(MODEL, {"metadata": {"namespace": "a", "name": "m"}, "spec": {}})
    waker = Waker(directory, Metrics(), "http://127.0.0.1:1/wake")
    sent: list[str] = []

    async def send(name: str) -> None:
        async with waker.turn("a.m", asyncio.get_running_loop().time() + 20):
            sent.append(name)

    first, second = asyncio.create_task(send("first")), asyncio.create_task(send("second"))
    await asyncio.sleep(0)
    waker._sleepers["a.m"].waiting[0].set_result(None)
    first.cancel()
    directory.put(
        SLICE,
        {
            "metadata": {"namespace": "a", "name": "m-0", "labels": {"ergon.dev/model": "m"}},
            "endpoints": [{"addresses": ["::1"]}],
        },
    )
    await asyncio.wait_for(second, 5)
    assert sent == ["second"]
    await waker.close()
