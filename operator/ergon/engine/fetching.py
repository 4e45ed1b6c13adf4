"""Brings a variant's files to a server: a look at the source, a slot, the fetch, and the rename that makes them the model's."""

import asyncio
import contextlib

from ergon.api.quantities import format_bytes
from ergon.engine.effects import Effects, guard, note_phase
from ergon.engine.fetch_pace import LARGE_FETCH_BYTES, to_go_on, to_hold_a_slot
from ergon.engine.server import Facts, ServerAgent
from ergon.fleet.types import ModelKey, Variant
from ergon.reconcile.observed import JobPhase
from ergon.store.errors import DiskFull, FetchFailed, StoreError
from ergon.store.observed import FetchJob
from ergon.store.sources import Source

PROGRESS_SECONDS = 0.05, 1.0
"""Between looks at a fetch: a twentieth of the time it has taken, within these bounds; any number may go on beside each other."""

STALE_SECONDS = 60.0
"""Credentials that were read longer ago are read again: the wait for a slot may outlast them."""


def incoming_id(key: ModelKey, variant: Variant) -> str:
    """Where in the store a variant's files are fetched to."""
    return f"{key.served_name}-{variant.content_revision}"


async def fetch(agent: ServerAgent, key: ModelKey, variant: Variant, facts: Facts, effects: Effects) -> float:
    """Bring the variant's files to the server, once there is a slot for it; the seconds that took."""
    loop = asyncio.get_running_loop()
    async with agent.look_slots:
        looked = loop.time()
        source = await agent.store.locate(await effects.resolve(key, variant.source))
        needed = (await agent.store.size(source)).total_bytes
    async with contextlib.AsyncExitStack() as slots:
        if needed >= LARGE_FETCH_BYTES:
            await slots.enter_async_context(agent.large_fetch_slots)
        await slots.enter_async_context(agent.fetch_slots)
        began = loop.time()
        note_phase(agent, key, variant, JobPhase.DOWNLOADING, "", effects)
        if began - looked > STALE_SECONDS:
            source = await agent.store.locate(await effects.resolve(key, variant.source))
        await _fetch_now(agent, key, variant, facts, effects, source, needed, slots)
    return loop.time() - began


async def _fetch_now(
    agent: ServerAgent,
    key: ModelKey,
    variant: Variant,
    facts: Facts,
    effects: Effects,
    source: Source,
    needed: int,
    slots: contextlib.AsyncExitStack,
) -> None:
    store, incoming = agent.store, incoming_id(key, variant)
    free = await agent.disk_left(needed)
    if needed > free and needed - await store.fetched_bytes(incoming) > free:
        raise DiskFull(
            f"{variant.source.uri} has {format_bytes(needed)}, the store of {agent.key} has {format_bytes(max(0, free))} left"
        )
    guard(effects)
    if facts.incoming != incoming:
        await discard_incoming(agent, facts)
    facts.incoming = incoming
    agent.fetching[key] = needed
    try:
        await _follow_fetch(agent, key, variant, effects, await store.fetch(source, incoming), needed, slots)
    finally:
        agent.fetching.pop(key, None)
    agent.fetched_bytes += needed
    await store.validate(incoming, variant.backend)
    guard(effects)
    facts.has_files, facts.file_revision = True, None  # until it is known to have succeeded
    await store.publish(incoming, key.served_name, variant.content_revision)
    facts.file_revision, facts.incoming = variant.content_revision, ""


async def _follow_fetch(
    agent: ServerAgent,
    key: ModelKey,
    variant: Variant,
    effects: Effects,
    job: FetchJob,
    needed: int,
    slots: contextlib.AsyncExitStack,
) -> None:
    store, loop = agent.store, asyncio.get_running_loop()
    began = loop.time()
    holds, lives = to_hold_a_slot(began), to_go_on(began)
    try:
        while True:
            progress = await store.progress(job)
            if progress.finished:
                break
            if not holds.kept(progress, loop.time()):
                await slots.aclose()  # it goes on beside the others, which it hardly keeps from anything
            if not lives.kept(progress, loop.time()):
                await store.stop(job)
                raise FetchFailed(
                    f"{variant.source.uri}: less than {format_bytes(lives.least_bytes)} came in {lives.seconds:g} s; "
                    "the fetch is stopped, and begun again"
                )
            agent.fetching[key] = max(0, needed - progress.bytes_done)
            share = f"{format_bytes(progress.bytes_done)} of {format_bytes(needed)}" if needed > 100_000_000 else ""
            note_phase(agent, key, variant, JobPhase.DOWNLOADING, share, effects)
            least, most = PROGRESS_SECONDS
            await asyncio.sleep(min(most, max(least, (loop.time() - began) / 20)))
    except asyncio.CancelledError:
        if not agent.closing:
            with contextlib.suppress(StoreError):
                await store.cancel(job)
        raise
    if progress.error is not None:
        raise progress.error


async def discard_incoming(agent: ServerAgent, facts: Facts) -> None:
    """Remove what a fetch has begun and not ended."""
    if facts.incoming:
        await agent.store.discard(facts.incoming)
        facts.incoming = ""
