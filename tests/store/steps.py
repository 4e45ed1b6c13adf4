"""What tests of the store do again and again: name a source, fetch it, wait."""

import asyncio
from collections.abc import Awaitable, Callable

from ergon.store import FetchJob, FetchProgress, ModelStore, Source, StoreError, parse_source


def source_of(uri: str, secret: dict[str, str] | None = None, revision: str = "1") -> Source:
    return parse_source(uri, revision, secret, "models-reader" if secret else None, allow_private_addresses=True)


async def finished(store: ModelStore, job: FetchJob) -> FetchProgress:
    async def has_finished() -> bool:
        return (await store.progress(job)).finished

    await until(has_finished, 60)
    return await store.progress(job)


async def fetched(store: ModelStore, source: Source, incoming_id: str) -> FetchProgress:
    return await finished(store, await store.fetch(source, incoming_id))


async def raised(call: Awaitable[object]) -> StoreError | None:
    try:
        await call
    except StoreError as error:
        return error
    return None


async def has_begun(store: ModelStore, job: FetchJob) -> bool:
    progress = await store.progress(job)
    assert not progress.finished, progress
    return progress.bytes_done > 0


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15.0) -> None:
    """Wait for what only asking again can tell."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
