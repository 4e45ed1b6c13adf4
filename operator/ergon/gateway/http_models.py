"""Asking a model over HTTP: which server, which connection, and what may be sent a second time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import NamedTuple

from ergon.gateway import kserve
from ergon.gateway.budget import Account
from ergon.gateway.columns import Column
from ergon.gateway.connection import Broken, Connection, Headers, TooLarge, request_head
from ergon.gateway.directory import Directory
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.upstream import Unreachable, Upstream
from ergon.gateway.waking import Waker

Through = Callable[[Connection], Awaitable[None]]
"""Passes an answer on whose head has come, as it comes. Raises Failure, and never Broken: nothing is asked a second time."""
_UNKNOWN_MODEL = b"unknown model"
_TRIES = 4
OF_THE_MODEL = (404, 408, 429)
"""Statuses below 500 that speak of the model or its server: another model may well answer."""


class HttpRequest(NamedTuple):
    """A request that is held whole, without the name of the model it goes to: `rest` is what follows it in the path."""

    method: str
    rest: str
    headers: Headers
    body: bytes = b""
    repeatable: bool = True
    """Whether a server that may have answered it already may be sent it again."""
    answers: Account | None = None
    """Where the answer's bytes are counted."""


class HttpReply(NamedTuple):
    """A model's whole answer."""

    status: int
    headers: Headers
    body: kserve.Body

    @property
    def refused(self) -> bool:
        """Whether the request itself is wrong."""
        return 400 <= self.status < 500

    def outputs(self, names: Set[str]) -> Mapping[str, Column]:
        """Those of the named outputs that the answer has. Raises Malformed."""
        return kserve.columns(self.body, names)

    def header(self, name: bytes) -> str | None:
        """A header's value."""
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == name), None)


class HttpModels:
    """All models, over HTTP."""

    def __init__(self, directory: Directory, upstream: Upstream, waker: Waker, answer_bytes: int) -> None:
        self._directory, self._upstream, self._waker = directory, upstream, waker
        self._answer_bytes = answer_bytes

    async def ask(
        self, served: str, request: HttpRequest, awake_by: float, *, wake: bool = True, through: Through | None = None
    ) -> HttpReply:
        """A model's answer, once it is awake. Raises Failure: none of its servers gave one.

        `wake`: also where it neither answers nor sleeps, since it may be about to. `through`: gets what is too large to be held,
        whose body is then empty here; without it such an answer is a failure.
        """
        if not self._waker.must_wait(served, awake_by, wake=wake):
            return await self._anywhere(served, request, None, through)
        sent = asyncio.Event()
        asking = None
        async with self._waker.turn(served, awake_by, len(request.body)):
            asking = asyncio.ensure_future(self._anywhere(served, request, sent, through))
            first = asyncio.ensure_future(sent.wait())
            try:
                await asyncio.wait({asking, first}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                asking.cancel()
                raise
            finally:
                first.cancel()
        try:
            reply = await asking
        finally:
            asking.cancel()
        self._waker.answered(served)
        return reply

    async def _anywhere(
        self, served: str, request: HttpRequest, sent: asyncio.Event | None, through: Through | None
    ) -> HttpReply:
        """The answer of one of the model's servers."""
        tried: list[str] = []
        problem: Failure | None = None
        while len(tried) < _TRIES and (address := self._upstream.choose(self._directory.addresses(served), tried)) is not None:
            tried.append(address)
            try:
                reply = await self._at(address, served, request, sent, through)
            except Unreachable as error:
                self._upstream.suspect(address)
                problem = Failure(Kind.UNAVAILABLE, f"{served}: {error}", 1)
            except Broken as error:
                self._upstream.suspect(address)
                problem = Failure(Kind.BROKEN, f"{served}: {error}")
                if not request.repeatable:
                    raise problem from None
            except TooLarge as error:
                raise Failure(Kind.BROKEN, f"{served}: {error}") from None
            else:
                if not _moved(reply):
                    return reply
                problem = Failure(Kind.UNAVAILABLE, f"{served} has just left the server it was on", 1)
        raise problem or Failure(Kind.UNAVAILABLE, f"{served} answers nowhere", 1)

    async def _at(
        self, address: str, served: str, request: HttpRequest, sent: asyncio.Event | None, through: Through | None
    ) -> HttpReply:
        """One server's answer. A kept connection that the server closed meanwhile is made anew."""
        head = request_head(request.method, f"/v2/models/{served}{request.rest}", _with_length(served, request))
        for fresh in (not request.repeatable, True):
            async with self._upstream.connection(address, fresh=fresh) as connection:
                was_used = connection.used
                try:
                    connection.begin(head, request.body)
                    if sent is not None:
                        sent.set()
                    if through is not None:
                        await connection.head()
                        if not await connection.whole():
                            await through(connection)
                            return HttpReply(connection.status, connection.headers, kserve.Body(b""))
                    return await read_reply(connection, self._answer_bytes, request.answers)
                except Broken as error:
                    if fresh or not was_used or not error.untouched:
                        raise
        raise AssertionError("unreachable")


async def read_reply(connection: Connection, limit_bytes: int, answers: Account | None = None) -> HttpReply:
    """The whole answer that comes on a connection. Raises Broken, TooLarge, and Failure where no more answers can be held."""
    await connection.head()
    data = await connection.read(limit_bytes, answers.take if answers is not None else None)
    reply = HttpReply(connection.status, connection.headers, kserve.Body(data))
    length = reply.header(b"inference-header-content-length")
    if length is not None and length.isdecimal() and int(length) <= len(data):
        return HttpReply(reply.status, reply.headers, kserve.Body(data, int(length)))
    return reply


def _with_length(served: str, request: HttpRequest) -> Headers:
    fixed = [(b"Host", served.encode()), *request.headers]
    return [*fixed, (b"Content-Length", b"%d" % len(request.body))] if request.body or request.method == "POST" else fixed


def _moved(reply: HttpReply) -> bool:
    """Whether a server does not have the model, or no longer. Triton says so with 400, 404 or 503."""
    return reply.status in (400, 404, 503) and _UNKNOWN_MODEL in reply.body.data[:200].lower()
