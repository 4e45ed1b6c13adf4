"""The servers, as the gateway sends to them over HTTP: kept connections, and which server of a model's is asked."""

import asyncio
import random
import socket
from collections import deque
from collections.abc import Iterable, Sequence

from ergon.gateway.balance import SUSPECT_SECONDS, Load, choose
from ergon.gateway.connection import Connection

CONNECT_SECONDS = 3.0
IDLE_CONNECTIONS = 256
"""So many are kept to one server while nobody needs them."""


class Unreachable(Exception):
    """No connection to a server came about, so that nothing was sent."""


class _Server:
    """Connections to one server."""

    def __init__(self) -> None:
        self.load = Load()
        self.idle: list[Connection] = []
        self.open = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Exchange:
    """One exchange with a server: `async with` gives its connection."""

    __slots__ = ("_address", "_connection", "_fresh", "_upstream")

    def __init__(self, upstream: "Upstream", address: str, fresh: bool) -> None:
        self._upstream, self._address, self._fresh = upstream, address, fresh

    async def __aenter__(self) -> Connection:
        self._connection = await self._upstream.take(self._address, self._fresh)
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        self._upstream.give_back(self._address, self._connection)


class Upstream:
    """Kept connections to all servers. Created inside a running event loop."""

    def __init__(self, port: int, connections: int) -> None:
        self._port, self._connections = port, connections
        self._servers: dict[str, _Server] = {}
        self._draw = random.Random().randrange
        self._clock = asyncio.get_running_loop().time

    def choose(self, addresses: Sequence[str], tried: Sequence[str] = ()) -> str | None:
        """The server to ask next, of those where the model answers; None where all were tried."""
        if len(addresses) == 1 and not tried:
            return addresses[0]
        return choose(addresses, self._load, self._clock(), self._draw, tried)

    def suspect(self, address: str) -> None:
        """A server failed: others are asked before it for a while, and connections to it are made anew."""
        server = self._server(address)
        server.load.suspect_until = self._clock() + SUSPECT_SECONDS
        for connection in server.idle:
            connection.close()
        server.idle.clear()

    def connection(self, address: str, *, fresh: bool = False) -> "Exchange":
        """A connection for one exchange, by `async with`; one whose exchange did not end well is closed. Raises Unreachable.

        `fresh`: not one that was used before, which the server may have closed at this very moment.
        """
        return Exchange(self, address, fresh)

    async def take(self, address: str, fresh: bool) -> Connection:
        """A connection, which must be given back. Raises Unreachable."""
        server = self._server(address)
        await self._room(server)
        server.load.outstanding += 1
        try:
            return self._kept(server, fresh) or await self._new(address)
        except BaseException:
            self.give_back(address, None)
            raise

    def give_back(self, address: str, connection: Connection | None) -> None:
        """The exchange is over."""
        server = self._server(address)
        server.load.outstanding -= 1
        server.open -= 1
        if connection is not None:
            if connection.reusable and len(server.idle) < IDLE_CONNECTIONS:
                server.idle.append(connection)
            else:
                connection.close()
        if server.waiting:
            self._pass_on(server)

    def keep_only(self, addresses: Iterable[str]) -> None:
        """Close what is kept to servers that are gone."""
        known = set(addresses)
        for address, server in list(self._servers.items()):
            if address not in known and not server.open:
                self._close(server)
                del self._servers[address]

    def close(self) -> None:
        """Close what is kept."""
        for server in self._servers.values():
            self._close(server)

    def _server(self, address: str) -> _Server:
        found = self._servers.get(address)
        if found is None:
            found = self._servers[address] = _Server()
        return found

    def _load(self, address: str) -> Load:
        return self._server(address).load

    async def _room(self, server: _Server) -> None:
        """Until one more connection may be used; who came first is first."""
        while server.open >= self._connections:
            waiter = asyncio.get_running_loop().create_future()
            server.waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._pass_on(server)
                raise
        server.open += 1

    def _pass_on(self, server: _Server) -> None:
        while server.waiting:
            waiter = server.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _kept(self, server: _Server, fresh: bool) -> Connection | None:
        while server.idle and not fresh:
            connection = server.idle.pop()
            if connection.open:
                return connection
        return None

    async def _new(self, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                transport, connection = await loop.create_connection(Connection, address, self._port)
        except TimeoutError:
            raise Unreachable(f"{address} does not take connections within {CONNECT_SECONDS:g} s") from None
        except OSError as error:
            raise Unreachable(f"{address} cannot be reached: {error.strerror or error}") from None
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    @staticmethod
    def _close(server: _Server) -> None:
        for connection in server.idle:
            connection.close()
        server.idle.clear()
