"""Work by key: the latest request for a key is the one that runs, one at a time for each key, bounded over all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger("ergon.queue")
K = TypeVar("K", bound=Hashable)

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0


class KeyedQueue(Generic[K]):
    """Runs `work(key)` for every key that was added, at most `workers` at once and never twice at once for one key.

    A key added while it runs runs once more afterwards. Work that raises is tried again after a growing pause.
    """

    def __init__(self, work: Callable[[K], Awaitable[None]], workers: int, name: str) -> None:
        self._work = work
        self._slots = asyncio.Semaphore(workers)
        self._name = name
        self._waiting: set[K] = set()
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._attempts: dict[K, int] = {}

    @property
    def depth(self) -> int:
        """Keys that wait or run."""
        return len(self._tasks)

    def add(self, key: K) -> None:
        """Ask for the key to be worked on."""
        self._waiting.add(key)
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._run(key), name=f"{self._name} {key}")

    async def close(self) -> None:
        """Stop everything."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: K) -> None:
        try:
            while key in self._waiting:
                async with self._slots:
                    self._waiting.discard(key)
                    try:
                        await self._work(key)
                        self._attempts.pop(key, None)
                        continue
                    except Exception as error:
                        self._waiting.add(key)
                        attempt = self._attempts[key] = self._attempts.get(key, 0) + 1
                        log.warning("%s of %s failed, attempt %d: %s", self._name, key, attempt, error or type(error).__name__)
                await asyncio.sleep(min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(attempt - 1, 10)))
        finally:
            del self._tasks[key]
