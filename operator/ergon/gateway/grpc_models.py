"""Asking a model over gRPC: for routes, for models that sleep, and for models that answer in pieces."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ergon.gateway.columns import Column, Malformed, of_bytes, of_json
from ergon.gateway.directory import Directory
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.waking import Waker

Message = Any
"""A protobuf message of KServe's gRPC service."""
Metadata = tuple[tuple[str, str | bytes], ...]
SERVICE = "/inference.GRPCInferenceService"
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_AGAIN = (grpc.StatusCode.UNAVAILABLE,)
_REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT: Kind.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: Kind.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED: Kind.NOT_ALLOWED,
    grpc.StatusCode.OUT_OF_RANGE: Kind.BAD_REQUEST,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.TOO_MANY,
}
_TRIES = 4


@dataclass(frozen=True)
class GrpcReply:
    """A ModelInferResponse."""

    message: Message

    @property
    def refused(self) -> bool:
        """Never: gRPC tells errors as a status."""
        return False

    def outputs(self, names: Set[str]) -> Mapping[str, Column]:
        """Those of the named outputs that the answer has. Raises Malformed."""
        raw = self.message.raw_output_contents
        if raw and len(raw) != len(self.message.outputs):
            raise Malformed("not as many raw contents as outputs")
        return {
            output.name: _column(output, raw[place] if raw else None)
            for place, output in enumerate(self.message.outputs)
            if output.name in names
        }


def _column(output: Message, raw: bytes | None) -> Column:
    if raw is not None:
        return of_bytes(output.name, output.datatype, tuple(output.shape), raw)
    if output.datatype == "BYTES":
        return of_json(output.name, tuple(output.shape), [t.decode(errors="replace") for t in output.contents.bytes_contents])
    field = _CONTENTS.get(output.datatype)
    if field is None:
        raise Malformed(f"output {output.name} of type {output.datatype[:20]} has no contents")
    return of_json(output.name, tuple(output.shape), list(getattr(output.contents, field)))


class GrpcModels:
    """All models, over gRPC. Created inside a running event loop; `close` it there too."""

    def __init__(self, directory: Directory, waker: Waker, port: int, message_bytes: int) -> None:
        self._directory, self._waker, self._port = directory, waker, port
        self._options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.max_send_message_length", message_bytes),
        ]
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._next: dict[str, int] = {}
        self._configurations: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {}

    async def close(self) -> None:
        """Close all channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    async def keep_only(self, addresses: set[str]) -> None:
        """Close channels to servers that are gone."""
        for address in self._channels.keys() - addresses:
            await self._channels.pop(address).close(grace=60)

    async def ask(
        self, served: str, request: Message, metadata: Metadata, awake_by: float, deadline: float, *, wake: bool = True
    ) -> GrpcReply:
        """A model's answer to a ModelInferRequest, once it is awake. Raises Failure."""
        waited = await self.awake(served, awake_by, request.ByteSize(), wake=wake)
        asked = service_pb2.ModelInferRequest()
        asked.CopyFrom(request)
        asked.model_name, asked.model_version = served, ""
        answer = await self.call(served, "ModelInfer", asked, metadata, deadline, repeatable=not _is_sequence(request))
        if waited:
            self._waker.answered(served)
        return GrpcReply(answer)

    async def call(
        self, served: str, method: str, request: Message, metadata: Metadata, deadline: float, *, repeatable: bool = True
    ) -> Message:
        """One unary call to a server that has the model. Raises Failure; what is safe to send again goes to another server."""
        problem = Failure(Kind.UNAVAILABLE, f"{served} answers nowhere", 1)
        for address in self._in_turn(served)[:_TRIES]:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel(address))
            left = max(0.001, deadline - asyncio.get_running_loop().time())
            try:
                return await getattr(stub, method)(request, timeout=left, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                problem = self._failure(served, error)
                moved = error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE) and _moved(error)
                if not (moved or (error.code() in _AGAIN and (repeatable or _not_sent(error)))):
                    raise problem from None
                if moved:
                    problem = Failure(Kind.UNAVAILABLE, f"{served} has just left the server it was on", 1)
        raise problem

    async def stream(
        self, served: str, requests: AsyncIterator[Message], metadata: Metadata, awake_by: float, deadline: float
    ) -> AsyncIterator[Message]:
        """A ModelStreamInfer with one server that has the model. Raises Failure."""
        waited = await self.awake(served, awake_by, wake=True)
        addresses = self._in_turn(served)
        if not addresses:
            raise Failure(Kind.UNAVAILABLE, f"{served} answers nowhere", 1)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel(addresses[0]))
        left = max(0.001, deadline - asyncio.get_running_loop().time())
        call = stub.ModelStreamInfer(requests, timeout=left, metadata=metadata)
        try:
            async for message in call:
                if waited:
                    self._waker.answered(served)
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._failure(served, error) from None
        finally:
            call.cancel()

    async def configuration(self, served: str, deadline: float) -> Mapping[str, Any]:
        """A model's configuration, field names as in config.pbtxt; asked once while it stays where it is. Raises Failure."""
        where = self._directory.addresses(served)
        kept = self._configurations.get(served)
        if kept is not None and kept[0] == where:
            return kept[1]
        answer = await self.call(served, "ModelConfig", service_pb2.ModelConfigRequest(name=served), (), deadline)
        found: Mapping[str, Any] = json_format.MessageToDict(answer.config, preserving_proto_field_name=True)
        self._configurations[served] = (where, found)
        return found

    async def awake(self, served: str, awake_by: float, size_bytes: int = 0, *, wake: bool = True) -> bool:
        """Until some server has the model; whether that was waited for. Raises Failure.

        `size_bytes` are held meanwhile; `wake` as in `Waker.must_wait`.
        """
        if not self._waker.must_wait(served, awake_by, wake=wake):
            return False
        async with self._waker.turn(served, awake_by, size_bytes):
            return True

    def _in_turn(self, served: str) -> list[str]:
        """The model's servers, another one first each time."""
        addresses = self._directory.addresses(served)
        if len(addresses) < 2:
            return list(addresses)
        place = self._next[served] = (self._next.get(served, -1) + 1) % len(addresses)
        return [*addresses[place:], *addresses[:place]]

    def _channel(self, address: str) -> grpc.aio.Channel:
        found = self._channels.get(address)
        if found is None:
            host = f"[{address}]" if ":" in address else address
            found = self._channels[address] = grpc.aio.insecure_channel(f"{host}:{self._port}", options=self._options)
        return found

    @staticmethod
    def _failure(served: str, error: grpc.aio.AioRpcError) -> Failure:
        code, details = error.code(), str(error.details() or "")[:1000]
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Failure(Kind.EXPIRED, f"{served}: no answer in time")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:  # said by our own side of the channel
            return Failure(Kind.BROKEN, f"{served}: the answer is larger than what is held: {details}")
        if code in _REFUSED:
            return Failure(_REFUSED[code], details)
        kind = Kind.UNAVAILABLE if code is grpc.StatusCode.UNAVAILABLE else Kind.BROKEN
        return Failure(kind, f"{served} answers {code.name}: {details}", 1 if kind is Kind.UNAVAILABLE else None)


def _is_sequence(request: Message) -> bool:
    return "sequence_id" in request.parameters


def _moved(error: grpc.aio.AioRpcError) -> bool:
    return "unknown model" in str(error.details() or "").lower()


def _not_sent(error: grpc.aio.AioRpcError) -> bool:
    """gRPC says so where no connection came about."""
    return "failed to connect" in str(error.details() or "").lower()
