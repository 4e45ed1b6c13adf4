"""The gateway's HTTP side: aiohttp's low-level server, and which part of the gateway a request is for."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ergon import __version__
from ergon.gateway import kserve
from ergon.gateway.budget import Account, Budget
from ergon.gateway.chat import ChatService
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.http_plain import PlainService
from ergon.gateway.http_route import RouteService
from ergon.gateway.settings import Settings
from ergon.gateway.wire import ACCOUNT, ANSWERS, KSERVE, OPENAI, error_response, json_response, write_whole

log = logging.getLogger("ergon.gateway")

HEAD_SECONDS = 20.0
"""A client that has not sent the head of a first request by then is sent away."""
IDLE_SECONDS = 75.0
ROUTES_ALONE = "_routes"
"""Below it no model's own address is served: there the chart leads what comes from outside, by the Gateway API. No namespace
may be called so."""
_BACKLOG = 4096
_SILENT = logging.getLogger("ergon.gateway.silent")
_SILENT.disabled = True
_SERVER = {"name": "ergon-gateway", "version": __version__, "extensions": ["binary_tensor_data"]}


class HttpServer:
    """Listens, and hands requests on. `ready` says whether the gateway knows enough to serve."""

    def __init__(
        self,
        settings: Settings,
        routes: RouteService,
        plain: PlainService,
        chat: ChatService,
        budget: Budget,
        ready: Callable[[], str],
    ) -> None:
        self._budget, self._answers = budget, Budget(settings.answers_at_once, "answers")
        self._settings, self._routes, self._plain, self._chat, self._ready = settings, routes, plain, chat, ready
        self._under_way = 0
        self._draining = False
        self._server: web.Server | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self) -> int:
        """Listen; the port. Raises OSError where it cannot be bound."""
        self._server = _Server(
            self._handle,
            handler_cancellation=True,  # who has gone waits for no answer
            auto_decompress=False,
            access_log=None,
            logger=_SILENT,  # what is no HTTP is answered 400; a line for each would fill the log
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=5.0,
        )
        self._runner = web.ServerRunner(self._server, access_log=None, shutdown_timeout=self._settings.stop_seconds)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.http_port, backlog=_BACKLOG)
        await site.start()
        return int(self._runner.addresses[0][1])

    def drain(self) -> None:
        """From now on, every answer ends its connection, so that clients go elsewhere."""
        self._draining = True

    async def close(self) -> None:
        """Listen no longer, and let what is under way end, within the time for it."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers, and counts the request as under way until its answer is written."""
        self._under_way += 1
        request[ACCOUNT], request[ANSWERS] = taken, answered = Account(self._budget), Account(self._answers)
        try:
            response = await self._answer(request)
            if response.status == Kind.TOO_MANY.status and not request.content.is_eof():
                response.force_close()  # what is left of the body is not read
            await write_whole(request, response, self._settings.body_seconds)
            return response
        finally:
            taken.settle()
            answered.settle()
            self._under_way -= 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if self._under_way > self._settings.requests_at_once:
                response: web.StreamResponse = error_response(
                    Failure(Kind.UNAVAILABLE, f"{self._under_way - 1} requests are under way already", 1), KSERVE
                )
            else:
                response = await self._dispatch(request)
        except ConnectionError:
            raise  # the client is gone
        except Exception:
            log.exception("%s %s: an error of the gateway itself", request.method, request.raw_path[:200])
            response = web.Response(status=500, body=kserve.error("an error of the gateway itself; its log says which"))
        if response.prepared:
            return response
        response.headers["Server"] = "ergon-gateway"
        if self._draining:
            response.force_close()
        return response

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        parts = path.split("/")[1:]
        routes_alone = parts[0] == ROUTES_ALONE
        if routes_alone:
            parts = parts[1:]
        form = OPENAI if parts[2:3] == ["v1"] else KSERVE
        try:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await _go_on(request)
            if parts[:1] == ["v2"] and not routes_alone:
                return await self._model(request, parts[1:], query)
            match parts[2:]:
                case ["v2", *rest]:
                    return await self._routes.serve(request, parts[0], parts[1], rest)
                case ["v1", *rest]:
                    return await self._chat.serve(request, parts[0], parts[1], rest)
            raise Failure(Kind.NOT_FOUND, "there are /<namespace>/<route>/v2/… and, for models that sleep, /v2/models/<name>/…")
        except Failure as failure:
            return error_response(failure, form)

    async def _model(self, request: web.BaseRequest, parts: list[str], query: str) -> web.StreamResponse:
        """What a model's Service leads here while the model sleeps."""
        match parts:
            case [] | [""]:
                return json_response(_SERVER)
            case ["health", "live"]:
                return web.Response()
            case ["health", "ready"]:
                return web.Response(status=503 if self._ready() else 200)
            case ["models", served, *rest]:
                return await self._plain.serve(request, served, rest, query)
        raise Failure(Kind.NOT_FOUND, "only /v2/models/<name>/… is served here")


class _Server(web.Server):
    """With an end to the patience with clients that connect and send nothing, or a head by single bytes."""

    def __call__(self) -> Any:
        handler = super().__call__()
        asyncio.get_running_loop().call_later(HEAD_SECONDS, _end_if_silent, handler)
        return handler


def _end_if_silent(handler: Any) -> None:
    if not getattr(handler, "_request_count", 1):
        handler.force_close()


async def _go_on(request: web.BaseRequest) -> None:
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
