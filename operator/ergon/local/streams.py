"""Carrying bytes between two connections with back-pressure and half-close, for the relays and the service proxy."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

Dial = Callable[[asyncio.Protocol], Awaitable[None]]
"""Connects the given protocol to the far side; raises OSError when nothing answers."""

_ABORT = struct.pack("ii", 1, 0)
_HIGH_WATER_BYTES = 1 << 20


class _Side(asyncio.Protocol):
    """One end of a pipe: what it receives goes to its peer; a slow peer pauses it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Side | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the half-close on; returns whether the other direction is still open."""
        self.ended = True
        if self.peer is None or self.peer.transport is None:
            return False
        if self.peer.ended:
            self.peer.transport.close()
            return False
        self.peer.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        peer, self.peer, self.transport = self.peer, None, None
        if peer is None or peer.transport is None:
            return
        if error is not None:
            reset(peer.transport)
        else:
            peer.transport.close()


class _Front(_Side):
    """The accepted end: it reads nothing until the far side is connected."""

    def __init__(self, dial: Dial, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__()
        self._dial = dial
        self._tasks = tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).pause_reading()
        task = asyncio.get_running_loop().create_task(self._join())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self) -> None:
        back = _Side()
        back.peer = self
        try:
            await self._dial(back)
        except OSError:
            if self.transport is not None:
                reset(self.transport)
            return
        if self.transport is None:
            if back.transport is not None:
                back.transport.close()
            return
        self.peer = back
        self.transport.resume_reading()
        if back.transport is None:
            self.transport.close()


class PipeListener:
    """A protocol factory: every accepted connection is joined to one made by `dial`, or reset when that fails."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self) -> asyncio.Protocol:
        return _Front(self._dial, self._tasks)


def reset(transport: asyncio.Transport) -> None:
    """End a connection with a reset instead of an orderly close, as a refused or broken far side looks to a client."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_INET:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    transport.abort()
