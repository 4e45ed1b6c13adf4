"""One gateway process: health first, then what is known, then the two listeners; and the end in the opposite order."""

import asyncio
import gc
import logging
import resource
import signal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ergon.gateway.directory import Directory
from ergon.gateway.following import Follower
from ergon.gateway.metrics import Metrics
from ergon.gateway.sampling import Sampler
from ergon.gateway.serving import Serving
from ergon.gateway.settings import Settings
from ergon.kube.client import KubeClient

log = logging.getLogger("ergon.gateway")

TIDY_SECONDS = 30.0
COLLECT_EVERY = (20_000, 50, 100)
"""Objects that come about between two collections, in place of Python's 700: a request makes some hundred, and leaves few of them
in cycles. Looking for those took 8 % of a request's CPU."""


class Gateway:
    """Everything one `ergon gateway` is made of. Created inside a running event loop."""

    def __init__(self, settings: Settings, client: KubeClient) -> None:
        self._settings, self._client = settings, client
        self.metrics, self._directory = Metrics(), Directory()
        self._state = "reading routes and models"
        self._serving = Serving(settings, self._directory, self.metrics, lambda: self._state)
        self._sampler = Sampler(client, self._directory, self._serving.http_models, self.metrics)
        self._follower = Follower(client, self._directory, settings.watch_namespaces, self._listed)

    async def run(self) -> int:
        """Until stopped by a signal. The exit code. Raises OSError where a port cannot be bound."""
        _allow_many_connections()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        health = await self._serve_health()
        http_port, grpc_port = await self._serving.start()
        log.info("serving: HTTP on port %d, gRPC on port %d", http_port, grpc_port)
        background = [
            asyncio.create_task(self._follower.run(), name="following"),
            asyncio.create_task(self._tidy(), name="tidying"),
            asyncio.create_task(self._sampler.run(), name="sampling"),
        ]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not stopping]
        for task in failed:
            log.error("%s ended: %r; the process ends and is started anew", task.get_name(), task.exception())
        await self._drain()
        for task in (*background, stopping):
            task.cancel()
        await asyncio.gather(*background, stopping, return_exceptions=True)
        await health.cleanup()
        await self._client.close()
        return 1 if failed else 0

    async def _drain(self) -> None:
        """Not ready at once; taking requests until nobody sends any more; then the end of those under way."""
        self._state = "stopping"
        self._serving.drain()
        log.info("stopping: requests are taken for %g s more", self._settings.drain_seconds)
        await asyncio.sleep(self._settings.drain_seconds)
        await self._serving.close()

    async def _tidy(self) -> None:
        """Let go of what is gone."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await self._serving.tidy()

    def _listed(self) -> None:
        if self._state and self._state != "stopping" and self._follower.synced:
            self._state = ""
            gc.collect()
            gc.freeze()  # what stands now stays: a full collection would look through it again and again
            gc.set_threshold(*COLLECT_EVERY)
            log.info("ready: %d routes", len(self._directory.routes()))

    async def _serve_health(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, self._settings.host, self._settings.health_port).start()
        return runner

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text=f"{self._state or 'ok'}\n", status=503 if self._state else 200)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _allow_many_connections() -> None:
    """As many files as this process may have: 10,000 requests that wait are 10,000 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")
