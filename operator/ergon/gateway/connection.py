"""One HTTP/1.1 connection to a server, kept for one exchange after the other: asyncio's transport under httptools' parser.

aiohttp's client spends 0.3 ms of CPU on an exchange, most of what the gateway may spend on a request in all; this spends 0.05.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import cast

import httptools

HIGH_WATER_BYTES = 256 << 10
Headers = list[tuple[bytes, bytes]]


class Broken(Exception):
    """The connection ended before the answer did. `untouched`: no byte of an answer had come."""

    def __init__(self, message: str, *, untouched: bool) -> None:
        super().__init__(message)
        self.untouched = untouched


class TooLarge(Exception):
    """The answer is larger than what was allowed."""


class Connection(asyncio.Protocol):
    """Sends one request at a time; after `done` it is free for the next one where `reusable`."""

    def __init__(self) -> None:
        self.used = False
        self.status = 0
        self.headers: Headers = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: deque[bytes] = deque()
        self._held_bytes = 0
        self._limit_bytes: int | None = None
        self._take: Callable[[int], None] = _free
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused_writing = False
        self._headed = self._complete = self._sent_whole = False
        self._keep_alive = True
        self._problem: BaseException | None = None

    # What callers do

    @property
    def open(self) -> bool:
        """Whether it can take a request."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def announced_bytes(self) -> int | None:
        """The length of the answer's body, where the server said it."""
        text = next((value for name, value in self.headers if name.lower() == b"content-length"), b"")
        return int(text) if text.isdigit() else None

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and the connection may serve another one."""
        # Where the server answered before it had the whole request, it would take the next one for the rest of this one's body.
        return self._complete and self._sent_whole and self._keep_alive and self.open

    def begin(self, head: bytes, body: bytes = b"", *, more: bool = False) -> None:
        """Send a request; `more`: its body follows by `send`. Raises Broken where the connection is closed."""
        if not self.open:
            raise Broken("the server closed the connection", untouched=True)
        assert self._transport is not None
        self.status, self.headers = 0, []
        self._parts.clear()
        self._held_bytes, self._limit_bytes = 0, None
        self._headed = self._complete = False
        self._sent_whole = not more
        self._problem = None
        self._resume()  # the answer before may have ended beyond the high water
        if self.used:
            self._parser = httptools.HttpResponseParser(self)
        self.used = True
        self._transport.writelines((head, body)) if body else self._transport.write(head)

    async def send(self, pieces: AsyncIterator[bytes]) -> None:
        """Send a body by pieces, as fast as the server takes it. An answer that comes meanwhile ends it."""
        async for piece in pieces:
            if self._headed or not self.open:
                return
            assert self._transport is not None
            self._transport.write(piece)
            if self._paused_writing:
                self._writable = self._loop.create_future()
                await self._writable
        self._sent_whole = True

    async def head(self) -> None:
        """Until status and headers are there. Raises Broken."""
        while not self._headed:
            await self._wait()

    async def whole(self) -> bool:
        """Until the answer's body is whole, or more of it has come than is held here: then `pieces` brings it. Raises Broken."""
        while not self._complete and self._held_bytes <= HIGH_WATER_BYTES:
            await self._wait()
        return self._complete

    async def read(self, limit_bytes: int, take: Callable[[int], None] | None = None) -> bytes:
        """The whole answer's body. Raises Broken, TooLarge, and what `take` raises, which is told of all bytes that come."""
        self._limit_bytes, self._take = limit_bytes, take or _free
        if self._held_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        self._take(self._held_bytes)
        while not self._complete:
            self._resume()
            await self._wait()
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        return body

    async def pieces(self) -> AsyncIterator[bytes]:
        """The answer's body as it comes; the server waits while nobody takes it. Raises Broken."""
        while True:
            while self._parts:
                piece = self._parts.popleft()
                self._held_bytes -= len(piece)
                yield piece
            self._resume()
            if self._complete:
                return
            await self._wait()

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Some bytes of an answer."""
        if self._complete or not self.used:
            self.close()  # bytes that nobody asked for: what follows cannot be trusted
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(Broken(f"the server sent what is no HTTP: {error}", untouched=not self._headed))
            self.close()

    def eof_received(self) -> bool:
        """The server will send no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. An answer without a length ends so."""
        if self._headed and not self._complete and exc is None and self._ends_with_connection():
            self._keep_alive = False
            self.on_message_complete()
        elif not self._complete:
            reason = f"the connection to the server broke ({exc})" if exc else "the server closed the connection"
            self._fail(Broken(reason, untouched=not self._headed))
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def pause_writing(self) -> None:
        """The server takes nothing for now."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """The server takes more."""
        self._paused_writing = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole. 1xx heads are no answer yet."""
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []
            return
        self._keep_alive = self._parser.should_keep_alive()
        self._headed = True
        self._wake()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._parts.append(data)
        self._held_bytes += len(data)
        if self._limit_bytes is not None:
            try:
                if self._held_bytes > self._limit_bytes:
                    raise _too_large(self._limit_bytes)
                self._take(len(data))
            except Exception as problem:
                self._fail(problem)
                self._parts.clear()
                self.close()
            return
        if self._held_bytes > HIGH_WATER_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._headed:
            self._complete = True
            self._wake()

    async def _wait(self) -> None:
        if self._problem is not None:
            raise self._problem
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._problem is not None and not self._complete:
            raise self._problem

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, problem: BaseException) -> None:
        self._problem = self._problem or problem
        self._wake()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def _ends_with_connection(self) -> bool:
        names = {name.lower() for name, _ in self.headers}
        return b"content-length" not in names and b"transfer-encoding" not in names


def _free(size_bytes: int) -> None:
    """Nobody counts."""


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the answer is larger than {limit_bytes} bytes, the most that is held")


def request_head(method: str, target: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A request's head. Raises ValueError for what would break out of its line."""
    lines = [f"{method} {target} HTTP/1.1".encode()]
    lines += [name + b": " + value for name, value in headers]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or b"\0" in head:
        raise ValueError("a header holds a line break")
    return head + b"\r\n\r\n"
