"""A model's own address over HTTP, while its Service leads here: held until the model is awake, then passed on as it is."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from aiohttp import web
from multidict import CIMultiDict

from ergon.gateway import kserve, passing
from ergon.gateway.connection import Broken, Connection, request_head
from ergon.gateway.directory import Directory
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.http_models import HttpModels, HttpReply, HttpRequest
from ergon.gateway.metrics import Metrics
from ergon.gateway.outcome import counted
from ergon.gateway.settings import Settings
from ergon.gateway.upstream import Unreachable, Upstream
from ergon.gateway.waking import Waker
from ergon.gateway.wire import ANSWERS, body_pieces, breaking_off, decoded, read_body, write_piece, write_whole

R = TypeVar("R", bound=web.StreamResponse)
HELD_BYTES = 1 << 20
"""Bodies up to this size are held whole, so that another server can be asked; larger ones stream, as do answers above 256 KiB."""


class PlainService:
    """Models over HTTP."""

    def __init__(
        self, settings: Settings, directory: Directory, models: HttpModels, upstream: Upstream, waker: Waker, metrics: Metrics
    ) -> None:
        self._settings, self._directory, self._models = settings, directory, models
        self._upstream, self._waker, self._metrics = upstream, waker, metrics

    async def serve(self, request: web.BaseRequest, served: str, rest: list[str], query: str) -> web.StreamResponse:
        """One request below /v2/models/<served>. Raises Failure."""
        model = self._directory.model(served)
        if model is None:
            raise Failure(Kind.NOT_FOUND, f"there is no model {served[:140]}")
        match rest:
            case ["ready"] | ["versions", _, "ready"] if request.method in ("GET", "HEAD"):
                answers = self._directory.addresses(served) or self._directory.asleep(served)
                return self._passing_on(served, web.Response(status=200 if answers else 503))
        seconds = passing.timeout_seconds(
            request.headers.get(passing.TIMEOUT), self._settings.hold_seconds, self._settings.longest_seconds
        )
        deadline = asyncio.get_running_loop().time() + seconds
        async with counted(self._metrics.of(model.namespace, ""), served, deadline, model.name) as outcome:
            target = "".join(f"/{part}" for part in rest) + (f"?{query}" if query else "")
            response = await self._answer(request, served, target, deadline)
            outcome.name = "answered" if response.status < 400 else "refused" if response.status < 500 else "failed"
            return response

    async def _answer(self, request: web.BaseRequest, served: str, target: str, deadline: float) -> web.StreamResponse:
        length = request.content_length if request.can_read_body or request.content_length else 0
        headers = passing.to_server(request.raw_headers)
        method = "GET" if request.method == "HEAD" else request.method
        if length is not None and length <= HELD_BYTES and not _streams(target):
            data = await read_body(request, HELD_BYTES, self._settings.body_seconds)
            repeatable = method == "GET" or (target.endswith("/infer") and not kserve.is_sequence(kserve.Body(data)))
            asked = HttpRequest(method, target, headers, data, repeatable, request[ANSWERS])
            streamed: list[web.StreamResponse] = []

            async def through(connection: Connection) -> None:
                try:
                    streamed.append(await self._pass_on(request, served, connection))
                except Broken as error:
                    raise Failure(Kind.BROKEN, f"{served}: {error}") from None

            reply = await self._models.ask(served, asked, deadline, through=through)
            return streamed[0] if streamed else self._passing_on(served, _response(reply))
        if length is not None and length > self._settings.body_bytes:
            raise Failure(Kind.TOO_LARGE, f"the body is larger than {self._settings.body_bytes} bytes")
        return await self._stream(request, served, method, target, headers, length, deadline)

    async def _stream(
        self,
        request: web.BaseRequest,
        served: str,
        method: str,
        target: str,
        headers: passing.Headers,
        length: int | None,
        deadline: float,
    ) -> web.StreamResponse:
        """A large body, or an answer that comes in pieces: through, once the model is awake. What broke is not sent again."""
        waited = self._waker.must_wait(served, deadline, wake=True)
        if waited:
            async with self._waker.turn(served, deadline):
                pass
        framing = (b"Transfer-Encoding", b"chunked") if length is None else (b"Content-Length", b"%d" % length)
        head = request_head(method, f"/v2/models/{served}{target}", [(b"Host", served.encode()), *headers, framing])
        tried: list[str] = []
        while (address := self._upstream.choose(self._directory.addresses(served), tried)) is not None:
            tried.append(address)
            try:
                async with self._upstream.connection(address, fresh=True) as connection:
                    response = await self._through(request, served, connection, head, length)
                    if waited:
                        self._waker.answered(served)
                    return response
            except Unreachable:
                self._upstream.suspect(address)
            except Broken as error:
                self._upstream.suspect(address)
                raise Failure(Kind.BROKEN, f"{served}: {error}") from None
        raise Failure(Kind.UNAVAILABLE, f"{served}: none of its servers can be reached", 1)

    def _passing_on(self, served: str, response: R) -> R:
        """Once its own servers answer, a model's Service leads to them: who keeps this connection would never get there."""
        if self._directory.addresses(served):
            response.force_close()
        return response

    async def _through(
        self, request: web.BaseRequest, served: str, connection: Connection, head: bytes, length: int | None
    ) -> web.StreamResponse:
        pieces = body_pieces(request, self._settings.body_bytes, self._settings.body_seconds)
        connection.begin(head, more=True)
        sending = asyncio.ensure_future(connection.send(_chunked(pieces) if length is None else pieces))
        answering = asyncio.ensure_future(connection.head())
        try:
            await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            await answering
            return await self._pass_on(request, served, connection)
        finally:
            sending.cancel()
            answering.cancel()

    async def _pass_on(self, request: web.BaseRequest, served: str, connection: Connection) -> web.StreamResponse:
        """An answer whose head has come, as it comes. Raises Broken; the client's connection is cut then."""
        response = web.StreamResponse(status=connection.status)
        response.headers.extend(decoded(passing.to_client(connection.headers)))
        response.content_length = connection.announced_bytes
        self._passing_on(served, response)
        with breaking_off(request):
            await response.prepare(request)
            async for piece in connection.pieces():
                await write_piece(response, piece, self._settings.body_seconds)
            await write_whole(request, response, self._settings.body_seconds)
        return response


async def _chunked(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield b"%x\r\n" % len(piece) + piece + b"\r\n"
    yield b"0\r\n\r\n"


def _streams(target: str) -> bool:
    return target.partition("?")[0].endswith("/generate_stream")


def _response(reply: HttpReply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body.data, headers=CIMultiDict(decoded(passing.to_client(reply.headers))))
