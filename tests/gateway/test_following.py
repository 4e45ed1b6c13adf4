"""What a gateway does while it reads what the API server has."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from ergon.gateway.directory import ROUTE, Directory
from ergon.gateway.following import Follower
from ergon.kube.client import KubeClient
from ergon.kube.errors import NotFound


class NoRoutes(KubeClient):
    """An API server without the kind TaskRoute, which says so after everything else is listed."""

    def __init__(self) -> None:
        pass

    async def follow(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        listed: Callable[[list[dict[str, Any]]], None],
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """No objects, and no changes."""
        if kind == ROUTE:
            await asyncio.sleep(0.01)
            raise NotFound("list TaskRoutes", "the server could not find the requested resource", code=404)
        listed([])
        await asyncio.Event().wait()
        yield "ADDED", {}


async def test_a_cluster_without_task_routes_has_a_gateway_that_gets_ready() -> None:
    ready = asyncio.Event()

    def relisted() -> None:
        if follower.synced:
            ready.set()

    follower = Follower(NoRoutes(), Directory(), (), relisted)
    task = asyncio.create_task(follower.run())
    await asyncio.wait_for(ready.wait(), 5)
    task.cancel()
    await asyncio.wait({task})
