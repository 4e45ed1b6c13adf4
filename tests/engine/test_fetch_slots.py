"""Who is fetched beside whom: nobody waits for long behind models that are large, or whose sources hardly answer."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from ergon.engine.effects import Effects
from ergon.engine.fetch_pace import LARGE_FETCH_BYTES, Pace
from ergon.engine.fetching import fetch
from ergon.engine.server import ServerAgent
from ergon.fleet.types import ModelKey
from ergon.store.errors import FetchFailed
from ergon.store.observed import FetchProgress, Size
from tests.engine.test_orphans import agent
from tests.planning.test_planner import variant

GB = 10**9


@dataclass
class SourcesInTime:
    """A store whose sources send so many bytes a second, in virtual time."""

    sizes: dict[str, int]
    speeds: dict[str, float]
    begun: dict[str, float] = field(default_factory=dict)
    located: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    async def locate(self, source: str) -> str:
        self.located.append(source)
        return source

    async def size(self, source: str) -> Size:
        return Size(2, self.sizes[source])

    async def free_bytes(self) -> int:
        return 10**15

    async def used_bytes(self) -> int:
        return 0

    async def fetch(self, source: str, incoming: str) -> str:
        self.begun[source] = asyncio.get_running_loop().time()
        return source

    async def progress(self, source: str) -> FetchProgress:
        total, seconds = self.sizes[source], asyncio.get_running_loop().time() - self.begun[source]
        done = min(total, int(seconds * self.speeds[source]))
        return FetchProgress(done, total, 0, 2, finished=done >= total)

    async def stop(self, source: str) -> None:
        self.stopped.append(source)

    async def validate(self, incoming: str, backend: str) -> None:
        """It is a model."""

    async def publish(self, incoming: str, name: str, revision: str) -> None:
        """It lies there."""


def fetching(sources: SourcesInTime) -> "dict[str, asyncio.Task[float]]":
    """Fetches of all sources, in their order, to one server."""
    server: ServerAgent = agent()
    server.store, server.disk_bytes = sources, 10**15  # type: ignore[assignment]
    unused: Any = None

    async def resolve(key: ModelKey, _: object) -> Any:
        return key.name

    effects = Effects(resolve, lambda seconds: True, lambda key: None, unused, unused, unused)
    keys = [ModelKey("n", name) for name in sources.sizes]
    return {key.name: asyncio.create_task(fetch(server, key, variant(), server.fact(key), effects)) for key in keys}


@pytest.mark.looptime
async def test_a_small_model_does_not_wait_for_large_ones() -> None:
    large = {f"large{n}": 10 * GB for n in range(6)}
    sources = SourcesInTime({**large, "small": GB // 50}, {**dict.fromkeys(large, 1e8), "small": 1e7})
    tasks = fetching(sources)
    assert await tasks["small"] == pytest.approx(2, abs=0.2)
    assert sorted(sources.begun) == ["large0", "large1", "large2", "small"]
    assert await tasks["large5"] == pytest.approx(100, abs=3)
    assert sources.located.count("large0") == 1
    assert sources.located.count("large5") == 2, "what was read of its Secret may be out of date by then"


@pytest.mark.looptime
async def test_sources_that_hardly_send_share_their_slots() -> None:
    slow = {f"slow{n}": 20_000_000 for n in range(4)}
    sources = SourcesInTime({**slow, "quick": 20_000_000}, {**dict.fromkeys(slow, 30_000.0), "quick": 1e7})
    tasks = fetching(sources)
    await tasks["quick"]
    assert 60 <= sources.begun["quick"] <= 62
    assert await tasks["slow3"] == pytest.approx(20_000_000 / 30_000, abs=2), "it is given its time all the same"


@pytest.mark.looptime
async def test_a_source_that_sends_next_to_nothing_has_failed() -> None:
    sources = SourcesInTime({"drips": 20_000_000}, {"drips": 100.0})
    (task,) = fetching(sources).values()
    with pytest.raises(FetchFailed, match=r"less than 1 MiB came in 600 s"):
        await task
    assert sources.stopped == ["drips"]


def test_comparing_what_lies_there_is_getting_on() -> None:
    pace = Pace(least_bytes=100, seconds=60, begun_seconds=0.0)
    assert pace.kept(FetchProgress(0, LARGE_FETCH_BYTES, 0, 2, finished=False), 59.0)
    assert pace.kept(FetchProgress(0, LARGE_FETCH_BYTES, 0, 2, finished=False, files_checked=1), 61.0)
    assert pace.kept(FetchProgress(99, LARGE_FETCH_BYTES, 0, 2, finished=False, files_checked=1), 120.0)
    assert not pace.kept(FetchProgress(99, LARGE_FETCH_BYTES, 0, 2, finished=False, files_checked=1), 121.0)
