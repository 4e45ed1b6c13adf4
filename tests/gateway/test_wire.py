"""What goes wrong between clients, gateway and servers: cut connections, garbage, too much, too slow."""

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator

import pytest

from ergon.gateway import server
from ergon.gateway.connection import HIGH_WATER_BYTES
from ergon.gateway.directory import MODEL, ROUTE
from ergon.gateway.http_models import read_reply
from tests.gateway.wire import GOOD, Server, answered, listening, request_of, wire

UNSURE = {"outputs": [{"name": "SCORE", "datatype": "FP32", "shape": [1, 1], "data": [0.1]}]}
SEQUENCE = json.dumps({"parameters": {"sequence_id": 1}, "inputs": []}).encode()


async def test_a_server_that_cuts_the_connection_is_replaced_by_another_and_asked_last_from_then_on() -> None:
    broken, sound = Server(lambda number, _: None), Server(lambda number, _: answered())
    async with wire(broken, sound) as world:
        world.model("m", "127.0.0.2", "127.0.0.3")
        world.route()
        for _ in range(20):
            assert (await world.post())[0] == 200
        assert len(broken.requests) <= 1
        assert len(sound.requests) == 20


@pytest.mark.parametrize(
    "half", [b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"\x00\x01 no HTTP\r\n\r\n"]
)
async def test_half_an_answer_is_none(half: bytes) -> None:
    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(half)
        await writer.drain()
        writer.close()

    async with wire(dies, Server(lambda number, _: answered())) as world:
        world.model("m", "127.0.0.2", "127.0.0.3")
        world.route()
        assert [(await world.post())[0] for _ in range(5)] == [200] * 5
        assert [(await world.post("/v2/models/a.m/infer"))[0] for _ in range(5)] == [200] * 5


async def test_a_kept_connection_that_the_server_closed_meanwhile_costs_no_request() -> None:
    closes = Server(lambda number, _: answered() if number % 2 else None)
    async with wire(closes) as world:
        world.model("m", "127.0.0.2")
        world.route()
        assert [(await world.post())[0] for _ in range(6)] == [200] * 6


async def test_a_request_of_a_sequence_is_never_sent_twice() -> None:
    broken, sound = Server(lambda number, _: None), Server(lambda number, _: answered())
    async with wire(broken, sound) as world:
        world.model("m", "127.0.0.2")
        world.route()
        status, _, body = await world.post(data=SEQUENCE)
        assert (status, len(broken.requests)) == (502, 1)
        assert "closed the connection" in body["error"] or "broke" in body["error"]


async def test_a_server_without_the_model_is_left_for_one_that_has_it() -> None:
    left = Server(lambda number, _: answered({"error": "Request for unknown model: 'a.m' is not found"}, "404 Not Found"))
    sound = Server(lambda number, _: answered())
    async with wire(left, sound) as world:
        world.model("m", "127.0.0.2", "127.0.0.3")
        world.route()
        assert [(await world.post())[0] for _ in range(10)] == [200] * 10


async def test_a_request_that_no_model_takes_goes_to_one_model_alone() -> None:
    small = Server(lambda number, _: answered({"error": "unexpected shape"}, "400 Bad Request"))
    big = Server(lambda number, _: answered())
    async with wire(small, big) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route()
        status, _, body = await world.post()
        assert (status, body) == (400, {"error": "unexpected shape"})
        assert big.requests == []


@pytest.mark.parametrize("status", ["404 Not Found", "408 Request Timeout", "429 Too Many Requests"])
async def test_what_is_wrong_with_one_model_alone_leaves_the_others_to_be_asked(status: str) -> None:
    small, big = Server(lambda number, _: answered({"error": "not now"}, status)), Server(lambda number, _: answered())
    async with wire(small, big) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route()
        status_code, headers, body = await world.post()
        assert (status_code, body, headers["ergon-escalated"]) == (200, GOOD, "Unavailable")
        world.route(order=["small"])
        status_code, headers, body = await world.post()
        assert (status_code, headers["Retry-After"]) == (503, "1")
        assert "not now" in body["error"]


async def test_a_bigger_model_that_takes_too_long_leaves_the_first_answer() -> None:
    async def never(number: int, _: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    async with wire(Server(lambda number, _: answered(UNSURE)), Server(lambda number, request: never(number, request))) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route()
        status, headers, body = await world.post(ergon_timeout="300ms")
        assert (status, body, headers["ergon-escalated"]) == (200, UNSURE, "Confidence,held")


@pytest.mark.parametrize("answer", [b"", b"[1]", b'{"outputs": 3}', b'{"outputs": [{"name": "OTHER"}]}', b"\xff" * 10])
async def test_an_answer_that_cannot_be_judged_escalates(answer: bytes) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    async with wire(Server(lambda number, _: raw), Server(lambda number, _: answered())) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route()
        status, headers, body = await world.post()
        assert (status, body, headers["ergon-escalated"]) == (200, GOOD, "Malformed")


async def test_a_late_model_is_left_before_another_is_asked_and_never_answers_twice() -> None:
    cancelled = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()  # until the gateway lets go of it
        cancelled.set()
        writer.close()

    order: list[bool] = []

    def big(number: int, _: bytes) -> bytes:
        order.append(cancelled.is_set())
        return answered()

    async with wire(slow, Server(big)) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route(escalation={"after": "100ms"})
        status, headers, body = await world.post()
        assert (status, body, headers["ergon-escalated"], headers["ergon-models"]) == (200, GOOD, "Late", "small,big")
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_beyond_the_rate_a_late_model_is_waited_for() -> None:
    async def slowly(number: int, _: bytes) -> bytes:
        await asyncio.sleep(0.3)
        return answered()

    big = Server(lambda number, _: answered())
    async with wire(Server(lambda number, request: slowly(number, request)), big) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route(escalation={"after": "100ms", "maxRate": 0})
        status, headers, _ = await world.post()
        assert (status, headers["ergon-models"], big.requests) == (200, "small", [])
        assert world.counted("ergon_gateway_wished_escalations_total", namespace="a", route="r") == 1


async def test_nothing_stays_counted_of_routes_and_models_that_are_gone() -> None:
    async with wire(Server(lambda number, _: answered(UNSURE)), Server(lambda number, _: answered())) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        for route in ("r", "s"):
            world.route(route)
            await world.post(f"/a/{route}/v2/models/any/infer")
        await world.post("/v2/models/a.small/infer")
        world.metrics.held.labels("a", "small").inc(0)
        await world.serving.tidy()

        def named() -> set[str]:
            samples = [sample for metric in world.metrics.registry.collect() for sample in metric.samples]
            return {value for sample in samples for key, value in sample.labels.items() if key in ("route", "model", "to")} - {""}

        assert named() == {"r", "s", "small", "big"}
        world.directory.drop(ROUTE, {"metadata": {"namespace": "a", "name": "s"}})
        world.directory.drop(MODEL, {"metadata": {"namespace": "a", "name": "small"}})
        await world.serving.tidy()
        assert named() == {"r", "big"}
        await world.post()
        assert world.counted("ergon_gateway_requests_total", namespace="a", route="r", model="big", outcome="answered") == 2


async def test_the_operators_order_rate_and_joules_hold() -> None:
    async with wire(Server(lambda number, _: answered(UNSURE)), Server(lambda number, _: answered())) as world:
        world.model("small", "127.0.0.2", quality=0.9)
        world.model("big", "127.0.0.3", quality=0.1)
        told = [
            {"model": "small", "joulesPerRequest": 0.5, "provenance": "measured"},
            {"model": "big", "joulesPerRequest": 2.0, "provenance": "derived"},
            {"model": "gone", "joulesPerRequest": 9.0, "provenance": "assumed"},
        ]
        world.route(status={"candidates": told, "allowedRate": 1.0})
        _, headers, _ = await world.post()
        assert (headers["ergon-models"], headers["ergon-joules"], headers["ergon-joules-provenance"]) == (
            "small,big",
            "2.5",
            "derived",
        )
        world.route(status={"candidates": told, "allowedRate": 0.0})
        _, headers, body = await world.post()
        assert (headers["ergon-models"], headers["ergon-escalated"], headers["ergon-joules"]) == ("small", "held", "0.5")
        assert body == UNSURE
        world.route(status={"candidates": told[1:2]})
        _, headers, _ = await world.post()
        assert headers["ergon-models"] == "big"


async def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    server = Server(lambda number, _: answered())
    async with wire(server, body_bytes=1 << 16) as world:
        world.model("m", "127.0.0.2")
        world.route()
        assert (await world.post(data=b"x" * (1 << 16)))[0] == 200

        async def pieces(size: int):  # type: ignore[no-untyped-def]
            for _ in range(size >> 12):
                yield b"x" * 4096

        assert (await world.post(data=pieces(1 << 18)))[0] == 413
        assert len(server.requests) == 1
        assert (await world.post("/v2/models/a.m/infer", data=pieces(1 << 18)))[0] == 413  # streams until it is too much


async def test_large_bodies_stream_through_to_a_model() -> None:
    seen: list[int] = []

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        total = 0
        while total < 8 << 20:
            total += len(await reader.read(1 << 16))
        seen.append(total)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(64):
            writer.write(b"10000\r\n" + b"y" * 65536 + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with wire(counts) as world:
        world.model("m", "127.0.0.2")
        status, _, body = await world.post("/v2/models/a.m/infer", data=io.BytesIO(b"x" * (8 << 20)))
        assert (status, seen, len(body)) == (200, [8 << 20], 4 << 20)


async def test_a_client_that_sends_slowly_is_told_so() -> None:
    async with wire(Server(lambda number, _: answered()), body_seconds=0.2) as world:
        world.model("m", "127.0.0.2")
        world.route()
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(b"POST /a/r/v2/models/x/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 408")
        writer.close()


@pytest.mark.parametrize("begun", [b"", b"GET /a/r/v2 HT", b"GET /a/r/v2 HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_client_that_does_not_get_to_the_end_of_its_head_is_sent_away(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.1)
    async with wire() as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(begun)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with wire(Server(lambda number, _: answered())) as world:
        world.model("m", "127.0.0.2")
        world.route()
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(b"POST /a/r/v2/models/x/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_who_goes_away_is_waited_for_by_nobody() -> None:
    came, let_go = asyncio.Event(), asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        came.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        let_go.set()
        writer.close()

    async with wire(waits) as world:
        world.model("m", "127.0.0.2")
        world.route()
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(b"POST /a/r/v2/models/x/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        await asyncio.wait_for(came.wait(), 5)
        writer.transport.abort()
        await asyncio.wait_for(let_go.wait(), 5)
        labels = {"namespace": "a", "route": "r", "model": "", "outcome": "cancelled"}
        assert world.counted("ergon_gateway_requests_total", **labels) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /a/r/v2/models/x/infer HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        b"POST /a/r/v2/models/x/infer HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"GET /v2/models/a.m/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/models/a.m/\xc2\x85 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a/r/v2/models/x HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_garbage_gets_400_and_no_server_sees_it(raw: bytes) -> None:
    server = Server(lambda number, _: answered())
    async with wire(server) as world:
        world.model("m", "127.0.0.2")
        world.route()
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(raw)
        answer = await asyncio.wait_for(reader.readline(), 10)
        assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
        assert server.requests == []
        writer.close()


async def test_headers_pass_but_those_of_a_connection_or_the_gateway() -> None:
    server = Server(lambda number, _: answered())
    async with wire(server) as world:
        world.model("m", "127.0.0.2")
        world.route()
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await world.post(traceparent=trace, ergon_timeout="5s", Accept_Encoding="gzip", x_team="blue")
        head = server.requests[0].lower()
        assert b"traceparent: " + trace.encode() in head
        assert b"x-team: blue" in head
        assert b"ergon-" not in head
        assert b"accept-encoding" not in head
        assert b"post /v2/models/a.m/infer http/1.1" in head


@pytest.mark.parametrize("path", ["/a/r/v2/models/any/infer", "/v2/models/a.m/infer", "/v2/models/a.m/generate_stream"])
async def test_what_a_connection_header_names_and_what_only_the_gateway_says_is_not_passed_on(path: str) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\n"
    server = Server(lambda number, _: said + b"Ergon-Models: forged\r\nErgon-Joules: 0\r\n\r\n{}")
    async with wire(server) as world:
        world.model("m", "127.0.0.2")
        world.route(escalation={})
        _, headers, _ = await world.post(path, Connection="keep-alive, X-Own", X_Own="1", X_All="1")
        assert (headers.get("X-Hop"), headers.get("X-End"), headers.get("Ergon-Joules")) == (None, "1", None)
        assert headers.getall("Ergon-Models", []) == (["m"] if path.startswith("/a/") else [])
        head = server.requests[0].lower()
        assert (b"x-own" in head, b"x-all" in head) == (False, True)


@pytest.mark.parametrize("path", ["v2/models/a.m/infer", "/v2/models/a.m/infer", "v2", "v2/v2/models/a.m/infer", ""])
async def test_where_routes_alone_are_served_no_model_is(path: str) -> None:
    server = Server(lambda number, _: answered())
    async with wire(server) as world:
        world.model("m", "127.0.0.2")
        world.route()
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(f"POST /_routes/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        assert server.requests == []
        writer.close()
        assert (await world.post("/_routes/a/r/v2/models/any/infer"))[0] == 200


async def test_more_requests_than_are_possible_at_once_are_told_to_come_again() -> None:
    release, full = asyncio.Event(), asyncio.Event()
    came: list[bytes] = []

    async def holds(number: int, request: bytes) -> bytes:
        came.append(request)
        if len(came) == 5:
            full.set()
        await release.wait()
        return answered()

    async with wire(Server(lambda number, request: holds(number, request)), requests_at_once=5) as world:
        world.model("m", "127.0.0.2")
        world.route()
        tasks = [asyncio.create_task(world.post()) for _ in range(5)]
        await asyncio.wait_for(full.wait(), 5)
        status, headers, _ = await world.post()
        assert (status, headers["Retry-After"]) == (503, "1")
        release.set()
        assert [(await task)[0] for task in tasks] == [200] * 5


async def test_an_answer_that_breaks_off_at_the_deadline_is_followed_by_no_other() -> None:
    async def begins(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await reader.read()

    async with wire(begins) as world:
        world.model("m", "127.0.0.2")
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = b"POST /v2/models/a.m/generate_stream HTTP/1.1\r\nHost: x\r\nErgon-Timeout: 300ms\r\nContent-Length: 2\r\n\r\n"
        writer.write(head + b"{}")
        got = b""
        with contextlib.suppress(ConnectionError):
            while more := await asyncio.wait_for(reader.read(1 << 16), 5):
                got += more
        assert (got.count(b"HTTP/1.1"), got.endswith(b"hello\r\n")) == (1, True)
        assert world.counted("ergon_gateway_requests_total", namespace="a", route="", model="m", outcome="expired") == 1
        writer.close()


@pytest.mark.parametrize("path", ["/a/r/v2/models/any/infer", "/v2/models/a.m/infer"])
async def test_a_client_that_takes_no_answer_is_cut_off_and_counts_until_then(path: str) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 << 20) + b" " * (32 << 20)
    server = Server(lambda number, _: large if number == 1 else answered())
    async with wire(server, body_seconds=1.0, requests_at_once=1) as world:
        world.model("m", "127.0.0.2")
        world.route(escalation={})
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port, limit=1 << 10)
        writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % path.encode())
        await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
        assert (await world.post())[0] == 503
        while (await world.post())[0] != 200:  # noqa: ASYNC110 - another party's patience
            await asyncio.sleep(0.05)
        got = 0
        with contextlib.suppress(ConnectionError):
            while more := await asyncio.wait_for(reader.read(1 << 20), 5):
                got += len(more)
        assert got < 32 << 20
        writer.close()


async def test_once_its_servers_answer_a_models_clients_go_there() -> None:
    async with wire(Server(lambda number, _: answered())) as world:
        world.model("m", "127.0.0.2")
        world.route()
        for path in ("/v2/models/a.m/infer", "/v2/models/a.m/generate_stream"):
            assert (await world.post(path))[1]["Connection"] == "close"
        assert "Connection" not in (await world.post())[1]


async def test_a_connection_whose_server_answered_before_it_had_the_whole_request_gets_no_other_one() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answered({"error": "too much"}, "413 Too Large"))
        await reader.read()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * 100
        await asyncio.Event().wait()

    async with listening(early) as upstream, upstream.connection("127.0.0.2") as connection:
        connection.begin(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", more=True)
        sending = asyncio.create_task(connection.send(slowly()))
        assert (await read_reply(connection, 1000)).status == 413
        sending.cancel()
        assert connection.open
        assert not connection.reusable


async def test_a_kept_connection_is_read_again_after_an_answer_that_nobody_took() -> None:
    full = asyncio.Event()

    async def ends_beyond_the_high_water(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await request_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (HIGH_WATER_BYTES + 1) + b"y" * HIGH_WATER_BYTES)
            await full.wait()
            writer.write(b"y")

    async with listening(ends_beyond_the_high_water) as upstream:
        async with upstream.connection("127.0.0.2") as connection:
            connection.begin(b"GET / HTTP/1.1\r\n\r\n")
            while connection._held_bytes < HIGH_WATER_BYTES:  # noqa: ASYNC110 - another party's sending
                await asyncio.sleep(0.01)
            full.set()  # the last byte comes by itself, so that reading pauses with the answer whole
            while not connection.reusable:  # noqa: ASYNC110 - another party's sending
                await asyncio.sleep(0.01)
        async with upstream.connection("127.0.0.2") as connection:
            assert connection.used
            connection.begin(b"GET / HTTP/1.1\r\n\r\n")
            assert len((await asyncio.wait_for(read_reply(connection, 1 << 20), 5)).body.data) == HIGH_WATER_BYTES + 1


async def test_an_answer_that_never_comes_ends_at_the_deadline() -> None:
    async def never(number: int, _: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    async with wire(Server(lambda number, request: never(number, request))) as world:
        world.model("m", "127.0.0.2")
        world.route()
        began = time.monotonic()
        assert (await world.post(ergon_timeout="300ms"))[0] == 504
        assert (await world.post("/v2/models/a.m/infer", ergon_timeout="300ms"))[0] == 504
        assert time.monotonic() - began < 20
