"""Keeps the directory: every kind listed, then watched, and listed anew whenever a watch is lost.

While the API server is away the directory stays as it is: routes and servers go on being used.
"""

import asyncio
import logging
from collections.abc import Callable

from ergon.gateway.directory import MODEL, ROUTE, SLICE, Directory
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError, NotFound

log = logging.getLogger("ergon.gateway")

_API = {MODEL: "ergon.dev/v1alpha1", ROUTE: "ergon.dev/v1alpha1", SLICE: "discovery.k8s.io/v1"}
_SELECTOR = {SLICE: "app.kubernetes.io/managed-by=ergon"}
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0


class Follower:
    """One gateway's watches. `relisted` is called after every full list."""

    def __init__(
        self, client: KubeClient, directory: Directory, namespaces: tuple[str, ...], relisted: Callable[[], None] = lambda: None
    ) -> None:
        self._client, self._directory, self._relisted = client, directory, relisted
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._listed: set[tuple[str, str | None]] = set()

    @property
    def synced(self) -> bool:
        """Whether everything has been listed once."""
        return len(self._listed) == len(_API) * len(self._namespaces)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in _API:
                for namespace in self._namespaces:
                    group.create_task(self._follow(kind, namespace), name=f"watch of {kind}")

    async def _follow(self, kind: str, namespace: str | None) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async for event, obj in self._client.follow(
                    _API[kind], kind, namespace, label_selector=_SELECTOR.get(kind, ""), listed=self._take(kind, namespace)
                ):
                    pause = FIRST_PAUSE_SECONDS
                    if event == "DELETED":
                        self._directory.drop(kind, obj)
                    else:
                        self._directory.put(kind, obj)
            except NotFound:
                self._listed.add((kind, namespace))  # the kind is not installed: there is nothing of it
                self._relisted()
            except KubeError as error:
                log.warning("%ss are not seen for now, what is known stays: %s", kind, error)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    def _take(self, kind: str, namespace: str | None) -> "Callable[[list[dict[str, object]]], None]":
        def take(objects: "list[dict[str, object]]") -> None:
            self._directory.replace(kind, objects, namespace)
            self._listed.add((kind, namespace))
            self._relisted()

        return take
