"""What is done to one replica on one server: bring it up (fetch, configure, load), unload it, remove it, repair it.

Each is a coroutine of its own, cancellable at every await; what it learns it writes into the server's facts.
"""

import asyncio
import json
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from ergon.api.quantities import format_bytes
from ergon.engine.effects import CALL_SECONDS, Effects, LoadHung, MemoryFull, NotLeading, SecretInvalid, guard, note_phase
from ergon.engine.fetching import discard_incoming, fetch
from ergon.engine.server import Facts, ServerAgent
from ergon.fleet.types import ModelKey, Variant
from ergon.reconcile.failing import keeps_failing
from ergon.reconcile.observed import ColdStart, Failure, IndexState, Job, JobPhase
from ergon.store.errors import (
    AccessDenied,
    DiskFull,
    FetchFailed,
    JobLost,
    SourceInvalid,
    SourceNotAllowed,
    SourceNotFound,
    StoreError,
    StoreUnavailable,
)
from ergon.triton.configuration import compose
from ergon.triton.errors import ConfigurationInvalid, LoadRefused, OutcomeUnknown, ServerUnavailable, TritonError, WrongKey

log = logging.getLogger("ergon.jobs")
Work = Coroutine[Any, Any, None]

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 300.0
ROOM_SECONDS = 0.3
UNLOAD_SECONDS = 30.0
MEASURED_ROOM_SECONDS = 30.0
"""How long a replica waits for the room that it was measured to need, where there is as much as it declares."""


def start(agent: ServerAgent, key: ModelKey, job: Job, work: Work, effects: Effects) -> None:
    """Run a job in the background; one at a time for each replica."""
    facts = agent.fact(key)
    facts.job = job

    async def run() -> None:
        try:
            await work
        except asyncio.CancelledError:
            log.info("%s of %s on %s was stopped", job.kind, key, agent.key)
        except NotLeading:
            log.warning("%s of %s on %s waits: the Lease is about to end, or is not ours", job.kind, key, agent.key)
            await asyncio.sleep(1.0)
        except (TritonError, StoreError) as error:
            log.warning("%s of %s on %s did not succeed and will be tried again: %s", job.kind, key, agent.key, error)
            await asyncio.sleep(1.0)
        except Exception:
            log.exception("%s of %s on %s ended with a bug", job.kind, key, agent.key)
            await asyncio.sleep(5.0)
        finally:
            facts.job = facts.task = None
            agent.poke()
            effects.changed(key)

    facts.task = asyncio.create_task(run(), name=f"{job.kind} {key} on {agent.key}")


async def bring_up(agent: ServerAgent, key: ModelKey, variant: Variant, effects: Effects) -> None:
    """Fetch (unless the files are there), configure and load a variant; a failure is written into the facts."""
    loop, facts = asyncio.get_running_loop(), agent.fact(key)
    began, held_bytes, waited = loop.time(), facts.memory_bytes, effects.waited(key)
    try:
        fetch_seconds = 0.0
        if facts.file_revision != variant.content_revision:
            fetch_seconds = await fetch(agent, key, variant, facts, effects)
        await _reserve(agent, key, variant, facts, effects)
        async with agent.load_slots:
            loading = loop.time()
            note_phase(agent, key, variant, JobPhase.LOADING, "", effects)
            await _weighed(agent, key, variant, facts, effects)
    except (SecretInvalid, StoreError, TritonError, LoadHung, MemoryFull) as error:
        _remember(agent, key, variant, facts, error, loop.time())
        return
    finally:
        if not facts.sent:
            # What was reserved for a load that never went out, or was refused, is free again.
            facts.memory_bytes = 0 if facts.index in (IndexState.ABSENT, IndexState.UNAVAILABLE) else held_bytes
    agent.failing.discard((key, variant.load_revision))
    facts.failure, facts.healthy, facts.sent, facts.hung, facts.stuck = None, True, False, False, False
    facts.index, facts.loaded_revision = IndexState.READY, variant.load_revision
    facts.memory_bytes = agent.needed_bytes(key, variant)
    facts.first_answer_seconds = None
    facts.cold_start = ColdStart(fetch_seconds, loop.time() - loading, loop.time() - began, waited)
    effects.started(key, waited + loop.time() - began)
    effects.observe("server", waited)
    effects.observe("fetch", fetch_seconds)
    effects.observe("load", loop.time() - loading)
    log.info(
        "%s variant %s is loaded on %s: %.2f s to fetch, %.2f s to load",
        key,
        variant.name,
        agent.key,
        fetch_seconds,
        loop.time() - loading,
    )


async def unload(agent: ServerAgent, key: ModelKey, effects: Effects) -> None:
    """Unload a model, wait until Triton says so, then remove its files."""
    facts, name = agent.fact(key), key.served_name
    guard(effects)
    agent.weighing.begin()
    try:
        await agent.triton.unload(name, CALL_SECONDS)
        facts.index = IndexState.UNLOADING
        await _wait_unloaded(agent, name, UNLOAD_SECONDS)
    finally:
        agent.weighing.end()
    facts.index, facts.loaded_revision, facts.memory_bytes = IndexState.UNAVAILABLE, None, 0
    await remove(agent, key, effects)


async def remove(agent: ServerAgent, key: ModelKey, effects: Effects) -> None:
    """Remove a model's files from a server's store."""
    facts = agent.fact(key)
    guard(effects)
    await agent.store.remove(key.served_name)
    await discard_incoming(agent, facts)
    facts.has_files, facts.file_revision, facts.drain, facts.failure = False, None, None, None
    log.info("%s is gone from %s", key, agent.key)
    _retry_those_without_room(agent, effects)


def _retry_those_without_room(agent: ServerAgent, effects: Effects) -> None:
    """What the disk was too full for is tried again now that there is more room, and not only when its pause is over."""
    now = asyncio.get_running_loop().time()
    for key, facts in agent.facts.items():
        if facts.failure is not None and facts.failure.reason == "DiskFull":
            agent.failing.discard((key, facts.failure.revision))
            facts.failure = replace(facts.failure, retry_at_seconds=now)
            effects.changed(key)


async def repair(agent: ServerAgent, key: ModelKey, variant: Variant, effects: Effects) -> None:
    """Unload and load again a model whose process died. Where that was in vain, and no other model answers, the pod is condemned.

    As long as another one does, the reason is likely the model's own, and a new pod would cost the others their places.
    """
    facts, now = agent.fact(key), asyncio.get_running_loop().time()
    others = (other for of, other in agent.facts.items() if of != key and other.index is IndexState.READY)
    if facts.repaired_in_vain and not any(other.healthy for other in others):
        agent.condemned = f"the process of {key} died again, and no other model answers"
    log.warning("%s on %s is READY in the index but its process is dead: it is unloaded and loaded again", key, agent.key)
    guard(effects)
    await agent.triton.unload(key.served_name, CALL_SECONDS)
    facts.repaired_at_seconds, facts.repairs = now, facts.repairs + 1
    facts.loaded_revision, facts.statistics = None, None
    await bring_up(agent, key, variant, effects)


async def _reserve(agent: ServerAgent, key: ModelKey, variant: Variant, facts: Facts, effects: Effects) -> None:
    """Wait until what leaves the server has made room, and take it.

    MemoryFull where only the measured need is in the way, or what does not end.
    """
    waited = 0.0
    try:
        while not agent.has_room(key, needed := agent.needed_bytes(key, variant)):
            declared = agent.declared_bytes(variant)
            waited = waited + ROOM_SECONDS if agent.has_room(key, declared) else 0.0
            if waited > MEASURED_ROOM_SECONDS:
                raise MemoryFull(
                    f"variant {variant.name} declares {format_bytes(declared)} and was measured to take "
                    f"{format_bytes(needed)}, for which {agent.key} has no room: raise the variant's memory"
                )
            if hindered := agent.hindered_by(key, needed):
                raise MemoryFull(_not_ended(agent, hindered))
            note_phase(agent, key, variant, JobPhase.QUEUED, "there is no room until what leaves the server is unloaded", effects)
            if key not in agent.without_room:
                agent.without_room.add(key)
                agent.wake(list(agent.facts))  # whose room it is, and who is not planned here any more, is to go
            await asyncio.sleep(ROOM_SECONDS)
    finally:
        agent.without_room.discard(key)
    facts.memory_bytes = max(facts.memory_bytes, agent.needed_bytes(key, variant))


def _not_ended(agent: ServerAgent, models: list[ModelKey]) -> str:
    more = f" and {len(models) - 1} more hold" if len(models) > 1 else " holds"
    return (
        f"{models[0]}{more} memory of {agent.key} and cannot be ended; a new pod frees it (kubectl delete pod {agent.pod.name})"
    )


async def _weighed(agent: ServerAgent, key: ModelKey, variant: Variant, facts: Facts, effects: Effects) -> None:
    """Load, and learn what that took where it is the only thing that happens to the server's memory meanwhile."""
    fresh = facts.index in (IndexState.ABSENT, IndexState.UNAVAILABLE)
    number = agent.weighing.begin()
    try:
        before = await agent.used_bytes() if fresh and number is not None else None
        await _load(agent, key, variant, facts, effects)
        if before is not None and agent.weighing.was_alone(number):
            after = await agent.used_bytes()
            if after is not None and agent.weighing.was_alone(number):
                agent.measured.learn(key, variant, agent.product, after - before)
    finally:
        agent.weighing.end()


async def _load(agent: ServerAgent, key: ModelKey, variant: Variant, facts: Facts, effects: Effects) -> None:
    name = key.served_name
    text = await agent.store.read_config(name)
    if text is None:
        facts.has_files, facts.file_revision = False, None
        raise FetchFailed(f"the files of {name} are gone from the store of {agent.key}; they are fetched again")
    config = compose(
        text,
        json.loads(variant.config_json),
        name=name,
        backend=variant.backend,
        revision=variant.load_revision,
        default_kind=effects.instance_kind(agent.key.pool),
    )
    await _settled(facts)
    while True:
        guard(effects)
        facts.sent = True
        facts.sending = asyncio.create_task(agent.triton.load(name, config, variant.load_timeout_seconds))
        try:
            # Not ended with this job: Triton goes on with a load whatever becomes of the call, so the next job waits for it.
            await asyncio.shield(facts.sending)
        except OutcomeUnknown:
            raise LoadHung(f"it was still loading after loadTimeout, {variant.load_timeout_seconds:g} s") from None
        # Not by the answer alone: a load joins one of another revision that an operator before us has sent.
        loaded = await agent.triton.loaded(name)
        if loaded.revision == variant.load_revision:
            facts.instances = loaded.instances
            return
        await asyncio.sleep(0.2)


async def _settled(facts: Facts) -> None:
    """Wait until no load of an earlier job is under way: what it ends in would lie over what is loaded next."""
    if facts.sending is not None and not facts.sending.done():
        await asyncio.wait({facts.sending})
    if facts.sending is not None and facts.sending.done():
        facts.sending.exception()  # taken here, or by the job that sent it
        facts.sending = None


async def _wait_unloaded(agent: ServerAgent, name: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    ends_at, pause = loop.time() + seconds, 0.05
    while loop.time() < ends_at:
        state = (await agent.triton.index()).get(name)
        if state is None or state.state.value in ("ABSENT", "UNAVAILABLE"):
            return
        await asyncio.sleep(pause)
        pause = min(1.0, pause * 1.5)
    raise ServerUnavailable(f"{name} is still unloading after {seconds:g} s")


_PASSING = (ServerUnavailable, StoreUnavailable, JobLost)
"""What is likely over in a moment, and nobody's to mend."""
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (SourceNotFound, "SourceNotFound"),
    (AccessDenied, "AccessDenied"),
    (DiskFull, "DiskFull"),
    (SecretInvalid, "SecretInvalid"),
    (SourceNotAllowed, "SourceNotAllowed"),
    (SourceInvalid, "SourceInvalid"),
    (FetchFailed, "FetchFailed"),
    (JobLost, "FetchFailed"),
    (ConfigurationInvalid, "ConfigurationInvalid"),
    (LoadRefused, "LoadFailed"),
    (LoadHung, "LoadHung"),
    (MemoryFull, "MemoryFull"),
    (WrongKey, "ServerRefusesKey"),
    (StoreError, "StoreUnavailable"),
    (TritonError, "ServerUnavailable"),
)


def _avoid(agent: ServerAgent, key: ModelKey, variant: Variant, failure: Failure) -> None:
    """Note that the variant keeps failing here, so that it is tried elsewhere."""
    what = key, variant.load_revision
    if what not in agent.failing:
        log.warning(
            "%s variant %s failed %d times on %s: another server is tried", key, variant.name, failure.attempts, agent.key
        )
    agent.failing.add(what)


def _remember(agent: ServerAgent, key: ModelKey, variant: Variant, facts: Facts, error: Exception, now: float) -> None:
    reason = next(name for kind, name in _REASONS if isinstance(error, kind))
    old = facts.failure
    if isinstance(error, LoadRefused):
        facts.sent = False
        facts.memory_bytes = facts.memory_bytes if facts.index is IndexState.READY else 0
    attempts = old.attempts + 1 if old is not None and old.revision == variant.load_revision else 1
    first, last = (1.0, 30.0) if isinstance(error, _PASSING) else (FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS)
    retry_at: float | None = now + min(last, first * 2 ** min(attempts - 1, 10))
    if isinstance(error, LoadHung):
        agent.hung_loads += 1
        retry_at, facts.hung = None, True
    facts.failure = Failure(variant.load_revision, reason, str(error), attempts, retry_at)
    if keeps_failing(facts.failure, passing=isinstance(error, _PASSING)):
        _avoid(agent, key, variant, facts.failure)
    log.warning("%s variant %s could not be brought up on %s: %s: %s", key, variant.name, agent.key, reason, error)
