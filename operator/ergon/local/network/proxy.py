"""Service addresses: a listener for each cluster address and port that has endpoints, a fresh choice for each connection.

Without endpoints nothing listens, so that clients are refused at once, as kube-proxy's reject rule does.
"""

from __future__ import annotations

import asyncio
import logging
import random

from ergon.local.network.services import Endpoint, Service
from ergon.local.streams import PipeListener

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_CONNECT_SECONDS = 3.0
_BACKLOG = 1024
_AGAIN_SECONDS = 1.0


class ServiceProxy:
    """Keeps listeners as the service table says; `update` may be called from informer callbacks."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[str, int], tuple[Service, str]] = {}
        self._listeners: dict[tuple[str, int], asyncio.Server] = {}
        self._dirty: set[tuple[str, int]] = set()
        self._by_service: dict[tuple[str, str], set[tuple[str, int]]] = {}
        self._wake = asyncio.Event()

    def update(self, service: Service) -> None:
        """Note which listeners a changed service wants."""
        key = (service.namespace, service.name)
        wanted = {
            (service.address, number): name
            for name, number in service.ports.items()
            if service.address and service.endpoints(name)
        }
        for place in self._by_service.pop(key, set()) - set(wanted):
            self._wanted.pop(place, None)
            self._dirty.add(place)
        for place, name in wanted.items():
            if place not in self._wanted:
                self._dirty.add(place)
            self._wanted[place] = (service, name)
        if wanted:
            self._by_service[key] = set(wanted)
        self._wake.set()

    async def run(self) -> None:
        """Open and close listeners until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                await self._settle(self._dirty.pop())

    async def _settle(self, place: tuple[str, int]) -> None:
        listener = self._listeners.get(place)
        if place not in self._wanted:
            if listener is not None:
                listener.close()
                del self._listeners[place]
            return
        if listener is not None:
            return
        try:
            self._listeners[place] = await asyncio.get_running_loop().create_server(
                PipeListener(lambda protocol: self._dial(place, protocol)), *place, backlog=_BACKLOG
            )
        except OSError as error:
            _log.warning("service address %s:%d is tried again: %s", *place, error)
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._again, place)

    def _again(self, place: tuple[str, int]) -> None:
        self._dirty.add(place)
        self._wake.set()

    async def _dial(self, place: tuple[str, int], protocol: asyncio.Protocol) -> None:
        """Connect to one endpoint; another is tried when it does not answer. Raises OSError when none does."""
        wanted = self._wanted.get(place)
        choices = wanted[0].endpoints(wanted[1]) if wanted else []
        loop = asyncio.get_running_loop()
        for endpoint in random.sample(choices, min(len(choices), _ATTEMPTS)):
            try:
                await asyncio.wait_for(_connect(loop, endpoint, protocol), _CONNECT_SECONDS)
            except (OSError, TimeoutError):
                continue
            return
        raise ConnectionRefusedError(f"no endpoint of {place[0]}:{place[1]} answers")


async def _connect(loop: asyncio.AbstractEventLoop, endpoint: Endpoint, protocol: asyncio.Protocol) -> None:
    await loop.create_connection(lambda: protocol, endpoint.address, endpoint.port)
