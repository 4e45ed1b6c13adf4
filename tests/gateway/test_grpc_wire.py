"""What goes wrong between the gateway and servers over gRPC: statuses, answers in pieces, starts that take too long."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.gateway.wire import Wire, wire

CHAT = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
WORDS = {"template": "LastMessage", "prompt": "PROMPT", "answer": "TEXT", "tokens": "COUNT"}


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A server. `fails`: the status by the model's name; `pieces`: outputs of each piece of an answer."""

    def __init__(self, *, fails: dict[str, grpc.StatusCode] | None = None, pieces: list[dict[str, Any]] | None = None) -> None:
        self.fails, self.pieces = fails or {}, pieces or []
        self.asked: list[str] = []

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """Answers in pieces, takes a prompt."""
        answer = service_pb2.ModelConfigResponse()
        answer.config.input.add(name="PROMPT", dims=[1])
        answer.config.model_transaction_policy.decoupled = True
        return answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """A good answer, or the status."""
        self.asked.append(request.model_name)
        if request.model_name in self.fails:
            await context.abort(self.fails[request.model_name], "not now")
        return _answer({"SCORE": 0.9})

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """The pieces."""
        async for _ in requests:
            for piece in self.pieces:
                yield service_pb2.ModelStreamInferResponse(infer_response=_answer(piece))


def _answer(outputs: dict[str, Any]) -> Any:
    answer = service_pb2.ModelInferResponse()
    for name, value in outputs.items():
        text = isinstance(value, str)
        output = answer.outputs.add(name=name, datatype="BYTES" if text else "FP32", shape=[1])
        if text:
            output.contents.bytes_contents.append(value.encode())
        else:
            output.contents.fp32_contents.append(value)
    return answer


@asynccontextmanager
async def grpc_wire(triton: Triton, **changes: Any) -> AsyncIterator[tuple[Wire, Any]]:
    """A gateway before one gRPC server at 127.0.0.2, and a stub of the gateway."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.2:0")
    await server.start()
    try:
        async with (
            wire(server_grpc_port=port, wake=lambda _: (202, {}), **changes) as world,
            grpc.aio.insecure_channel(f"127.0.0.1:{world.grpc_port}") as channel,
        ):
            yield world, service_pb2_grpc.GRPCInferenceServiceStub(channel)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("status", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL])
async def test_what_is_wrong_with_one_model_alone_leaves_the_others_to_be_asked(status: grpc.StatusCode) -> None:
    triton = Triton(fails={"a.small": status})
    async with grpc_wire(triton) as (world, stub):
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.2", quality=0.9)
        world.route()
        answer = await stub.ModelInfer(service_pb2.ModelInferRequest(model_name="a/r"), timeout=5)
        assert (answer.model_name, triton.asked) == ("a/r", ["a.small", "a.big"])


async def test_a_request_that_no_model_takes_goes_to_one_model_alone() -> None:
    triton = Triton(fails={"a.small": grpc.StatusCode.INVALID_ARGUMENT})
    async with grpc_wire(triton) as (world, stub):
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.2", quality=0.9)
        world.route()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(service_pb2.ModelInferRequest(model_name="a/r"), timeout=5)
        assert (caught.value.code(), triton.asked) == (grpc.StatusCode.INVALID_ARGUMENT, ["a.small"])


async def test_a_model_whose_last_start_took_too_long_is_passed_over() -> None:
    triton = Triton()
    async with grpc_wire(triton) as (world, stub):
        world.model("small", asleep=True, quality=0.1, coldStart={"totalSeconds": 1, "serverSeconds": 40})
        world.model("big", "127.0.0.2", quality=0.9)
        world.route()
        await stub.ModelInfer(service_pb2.ModelInferRequest(model_name="a/r"), timeout=5)
        assert (triton.asked, world.wakes) == (["a.big"], [])


async def test_more_bytes_than_may_be_under_way_are_refused_and_so_are_more_than_may_be_held() -> None:
    large = service_pb2.ModelInferRequest(model_name="a.m", raw_input_contents=[b"x" * 2000])
    for limit in ({"bytes_at_once": 1000}, {"held_bytes": 1000}):
        async with grpc_wire(Triton(), **limit) as (world, stub):
            world.model("m", asleep=True)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(large, timeout=5)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert ("retry-after", "1") in tuple(caught.value.trailing_metadata())


@pytest.mark.parametrize("count", ["many", float("nan"), float("inf")])
async def test_a_chat_whose_tokens_are_no_number_ends_with_an_error_within_the_stream(count: Any) -> None:
    async with grpc_wire(Triton(pieces=[{"TEXT": "hi", "COUNT": 1.0}, {"TEXT": "there", "COUNT": count}])) as (world, _):
        world.model("m", "127.0.0.2")
        world.route(chat=WORDS, escalation={})
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        body = json.dumps(CHAT).encode()
        head = b"POST /a/r/v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.count(b"HTTP/1.1") == 1
        assert b'"content":"hi"' in answer
        assert b'data: {"error"' in answer
        assert answer.endswith(b"0\r\n\r\n")
        writer.close()
