"""Relays that carry a connection across the border of the network namespace: loopback port, Unix socket, address inside.

The sockets are named relative to the sockets folder (the process changes into it): Unix socket paths are at most 107 bytes long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from ergon.local.state import API_ADDRESS, API_PORT, GATEWAY_PORT, Layout
from ergon.local.streams import Dial, PipeListener

API_SOCKET = "api.sock"
GATEWAY_SOCKET = "gateway.sock"
GATEWAY_ADDRESS = "10.96.0.20"
"""The cluster address of the Gateway's Service."""


def _tcp(host: str, port: int) -> Dial:
    async def dial(protocol: asyncio.Protocol) -> None:
        await asyncio.get_running_loop().create_connection(lambda: protocol, host, port)

    return dial


def _unix(path: str) -> Dial:
    async def dial(protocol: asyncio.Protocol) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: protocol, path)

    return dial


async def serve_outside(sockets: Path, api_port: int, gateway_port: int) -> list[asyncio.Server]:
    """Listen on the loopback ports of the machine and carry to the Unix sockets; the caller keeps the servers."""
    os.chdir(sockets)
    loop = asyncio.get_running_loop()
    ports = ((api_port, API_SOCKET), (gateway_port, GATEWAY_SOCKET))
    return [await loop.create_server(PipeListener(_unix(name)), "127.0.0.1", port, backlog=1024) for port, name in ports]


async def serve_inside(sockets: Path) -> list[asyncio.Server]:
    """Listen on the Unix sockets and carry to the addresses inside."""
    os.chdir(sockets)
    loop = asyncio.get_running_loop()
    targets = ((API_SOCKET, API_ADDRESS, API_PORT), (GATEWAY_SOCKET, GATEWAY_ADDRESS, GATEWAY_PORT))
    servers = []
    for name, host, port in targets:
        _remove(name)
        servers.append(await loop.create_unix_server(PipeListener(_tcp(host, port)), name, backlog=1024))
    return servers


def _remove(name: str) -> None:
    """Remove a socket that an earlier run left."""
    Path(name).unlink(missing_ok=True)


async def _main(name: str) -> None:
    servers = await serve_inside(Layout.of(name).sockets)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(sys.argv[1]))
