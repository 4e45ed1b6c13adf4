"""Answers without an end: a route's are held up to a limit, a model's own pass through; neither fills the gateway's memory."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from tritonclient.grpc import service_pb2

from ergon.gateway.chat import bounded
from ergon.gateway.failures import Failure
from ergon.gateway.grpc_models import GrpcReply
from tests.gateway.wire import GOOD, Server, answered, wire

MIB = 1 << 20
PLAIN = "/v2/models/a.m/infer"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Endless:
    """A server whose answer is as long as it says; `sent_bytes` of it went out so far."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes, self.sent_bytes, self.asked = size_bytes, 0, 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        writer.write(ENDLESS % self.size_bytes)
        piece = b"y" * 65536
        try:
            while self.sent_bytes < self.size_bytes:
                writer.write(piece[: self.size_bytes - self.sent_bytes])
                self.sent_bytes += min(len(piece), self.size_bytes - self.sent_bytes)
                await writer.drain()
        except ConnectionError:
            return
        await reader.read()


async def test_a_route_ends_an_answer_that_is_larger_than_what_it_holds() -> None:
    server = Endless(10_000_000_000)
    async with wire(server, answer_bytes=MIB) as world:
        world.model("m", "127.0.0.2")
        world.route()
        status, _, body = await asyncio.wait_for(world.post(), 10)
        assert status == 502
        assert f"larger than {MIB} bytes" in body["error"]
        assert server.sent_bytes < 16 * MIB  # what the sockets between hold
        assert server.asked == 1


async def test_a_route_goes_on_with_the_next_model_then() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/a.small/" in head:
            await Endless(10_000_000_000)(_Again(head), writer)  # type: ignore[arg-type]
        else:
            writer.write(answered())
            await writer.drain()
            await reader.read()

    async with wire(talk, answer_bytes=MIB) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.2", quality=0.9)
        world.route()
        status, headers, body = await asyncio.wait_for(world.post(), 10)
        assert (status, body, headers["ergon-models"]) == (200, GOOD, "small,big")


class _Again:
    """A reader whose head was read already."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    async def readuntil(self, _: bytes) -> bytes:
        return self._head

    async def read(self) -> bytes:
        return b""


async def test_a_large_answer_under_a_models_own_name_passes_through_as_fast_as_the_client_takes_it() -> None:
    server = Endless(64 * MIB)
    async with wire(server, answer_bytes=MIB, answers_at_once=MIB) as world:
        world.model("m", "127.0.0.2")
        async with world.client.post(f"http://127.0.0.1:{world.port}{PLAIN}", data=b"{}") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Length"] == str(64 * MIB)
            before = -1
            while before != server.sent_bytes:  # until nothing moves, since nobody reads
                before = server.sent_bytes
                await asyncio.sleep(0.2)
            assert before < 32 * MIB  # what sockets and buffers between hold
            size = 0
            async for piece in answer.content.iter_any():
                size += len(piece)
        assert size == 64 * MIB
        assert server.asked == 1


async def test_one_that_breaks_off_is_cut_off_and_not_asked_again() -> None:
    async def breaks(_: int, __: bytes) -> bytes:
        return ENDLESS % (8 * MIB) + b"y" * MIB + b"connection: close"  # the server's end of this answer

    server = Server(breaks)
    async with wire(server) as world:
        world.model("m", "127.0.0.2")
        with pytest.raises(aiohttp.ClientError):
            await world.post(PLAIN)
        assert len(server.requests) == 1


async def test_more_answers_than_can_be_held_at_once_are_told_to_come_again() -> None:
    came, release, body = asyncio.Event(), asyncio.Event(), json.dumps(GOOD).encode().ljust(60_000)
    count = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while await reader.read(65536):
            count += 1
            writer.write(ENDLESS % len(body) + body[:50_000])
            await writer.drain()
            came.set()
            if count == 1:
                await release.wait()
            writer.write(body[50_000:])
            await writer.drain()

    async with wire(talk, answers_at_once=100_000) as world:
        world.model("m", "127.0.0.2")
        world.route()
        first = asyncio.create_task(world.post())
        await asyncio.wait_for(came.wait(), 5)
        await asyncio.sleep(0.1)
        status, headers, told = await world.post()
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "bytes of answers are under way already" in told["error"]
        release.set()
        assert (await first)[0] == 200
        assert (await world.post())[0] == 200  # what was held is free again


async def test_pieces_of_a_chat_answer_that_are_held_together_are_bounded_too() -> None:
    async def pieces() -> AsyncIterator[GrpcReply]:
        while True:
            yield GrpcReply(service_pb2.ModelInferResponse(raw_output_contents=[b"y" * 1000]))

    held = []

    async def hold() -> None:
        async for piece in bounded("a.m", pieces(), 5000):
            held.append(piece)

    with pytest.raises(Failure, match="larger than 5000 bytes"):
        await hold()
    assert len(held) == 4
