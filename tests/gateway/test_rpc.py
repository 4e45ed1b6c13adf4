"""The gRPC side: routes, models that sleep, streams, and servers that are not there."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.gateway.wire import Wire, wire

Message = Any


class Model(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A server whose models have a confidence, and which counts what it was asked."""

    def __init__(self, score: float = 0.9, fails: grpc.StatusCode | None = None) -> None:
        self.score, self.fails = score, fails
        self.asked: list[Message] = []

    async def ModelInfer(self, request: Message, context: Any) -> Message:
        """One answer."""
        self.asked.append(request)
        if self.fails is not None:
            await context.abort(self.fails, "told to fail")
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        answer.outputs.add(name="SCORE", datatype="FP32", shape=[1])
        answer.raw_output_contents.append(struct.pack("<f", self.score))
        return answer

    async def ModelStreamInfer(self, requests: AsyncIterator[Message], context: Any) -> AsyncIterator[Message]:
        """Two answers for each request."""
        async for request in requests:
            for _ in range(2):
                yield service_pb2.ModelStreamInferResponse(infer_response=await self.ModelInfer(request, context))


@asynccontextmanager
async def served(*models: Model, wake: Callable[[Any], tuple[int, Any]] | None = None) -> AsyncIterator[tuple[Wire, Any]]:
    """A gateway before these servers, at 127.0.0.2 and so on; it, and a stub of its gRPC side."""
    servers, port = [], 0
    for number, model in enumerate(models):
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
        port = server.add_insecure_port(f"127.0.0.{number + 2}:{port}")
        await server.start()
        servers.append(server)
    try:
        async with (
            wire(wake=wake, server_grpc_port=port or 1) as world,
            grpc.aio.insecure_channel(f"127.0.0.1:{world.grpc_port}") as channel,
        ):
            yield world, service_pb2_grpc.GRPCInferenceServiceStub(channel)
    finally:
        for server in servers:
            await server.stop(None)


def request(name: str, **more: Any) -> Message:
    return service_pb2.ModelInferRequest(model_name=name, **more)


async def test_a_route_escalates_and_says_so() -> None:
    small, big = Model(0.1), Model(0.9)
    async with served(small, big) as (world, stub):
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route()
        call = stub.ModelInfer(request("a/r", id="7"), metadata=(("traceparent", "00-1-2-01"), ("ergon-timeout", "5s")))
        answer = await call
        told = dict(await call.trailing_metadata())
        assert (answer.model_name, answer.id, told["ergon-models"], told["ergon-escalated"]) == (
            "a/r",
            "7",
            "small,big",
            "Confidence",
        )
        assert [asked.model_name for asked in (*small.asked, *big.asked)] == ["a.small", "a.big"]
        forbidden = stub.ModelInfer(request("a/r"), metadata=(("ergon-escalation", "forbid"),))
        await forbidden
        assert dict(await forbidden.trailing_metadata())["ergon-escalated"] == "held"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (grpc.StatusCode.UNAVAILABLE, "small,big"),
        (grpc.StatusCode.INTERNAL, "small,big"),
        (grpc.StatusCode.INVALID_ARGUMENT, None),
    ],
)
async def test_a_model_that_fails_is_followed_by_the_next_but_what_is_wrong_with_the_request_is_told(
    code: grpc.StatusCode, told: str | None
) -> None:
    async with served(Model(fails=code), Model()) as (world, stub):
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route()
        call = stub.ModelInfer(request("a/r"))
        if told is None:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert (caught.value.code(), caught.value.details()) == (code, "told to fail")
        else:
            await call
            assert dict(await call.trailing_metadata())["ergon-models"] == told


async def test_a_request_for_a_model_that_sleeps_waits_for_it() -> None:
    model, woken = Model(), asyncio.Event()

    def wake(_: Any) -> tuple[int, Any]:
        woken.set()
        return 202, {}

    async with served(model, wake=wake) as (world, stub):
        world.model("m", asleep=True)
        calls = [asyncio.ensure_future(stub.ModelInfer(request("a.m", id=str(number)), timeout=20)) for number in range(20)]
        await asyncio.wait_for(woken.wait(), 10)
        world.model("m", "127.0.0.2")
        assert [(await call).id for call in calls] == [str(number) for number in range(20)]
        assert len(world.wakes) == 1


async def test_a_wake_in_vain_is_told_by_the_deadline_and_with_the_reason() -> None:
    async with served(wake=lambda _: (409, {"reason": "NoRoom", "message": "full"})) as (world, stub):
        world.model("m", asleep=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request("a.m"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "NoRoom: full" in str(caught.value.details())
        assert "retry-after" in dict(caught.value.trailing_metadata() or ())


async def test_a_stream_goes_to_the_model_that_its_first_request_names() -> None:
    async with served(Model()) as (world, stub):
        world.model("m", "127.0.0.2")

        async def requests() -> AsyncIterator[Message]:
            for number in range(3):
                yield request("a.m", id=str(number))

        assert [answer.infer_response.id async for answer in stub.ModelStreamInfer(requests())] == ["0", "0", "1", "1", "2", "2"]


async def test_a_stream_of_a_route_has_one_whole_answer_for_each_request_and_its_errors() -> None:
    async with served(Model(0.1), Model(0.9)) as (world, stub):
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route()

        async def requests() -> AsyncIterator[Message]:
            for name in ("a/r", "a/none", "a/r"):
                yield request(name)

        answers = [answer async for answer in stub.ModelStreamInfer(requests())]
        assert [answer.infer_response.model_name for answer in answers] == ["a/r", "", "a/r"]
        assert "no route a/none" in answers[1].error_message


async def test_what_is_not_there_is_not_found() -> None:
    async with served() as (_, stub):
        for name in ("a.none", "a/none", "nonsense", ""):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request(name))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
        assert (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
