"""Everything that serves requests, put together over one directory: listeners, models, waking. It starts and ends as one."""

import asyncio
from collections.abc import Callable

from ergon.gateway.budget import Budget
from ergon.gateway.chat import ChatService
from ergon.gateway.directory import Directory
from ergon.gateway.grpc_models import GrpcModels
from ergon.gateway.http_models import HttpModels
from ergon.gateway.http_plain import PlainService
from ergon.gateway.http_route import RouteService
from ergon.gateway.metrics import Metrics
from ergon.gateway.rpc import RpcServer
from ergon.gateway.server import HttpServer
from ergon.gateway.settings import Settings
from ergon.gateway.tasks import Tasks
from ergon.gateway.upstream import Upstream
from ergon.gateway.waking import Waker


class Serving:
    """Created inside a running event loop. `state` says why the gateway is not ready; empty: it is."""

    def __init__(self, settings: Settings, directory: Directory, metrics: Metrics, state: Callable[[], str]) -> None:
        self._settings, self._directory = settings, directory
        self._upstream = Upstream(settings.server_http_port, settings.connections)
        self._waker = Waker(
            directory,
            metrics,
            settings.wake_url,
            settings.wake_token_file,
            held_requests=settings.held_requests,
            held_bytes=settings.held_bytes,
        )
        budget = Budget(settings.bytes_at_once)
        tasks = self._tasks = Tasks(directory, metrics)
        self.http_models = HttpModels(directory, self._upstream, self._waker, settings.answer_bytes)
        self._grpc_models = GrpcModels(directory, self._waker, settings.server_grpc_port, settings.answer_bytes)
        self._http = HttpServer(
            settings,
            RouteService(settings, directory, tasks, self.http_models),
            PlainService(settings, directory, self.http_models, self._upstream, self._waker, metrics),
            ChatService(settings, tasks, self._grpc_models),
            budget,
            state,
        )
        self._grpc = RpcServer(settings, directory, tasks, self._grpc_models, metrics, budget, state)

    async def start(self) -> tuple[int, int]:
        """Listen; the ports of HTTP and gRPC. Raises OSError where one cannot be bound."""
        return await self._http.start(), await self._grpc.start()

    def drain(self) -> None:
        """From now on, clients are told to go elsewhere with their next request."""
        self._http.drain()

    async def close(self) -> None:
        """Listen no longer, let what is under way end within the time for it, and let go of everything."""
        held = asyncio.create_task(self._give_up_holding())
        await asyncio.gather(self._http.close(), self._grpc.close())
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        await self._waker.close()
        await self._grpc_models.close()
        self._upstream.close()

    async def tidy(self) -> None:
        """Let go of servers, routes and models that are gone."""
        self._tasks.tidy()
        known = self._directory.all_addresses()
        self._upstream.keep_only(known)
        await self._grpc_models.keep_only(known)

    async def _give_up_holding(self) -> None:
        """Who still waits for a model shortly before the end is told to ask again."""
        await asyncio.sleep(max(0.0, self._settings.stop_seconds - 2))
        await self._waker.close()
