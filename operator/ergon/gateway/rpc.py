"""The gateway's gRPC side: KServe's inference service, for routes (`namespace/route`) and for models that sleep."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ergon import __version__
from ergon.gateway import passing
from ergon.gateway.budget import Account, Budget
from ergon.gateway.cascade import Ask
from ergon.gateway.directory import Directory
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.grpc_models import GrpcModels, GrpcReply, Message, Metadata
from ergon.gateway.metrics import Metrics
from ergon.gateway.outcome import counted
from ergon.gateway.routes import Candidate, Route
from ergon.gateway.settings import Settings
from ergon.gateway.tasks import Tasks

_OWN = ("ergon-", "grpc-", ":")
_DROPPED = ("user-agent", "te", "content-type")
CONNECTION_SECONDS = 60
"""A client that kept one connection would never get from here to the servers of a model that has woken, nor to new gateways."""
Context = Any
"""grpc.aio.ServicerContext, which is generic over messages that have no types."""


class RpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Listens on the gRPC port. Method names are the protocol's."""

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        tasks: Tasks,
        models: GrpcModels,
        metrics: Metrics,
        budget: Budget,
        ready: Callable[[], str],
    ) -> None:
        self._settings, self._directory, self._tasks, self._models = settings, directory, tasks, models
        self._metrics, self._budget, self._ready = metrics, budget, ready
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.body_bytes),
                ("grpc.max_send_message_length", settings.answer_bytes),
                ("grpc.so_reuseport", 0),
                ("grpc.max_connection_age_ms", CONNECTION_SECONDS * 1000),
            ],
            maximum_concurrent_rpcs=settings.requests_at_once,
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)

    async def start(self) -> int:
        """Listen; the port. Raises OSError where it cannot be bound."""
        try:
            port = self._server.add_insecure_port(f"{self._settings.host}:{self._settings.grpc_port}")
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await self._server.start()
        return int(port)

    async def close(self) -> None:
        """Take no more calls, and let what is under way end, within the time for it."""
        await self._server.stop(self._settings.stop_seconds)

    # The protocol

    async def ModelInfer(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Inference by a route or a model."""
        return await self._told(context, self._infer(request, context))

    async def ModelStreamInfer(self, requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:  # noqa: N802
        """A stream of requests: all to the model that the first one names, or each on its own to the route it names."""
        try:
            first = await anext(aiter(requests), None)
            if first is None:
                return
            answers = self._stream_of_route if "/" in first.model_name else self._stream_of_model
            async for answer in answers(first, requests, context):
                yield answer
        except Failure as failure:
            await _abort(context, failure)

    async def ServerLive(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Whether the gateway lives."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Whether the gateway can serve."""
        return service_pb2.ServerReadyResponse(ready=not self._ready())

    async def ServerMetadata(self, request: Message, context: Context) -> Message:  # noqa: N802
        """What this is."""
        return service_pb2.ServerMetadataResponse(name="ergon-gateway", version=__version__, extensions=["binary_tensor_data"])

    async def ModelReady(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Whether a request would be answered: a model that sleeps is woken by it."""
        return await self._told(context, self._model_ready(request))

    async def ModelMetadata(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Inputs and outputs, of a route as its first model has them."""
        return await self._told(context, self._about(request, context, "ModelMetadata"))

    async def ModelConfig(self, request: Message, context: Context) -> Message:  # noqa: N802
        """A model's configuration, of a route its first model's."""
        return await self._told(context, self._about(request, context, "ModelConfig"))

    # How

    @staticmethod
    async def _told(context: Context, answer: Awaitable[Message]) -> Message:
        try:
            return await answer
        except Failure as failure:
            await _abort(context, failure)

    async def _infer(self, request: Message, context: Context) -> Message:
        by = self._by_route if "/" in request.model_name else self._by_model
        return await self._counted(by, request, context)

    async def _counted(self, by: Callable[[Message, Context], Awaitable[Message]], request: Message, context: Context) -> Message:
        """The answer to a request, whose bytes count until it is there."""
        with Account(self._budget) as account:
            account.take(request.ByteSize())
            return await by(request, context)

    async def _by_route(self, request: Message, context: Context) -> Message:
        route = self._route(request.model_name)
        deadline = self._deadline(context, route.timeout_seconds)
        given_metadata = dict(context.invocation_metadata() or ())
        metadata = _passed(context)

        def asker(of: Route) -> "Ask[GrpcReply]":  # evaluated for each request, were it no text
            asked, _ = _asking_for(request, of)

            async def ask(candidate: Candidate, awake_by: float) -> GrpcReply:
                return await self._models.ask(candidate.served, asked, metadata, awake_by, deadline, wake=False)

            return ask

        given = await self._tasks.answer(route, asker, deadline, passing.wish(given_metadata.get(passing.ESCALATION)))
        context.set_trailing_metadata(tuple(given.headers()))
        answer = service_pb2.ModelInferResponse()
        answer.CopyFrom(given.reply.message)
        answer.model_name = request.model_name
        _drop(answer, _asking_for(request, given.route)[1])
        return answer

    async def _by_model(self, request: Message, context: Context) -> Message:
        served = request.model_name
        model = self._directory.model(served)
        if model is None:
            raise Failure(Kind.NOT_FOUND, f"there is no model {served[:140]}")
        deadline = self._deadline(context, self._settings.hold_seconds)
        async with counted(self._metrics.of(model.namespace, ""), served, deadline, model.name) as outcome:
            reply = await self._models.ask(served, request, _passed(context), deadline, deadline)
            outcome.name = "answered"
            return reply.message

    async def _stream_of_model(self, first: Message, rest: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        deadline = self._deadline(context, self._settings.longest_seconds)
        awake_by = min(deadline, asyncio.get_running_loop().time() + self._settings.hold_seconds)

        async def everything() -> AsyncIterator[Message]:
            yield first
            async for request in rest:
                yield request

        with Account(self._budget) as account:
            account.take(first.ByteSize())  # kept to the end; of those that follow there is one at a time
            async for answer in self._models.stream(first.model_name, everything(), _passed(context), awake_by, deadline):
                yield answer

    async def _stream_of_route(self, first: Message, rest: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        """Each request is answered whole, in order: an answer in pieces could not be judged before it is given."""
        request: Message | None = first
        while request is not None:
            try:
                yield service_pb2.ModelStreamInferResponse(infer_response=await self._counted(self._by_route, request, context))
            except Failure as failure:
                yield service_pb2.ModelStreamInferResponse(error_message=str(failure))
            request = await anext(aiter(rest), None)

    async def _model_ready(self, request: Message) -> Message:
        if "/" in request.name:
            names = [candidate.served for candidate in self._route(request.name).candidates]
        else:
            names = [request.name]
        ready = any(self._directory.addresses(name) or self._directory.asleep(name) for name in names)
        return service_pb2.ModelReadyResponse(ready=ready)

    async def _about(self, request: Message, context: Context, method: str) -> Message:
        deadline = self._deadline(context, self._settings.hold_seconds)
        names = [request.name]
        if "/" in request.name:
            candidates = self._route(request.name).candidates
            names = sorted((c.served for c in candidates), key=lambda name: not self._directory.addresses(name))
        problem = Failure(Kind.UNAVAILABLE, f"{request.name} has no model", 1)
        for served in names:
            try:
                await self._models.awake(served, deadline)
                asked = type(request)(name=served)
                answer = await self._models.call(served, method, asked, _passed(context), deadline)
            except Failure as failure:
                problem = failure
                continue
            if "/" in request.name:
                (answer if method == "ModelMetadata" else answer.config).name = request.name
            return answer
        raise problem

    def _route(self, model_name: str) -> Route:
        namespace, _, name = model_name.partition("/")
        return self._tasks.route(namespace[:64], name[:64])

    def _deadline(self, context: Context, default_seconds: float) -> float:
        left = context.time_remaining()
        seconds = default_seconds if left is None else min(left, self._settings.longest_seconds)
        return asyncio.get_running_loop().time() + seconds


async def _abort(context: Context, failure: Failure) -> None:
    more: Metadata = ()
    if failure.retry_after_seconds is not None:
        more = (("retry-after", str(max(1, round(failure.retry_after_seconds)))),)
    await context.abort(getattr(grpc.StatusCode, failure.kind.grpc_code), str(failure), more)


def _passed(context: Context) -> Metadata:
    """What of a call's metadata is passed on, trace context among it."""
    return tuple(
        (name, value) for name, value in context.invocation_metadata() or () if not name.startswith(_OWN) and name not in _DROPPED
    )


def _asking_for(request: Message, route: Route) -> tuple[Message, tuple[str, ...]]:
    """The request, extended by the outputs that the route looks at and it does not ask for, and their names."""
    asked = {output.name for output in request.outputs}
    missing = tuple(name for name in sorted(route.names) if name not in asked)
    if not asked or not missing:
        return request, ()
    extended = service_pb2.ModelInferRequest()
    extended.CopyFrom(request)
    for name in missing:
        extended.outputs.add(name=name)
    return extended, missing


def _drop(answer: Message, names: tuple[str, ...]) -> None:
    """Take these outputs out of an answer."""
    for place in reversed(range(len(answer.outputs))):
        if answer.outputs[place].name in names:
            del answer.outputs[place]
            if place < len(answer.raw_output_contents):
                del answer.raw_output_contents[place]
