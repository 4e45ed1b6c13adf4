"""/livez, /readyz and /metrics on one port, and the watch on the event loop's lag that /livez answers from."""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ergon.telemetry.metrics import Metrics

log = logging.getLogger("ergon.health")

LAG_CHECK_SECONDS = 0.5
LAG_WINDOW = 20


class HealthServer:
    """Serves health and metrics. `ready` says whether this process can do its work: leading and synced, or standing by."""

    def __init__(self, metrics: Metrics, ready: Callable[[], str]) -> None:
        self._metrics = metrics
        self._ready = ready
        self._runner: web.AppRunner | None = None
        self._lag: list[float] = []

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError where the address cannot be bound."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def watch_lag(self, refresh: Callable[[], None]) -> None:
        """Until cancelled: measure how late the loop wakes up, and have gauges refreshed."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(LAG_CHECK_SECONDS)
            self._lag = [*self._lag[-LAG_WINDOW + 1 :], loop.time() - before - LAG_CHECK_SECONDS]
            self._metrics.loop_lag_seconds.set(max(self._lag))
            refresh()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        problem = self._ready()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
