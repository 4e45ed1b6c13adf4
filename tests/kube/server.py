"""A tiny HTTP server that answers as it is told, in the place of an API server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


Answer = web.Response | None
"""None closes the connection without a word."""


@dataclass
class Script:
    """The answers to give, the last one for ever; and what came in."""

    answers: list[Callable[[Request], Answer]]
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def configuration(self, **headers: str) -> Configuration:
        configuration = Configuration(host=self.url)
        configuration.client_session_kwargs = {"trust_env": False}
        if headers:
            configuration.api_key = headers
        return configuration


def say(code: int, body: Any = None, **headers: str) -> Callable[[Request], Answer]:
    """An answer with a JSON body."""
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.json_response({} if body is None else body, status=code, headers=renamed)


def status(code: int, message: str, reason: str = "") -> Callable[[Request], Answer]:
    """An answer with the API server's Status object."""
    return say(code, {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code})


def hang_up(_: Request) -> Answer:
    """The connection closes without an answer."""
    return None


def silence(_: Request) -> Answer:
    """No answer ever comes."""
    raise _Silent


class _Silent(Exception):
    """Stands for an answer that never comes."""


@asynccontextmanager
async def serving(*answers: Callable[[Request], Answer]) -> AsyncIterator[Script]:
    """The server on a loopback port."""
    script = Script(list(answers))

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        seen = Request(
            request.method,
            request.path,
            dict(request.query),
            {name.lower(): value for name, value in request.headers.items()},
            body,
        )
        script.requests.append(seen)
        try:
            answer = script.answers[min(len(script.requests), len(script.answers)) - 1](seen)
        except _Silent:
            await asyncio.Event().wait()
            raise
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        script.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield script
    finally:
        await runner.cleanup()
