"""KServe v2 inference over HTTP, addressed to a route."""

import asyncio
import json

from aiohttp import web
from multidict import CIMultiDict

from ergon.gateway import kserve, passing
from ergon.gateway.cascade import Ask
from ergon.gateway.columns import Malformed
from ergon.gateway.directory import Directory
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.http_models import OF_THE_MODEL, HttpModels, HttpReply, HttpRequest
from ergon.gateway.routes import Candidate, Route
from ergon.gateway.settings import Settings
from ergon.gateway.tasks import Given, Tasks
from ergon.gateway.wire import ANSWERS, decoded, json_response, read_body

_HEADER_LENGTH = kserve.HEADER_LENGTH.lower().encode()
_NO_JSON = "failed to parse the request JSON"
"""Triton 2.6x says so with HTTP 500, though no other model will make anything of it."""


class RouteService:
    """Routes over HTTP."""

    def __init__(self, settings: Settings, directory: Directory, tasks: Tasks, models: HttpModels) -> None:
        self._settings, self._directory, self._tasks, self._models = settings, directory, tasks, models

    async def serve(self, request: web.BaseRequest, namespace: str, name: str, rest: list[str]) -> web.StreamResponse:
        """One request below /<namespace>/<route>/v2. Raises Failure."""
        match rest:
            case ["models", _, "infer"] | ["models", _, "versions", _, "infer"]:
                if request.method != "POST":
                    raise Failure(Kind.NOT_ALLOWED, "inference is asked for by POST")
                return await self._infer(request, self._tasks.route(namespace, name))
        if request.method not in ("GET", "HEAD"):
            raise Failure(Kind.NOT_ALLOWED, "of a route, POST takes inference alone")
        route = self._tasks.route(namespace, name)
        match rest:
            case [] | [""]:
                return json_response({"name": name, "version": "", "extensions": ["binary_tensor_data"]})
            case ["health", "live"]:
                return web.Response()
            case ["health", "ready"] | ["models", _, "ready"] | ["models", _, "versions", _, "ready"]:
                return web.Response(status=200 if self._answers(route) else 503)
            case ["models", _] | ["models", _, "versions", _]:
                return await self._metadata(request, route)
        raise Failure(
            Kind.NOT_FOUND, f"a route serves v2/models/<any name>/infer, ready and metadata, not v2/{'/'.join(rest)[:100]}"
        )

    async def _infer(self, request: web.BaseRequest, route: Route) -> web.Response:
        clock, headers = asyncio.get_running_loop().time, request.headers
        seconds = passing.timeout_seconds(headers.get(passing.TIMEOUT), route.timeout_seconds, self._settings.longest_seconds)
        deadline = clock() + seconds
        wish = passing.wish(headers.get(passing.ESCALATION))
        data = await read_body(request, self._settings.body_bytes, min(seconds, self._settings.body_seconds))
        compressed = headers.get("Content-Encoding", "identity").lower() != "identity"
        try:
            body = kserve.Body(data) if compressed else kserve.body_of(data, headers.get(kserve.HEADER_LENGTH))
        except Malformed as problem:
            raise Failure(Kind.BAD_REQUEST, str(problem)) from None
        passed = passing.to_server(request.raw_headers, plain=True)
        held = request[ANSWERS]
        added: dict[str, tuple[str, ...]] = {}
        """By route: outputs that the client did not ask for."""

        def asker(of: Route) -> "Ask[HttpReply]":  # evaluated for each request, were it no text
            asked, added[of.name] = (body, ()) if compressed else kserve.asking_for(body, of.names)
            sent = HttpRequest("POST", "/infer", _with_length(passed, asked), asked.data, not kserve.is_sequence(body), held)

            async def ask(candidate: Candidate, awake_by: float) -> HttpReply:
                return _sound(candidate, await self._models.ask(candidate.served, sent, awake_by, wake=False))

            return ask

        given = await self._tasks.answer(route, asker, deadline, wish)
        return _response(route, given, added[given.route.name])

    async def _metadata(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Inputs and outputs as the first model that can tell has them, under the route's name."""
        deadline = asyncio.get_running_loop().time() + route.timeout_seconds
        asked = HttpRequest("GET", "", passing.to_server(request.raw_headers, plain=True))
        problem = Failure(Kind.UNAVAILABLE, f"no model of route {route.namespace}/{route.name} is ready", 1)
        for candidate in sorted(route.candidates, key=lambda candidate: self._directory.asleep(candidate.served)):
            try:
                async with asyncio.timeout_at(deadline):
                    reply = _sound(candidate, await self._models.ask(candidate.served, asked, deadline, wake=False))
                fields = json.loads(reply.body.data)
            except (Failure, TimeoutError, ValueError):
                continue
            return json_response({**fields, "name": route.name})
        raise problem

    def _answers(self, route: Route) -> bool:
        return any(self._directory.addresses(c.served) or self._directory.asleep(c.served) for c in route.candidates)


def _with_length(headers: passing.Headers, body: kserve.Body) -> passing.Headers:
    """The headers with the length of the JSON that is really sent."""
    if body.json_length is None:
        return headers
    kept = [(name, value) for name, value in headers if name.lower() != _HEADER_LENGTH]
    return [*kept, (_HEADER_LENGTH, b"%d" % body.json_length)]


def _sound(candidate: Candidate, reply: HttpReply) -> HttpReply:
    """An answer that the model gave. Raises Failure where it says that it cannot."""
    if reply.status >= 500:
        error = _error_of(reply)
        if error.startswith(_NO_JSON):
            raise Failure(Kind.BAD_REQUEST, error)
        raise Failure(Kind.BROKEN, f"{candidate.served} answers HTTP {reply.status}: {error}")
    if reply.status in OF_THE_MODEL:
        raise Failure(Kind.UNAVAILABLE, f"{candidate.served} answers HTTP {reply.status}: {_error_of(reply)}", 1)
    return reply


def _error_of(reply: HttpReply) -> str:
    try:
        return str(json.loads(reply.body.data)["error"])[:1000]
    except (ValueError, KeyError, TypeError):
        return reply.body.data[:200].decode(errors="replace")


def _response(route: Route, given: Given[HttpReply], added: tuple[str, ...]) -> web.Response:
    reply, body = given.reply, given.reply.body
    if reply.status == 200:
        served = f"{route.namespace}.{given.model}"
        body = kserve.renamed(kserve.without(body, added), served, route.name)
    headers = CIMultiDict(decoded(passing.to_client(_with_length(reply.headers, body))))
    headers.extend(given.headers())
    return web.Response(status=reply.status, body=body.data, headers=headers)
