"""OpenAI's chat API in front of a route whose models generate text."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import grpc.aio
from aiohttp import web
from multidict import CIMultiDict
from tritonclient.grpc import service_pb2

from ergon.api.route import Chat
from ergon.gateway import openai, passing
from ergon.gateway.cascade import Ask
from ergon.gateway.columns import Column, Malformed, named
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.grpc_models import GrpcModels, GrpcReply, Message, Metadata
from ergon.gateway.routes import Candidate, Route
from ergon.gateway.settings import Settings
from ergon.gateway.tasks import Given, Tasks
from ergon.gateway.wire import OPENAI, breaking_off, json_response, read_body, write_piece

log = logging.getLogger("ergon.gateway")

_TRACE = ("traceparent", "tracestate", "baggage", "x-request-id")


@dataclass(frozen=True)
class ChatReply:
    """A model's answer: its messages, all of them, or the first while `more` brings the others."""

    messages: Sequence[GrpcReply]
    more: AsyncIterator[GrpcReply] | None = None

    @property
    def refused(self) -> bool:
        """Never: gRPC tells errors as a status."""
        return False

    def outputs(self, names: Set[str]) -> Mapping[str, Column]:
        """Those of the named outputs that the last message with them has. Raises Malformed."""
        found: dict[str, Column] = {}
        for message in self.messages:
            found.update(message.outputs(names))
        return found


class ChatService:
    """Chat over HTTP; models are asked over gRPC, which brings answers in pieces from those that give them so."""

    def __init__(self, settings: Settings, tasks: Tasks, models: GrpcModels) -> None:
        self._settings, self._tasks, self._models = settings, tasks, models

    async def serve(self, request: web.BaseRequest, namespace: str, name: str, rest: list[str]) -> web.StreamResponse:
        """One request below /<namespace>/<route>/v1. Raises Failure."""
        route = self._tasks.route(namespace, name)
        if route.chat is None:
            raise Failure(Kind.NOT_FOUND, f"route {namespace}/{name} has no chat API: its spec has no chat")
        match request.method, rest:
            case "GET", ["models"]:
                return json_response(openai.models(name))
            case "POST", ["chat", "completions"]:
                return await self._complete(request, route, route.chat)
            case _, ["models"] | ["chat", "completions"]:
                raise Failure(Kind.NOT_ALLOWED, f"not by {request.method}")
        raise Failure(Kind.NOT_FOUND, "there are v1/chat/completions and v1/models")

    async def _complete(self, request: web.BaseRequest, route: Route, chat: Chat) -> web.StreamResponse:
        headers = request.headers
        seconds = passing.timeout_seconds(headers.get(passing.TIMEOUT), route.timeout_seconds, self._settings.longest_seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        body = await read_body(request, self._settings.body_bytes, min(seconds, self._settings.body_seconds))
        asked = openai.read_request(body, chat)
        metadata = tuple((name, headers[name]) for name in _TRACE if name in headers)

        def asker(of: Route) -> "Ask[ChatReply]":  # evaluated for each request, were it no text
            words = of.chat or chat

            async def ask(candidate: Candidate, awake_by: float) -> ChatReply:
                judged = bool(of.when) and candidate is not of.candidates[-1]
                live = asked.stream and not judged
                return await self._ask(candidate.served, asked, words, metadata, awake_by, deadline, live=live)

            return ask

        given = await self._tasks.answer(route, asker, deadline, passing.wish(headers.get(passing.ESCALATION)))
        stamp = openai.Stamp(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), route.name)
        words = given.route.chat or chat
        if asked.stream:
            return await self._stream(request, given, stamp, words, asked, deadline)
        text, tokens = _told(given.reply.messages, words)
        return json_response(openai.completion(stamp, text, tokens), given.headers())

    async def _ask(
        self,
        served: str,
        asked: openai.ChatRequest,
        chat: Chat,
        metadata: Metadata,
        awake_by: float,
        deadline: float,
        *,
        live: bool,
    ) -> ChatReply:
        await self._models.awake(served, awake_by, wake=False)
        configuration = await self._models.configuration(served, deadline)
        message = _request(served, asked, chat, configuration)
        if not (configuration.get("model_transaction_policy") or {}).get("decoupled"):
            return ChatReply([await self._models.ask(served, message, metadata, awake_by, deadline, wake=False)])
        pieces = self._pieces(served, message, metadata, awake_by, deadline)
        if not live:
            return ChatReply([piece async for piece in bounded(served, pieces, self._settings.answer_bytes)])
        first = await anext(pieces, None)
        return ChatReply([first] if first is not None else [], pieces)

    async def _pieces(
        self, served: str, message: Message, metadata: Metadata, awake_by: float, deadline: float
    ) -> AsyncIterator[GrpcReply]:
        async def once() -> AsyncIterator[Message]:
            yield message

        async for answer in self._models.stream(served, once(), metadata, awake_by, deadline):
            if answer.error_message:
                raise Failure(Kind.BROKEN, f"{served}: {answer.error_message[:1000]}")
            if answer.infer_response.outputs:
                yield GrpcReply(answer.infer_response)

    async def _stream(
        self,
        request: web.BaseRequest,
        given: Given[ChatReply],
        stamp: openai.Stamp,
        chat: Chat,
        asked: openai.ChatRequest,
        deadline: float,
    ) -> web.StreamResponse:
        """The answer as server-sent events. What goes wrong after the beginning is an event too, as OpenAI's servers do it."""
        headers = CIMultiDict([("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), *given.headers()])
        response = web.StreamResponse(headers=headers)
        seconds = self._settings.body_seconds
        tokens: int | None = None
        try:
            with breaking_off(request):
                await response.prepare(request)
                try:
                    async with asyncio.timeout_at(deadline):
                        await write_piece(response, openai.first_chunk(stamp), seconds)
                        async for piece in _all(given.reply):
                            text, count = _told([piece], chat)
                            tokens = tokens if count is None else count + (tokens or 0)
                            if text:
                                await write_piece(response, openai.chunk(stamp, text), seconds)
                    await write_piece(response, openai.last_chunks(stamp, tokens, usage=asked.usage), seconds)
                except ConnectionError:
                    raise
                except Exception as problem:
                    await write_piece(response, b"data: " + OPENAI(_failure(problem)) + b"\n\n", seconds)
                await response.write_eof()
        finally:
            if isinstance(given.reply.more, AsyncIterator) and hasattr(given.reply.more, "aclose"):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await given.reply.more.aclose()
        return response


async def bounded(served: str, pieces: AsyncIterator[GrpcReply], limit_bytes: int) -> AsyncIterator[GrpcReply]:
    """Pieces that are held together. Raises Failure where they come to more than `limit_bytes`."""
    held_bytes = 0
    async for piece in pieces:
        held_bytes += piece.message.ByteSize()
        if held_bytes > limit_bytes:
            raise Failure(Kind.BROKEN, f"{served}: the answer is larger than {limit_bytes} bytes, the most that is held")
        yield piece


def _failure(problem: Exception) -> Failure:
    """What is told of a stream that went wrong after its beginning."""
    if isinstance(problem, Failure):
        return problem
    if isinstance(problem, TimeoutError):
        return Failure(Kind.EXPIRED, "the answer did not end in time")
    log.error("a chat answer broke off: an error of the gateway itself", exc_info=problem)
    return Failure(Kind.BROKEN, "an error of the gateway itself; its log says which")


async def _all(reply: ChatReply) -> AsyncIterator[GrpcReply]:
    for message in reply.messages:
        yield message
    if reply.more is not None:
        async for message in reply.more:
            yield message


def _told(messages: Sequence[GrpcReply], chat: Chat) -> tuple[str, int | None]:
    """The text of an answer, and its number of tokens where the model tells it. Raises Failure where there is no text."""
    wanted = {chat.answer, chat.tokens} if chat.tokens else {chat.answer}
    texts, tokens = [], None
    for message in messages:
        try:
            outputs = message.outputs(wanted)
            texts.append(named(outputs, chat.answer).text())
            if chat.tokens and (column := outputs.get(chat.tokens)) is not None and column.flat:
                tokens = (tokens or 0) + int(column.flat[0])
        except (Malformed, ValueError, OverflowError) as problem:
            raise Failure(Kind.BROKEN, f"the model's answer cannot be read: {problem}") from None
    return "".join(texts), tokens


def _request(served: str, asked: openai.ChatRequest, chat: Chat, configuration: Mapping[str, Any]) -> Message:
    """The model's own request, in the shapes that its configuration gives. Raises Failure: it has no such input."""
    message = service_pb2.ModelInferRequest(model_name=served)
    inputs = {tensor.get("name"): tensor for tensor in configuration.get("input") or ()}
    for name, value in ((chat.prompt, asked.prompt), (chat.max_tokens, asked.max_tokens)):
        if name is None or value is None:
            continue
        tensor = inputs.get(name)
        if tensor is None:
            raise Failure(Kind.BROKEN, f"{served} has no input {name}, which the route's chat names")
        own = [max(1, int(size)) for size in tensor.get("dims") or (1,)]
        shape = [1, *own] if int(configuration.get("max_batch_size") or 0) > 0 else own
        datatype = "BYTES" if isinstance(value, str) else "INT32"
        added = message.inputs.add(name=name, datatype=datatype, shape=shape)
        if isinstance(value, str):
            added.contents.bytes_contents.append(value.encode())
        else:
            added.contents.int_contents.append(value)
    return message
