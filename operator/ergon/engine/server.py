"""One server as the operator sees it: reads its Triton and its store again and again, and remembers what stands there."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ergon.engine.cached_pods import PodRecord
from ergon.engine.memory import MeasuredMemory, Weighing
from ergon.fleet.points import least_declared_bytes
from ergon.fleet.types import ModelKey, ServerKey, Variant, key_of_served_name
from ergon.kube.keys import KeyMaterial
from ergon.reconcile.observed import ColdStart, Drain, Failure, IndexState, Job, ReplicaView, ServerView
from ergon.store.client import ModelStore
from ergon.store.errors import StoreError
from ergon.triton.client import TritonServer
from ergon.triton.errors import ModelNotServed, ServerUnavailable, TritonError, WrongKey
from ergon.triton.metrics import MetricsPage, backend_failures, gpu_memory_used_bytes
from ergon.triton.observed import ModelState, ModelStatistics, RepositoryState

log = logging.getLogger("ergon.server")

BUSY_POLL_SECONDS = 0.5
IDLE_POLL_SECONDS = 3.0
STATISTICS_SECONDS = 5.0
SILENT_AFTER_SECONDS = 6.0
DISK_SECONDS = 10.0
ORPHAN_SECONDS = 30.0
"""A load that goes on for so long without a job of ours is nobody's: sent by an operator before us, of a model not wanted now."""
STUCK_SECONDS = 60.0
"""An unload that goes on for so long after ours gave it up will not end: an execution that never returns, or a dead process."""
DEAD_STUB_SECONDS = 0.9
"""A request to a model whose process died fails after 1.0 s, and counts as no execution; one that raises is one (measured)."""
REPAIRED_LATELY_SECONDS = 600.0
FIRST_REPAIR_PAUSE_SECONDS = 5.0
LAST_REPAIR_PAUSE_SECONDS = 300.0

_INDEX = {
    RepositoryState.LOADING: IndexState.LOADING,
    RepositoryState.READY: IndexState.READY,
    RepositoryState.UNLOADING: IndexState.UNLOADING,
    RepositoryState.UNAVAILABLE: IndexState.UNAVAILABLE,
}
_UNDER_WAY = (IndexState.LOADING, IndexState.UNLOADING)


@dataclass(slots=True)
class Facts:
    """What is known of one model on the server.

    `sent`: a load was sent whose outcome is not known, so what is loaded is not known either. `memory_bytes`: what it takes up
    there, as declared or as measured where that is more, from the moment its load is sent until it is unloaded. `incoming`:
    what a fetch has begun and not ended. `hung`: its load does not end; `stuck`: its unload does not. Nothing ends either but a
    new pod, or (the latter) a load. `repairs`: in a row, each within ten minutes of the one before. `orphan_since_seconds`:
    since when it is LOADING or UNLOADING without a job of ours. `instances`: how many execute at once.
    """

    index: IndexState = IndexState.ABSENT
    loaded_revision: str | None = None
    file_revision: str | None = None
    has_files: bool = False
    incoming: str = ""
    healthy: bool = True
    job: Job | None = None
    task: "asyncio.Task[None] | None" = None
    failure: Failure | None = None
    drain: Drain | None = None
    statistics: ModelStatistics | None = None
    repaired_at_seconds: float | None = None
    repairs: int = 0
    cold_start: ColdStart | None = None
    first_answer_seconds: float | None = None
    hung: bool = False
    stuck: bool = False
    orphan_since_seconds: float | None = None
    sent: bool = False
    sending: "asyncio.Task[None] | None" = None
    memory_bytes: int = 0
    instances: int = 1

    @property
    def on_disk(self) -> bool:
        """Whether its files, or a part of them, are on the server's disk."""
        return self.has_files or bool(self.incoming)

    @property
    def unending(self) -> bool:
        """Whether it is in memory for nothing, until there is a new pod."""
        return self.job is None and (self.stuck or (self.hung and self.index is not IndexState.READY))

    @property
    def repaired_in_vain(self) -> bool:
        """Whether it died again without having answered anybody."""
        return self.repairs > 0 and not self.healthy and self.statistics is not None and self.statistics.success_count == 0

    @property
    def gone(self) -> bool:
        """Whether nothing is left to remember."""
        return (
            self.index in (IndexState.ABSENT, IndexState.UNAVAILABLE)
            and not self.on_disk
            and self.job is None
            and self.failure is None
        )


Counted = Callable[["ServerAgent", dict[str, ModelStatistics], str], None]


@dataclass
class ServerAgent:
    """Watches one pod's Triton and store. `wake` is told which models changed; `answers_changed` when the server itself did.

    `incoming`: names of half-made fetches that are worth keeping. `page`: Triton's metrics; `counted` is given every reading of
    statistics and that page. `keys`: those it speaks to the server with; `refused`: the server does not know them.
    `closing`: jobs are cancelled because this process ends.
    `product`: what measured memory is told apart by, empty where its accelerators do not say what they use. `accelerator`: the
    pool's product and class, by which operating points are found.
    `look_slots`: looks at sources before a fetch; `large_fetch_slots`: those of the `fetch_slots` that large models may have.
    `without_room`: models whose bring-up waits for memory here.
    `failing`: models and revisions whose bring-up keeps failing here, for reasons that may be this server's.
    `keys`: those it speaks to the server with; `refused`: the server does not know them.
    `look_slots`: looks at sources before a fetch; `large_fetch_slots`: those of the `fetch_slots` that large models may have.
    """

    pod: PodRecord
    zone: str
    node_ready: bool
    triton: TritonServer
    store: ModelStore
    disk_bytes: int
    memory_bytes: int
    max_models: int | None
    wake: Callable[[list[ModelKey]], None]
    answers_changed: Callable[[ServerKey], None]
    incoming: Callable[[], set[str]]
    keys: KeyMaterial | None = None
    page: MetricsPage | None = None
    counted: Counted = lambda *_: None
    product: str = ""
    accelerator: tuple[str | None, str] = (None, "")
    measured: MeasuredMemory = field(default_factory=MeasuredMemory)
    weighing: Weighing = field(default_factory=Weighing)
    without_room: set[ModelKey] = field(default_factory=set)
    facts: dict[ModelKey, Facts] = field(default_factory=dict)
    synced: bool = False
    answering: bool = False
    silent: bool = False
    refused: bool = False
    leaving: str = ""
    condemned: str = ""
    hung_loads: int = 0
    failing: set[tuple[ModelKey, str]] = field(default_factory=set)
    closing: bool = False
    look_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    fetch_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    large_fetch_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(3))
    load_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(6))
    fetching: dict[ModelKey, int] = field(default_factory=dict)
    fetched_bytes: int = 0
    _disk_left: tuple[float, int] | None = None
    _misses: int = 0
    _answered_at: float = 0.0
    _statistics_at: float = 0.0
    _page_before: str = ""
    _poke: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> ServerKey:
        """The server's pool and ordinal."""
        return self.pod.key

    async def disk_left(self, needed_bytes: int) -> int:
        """Bytes that a fetch may still take up, those that others will take left out.

        Measuring walks the whole store, so a figure of the last seconds, less what was fetched since, will do where it suffices.
        """
        now = asyncio.get_running_loop().time()
        if self._disk_left is not None and now - self._disk_left[0] < DISK_SECONDS:
            left = self._disk_left[1] - self.fetched_bytes - sum(self.fetching.values())
            if needed_bytes <= left:
                return left
        before = self.fetched_bytes
        left = min(await self.store.free_bytes(), self.disk_bytes - await self.store.used_bytes())
        self.fetched_bytes -= before
        self._disk_left = (now, left)
        return left - self.fetched_bytes - sum(self.fetching.values())

    def view(self) -> ServerView:
        """The server as decisions see it.

        A pod whose node is silent is marked not Ready by the node's controller; where its Triton answers us, it serves: after an
        outage of the API server all nodes look lost for a moment.
        """
        pod = self.pod
        pod_ready = pod.ready or (not self.node_ready and self.answering)
        return ServerView(
            pod.key,
            pod.name,
            pod.uid,
            pod.ip,
            pod.node,
            self.zone,
            pod_ready,
            pod.deleting,
            self.synced,
            self.answering,
            self.leaving,
            self.silent,
            bool(self.without_room),
        )

    def replica(self, key: ModelKey) -> ReplicaView | None:
        """One model on this server, or None where nothing is known of it."""
        facts = self.facts.get(key)
        if facts is None:
            return None
        return ReplicaView(
            self.view(),
            facts.index,
            None if facts.sent else facts.loaded_revision,
            facts.on_disk,
            facts.healthy,
            facts.job,
            facts.failure,
            facts.drain,
        )

    def fact(self, key: ModelKey) -> Facts:
        """What is known of a model, for writing."""
        return self.facts.setdefault(key, Facts())

    def poke(self) -> None:
        """Read again soon: something was done to the server."""
        self._poke.set()

    @property
    def holds_models(self) -> bool:
        """Whether any model is loaded, being worked on, or on its disk. One whose load or unload does not end is none."""
        return any(not (facts.gone or facts.unending) for facts in self.facts.values())

    def hindered_by(self, key: ModelKey, memory_bytes: int) -> list[ModelKey]:
        """The models without which there would be room, and which only a new pod ends; none where others are in the way."""
        kept = {other: facts for other, facts in self.facts.items() if other != key and facts.memory_bytes}
        unending = [other for other, facts in kept.items() if facts.unending]
        left = [facts.memory_bytes for facts in kept.values() if not facts.unending]
        room = sum(left) + memory_bytes <= self.memory_bytes and (self.max_models is None or len(left) < self.max_models)
        return unending if room and not self.has_room(key, memory_bytes) else []

    def has_room(self, key: ModelKey, memory_bytes: int) -> bool:
        """Whether a model fits beside all others that are in memory, those on their way out included."""
        others = [facts.memory_bytes for other, facts in self.facts.items() if other != key and facts.memory_bytes]
        if self.max_models is not None and len(others) >= self.max_models:
            return False
        return sum(others) + memory_bytes <= self.memory_bytes

    def needed_bytes(self, key: ModelKey, variant: Variant) -> int:
        """Memory that a replica is to be given here: the larger of declared and measured, and no more than there is."""
        return max(self.declared_bytes(variant), min(self.measured.taken(key, variant, self.product), self.memory_bytes))

    def declared_bytes(self, variant: Variant) -> int:
        """Memory that the variant declares for servers like this one."""
        return least_declared_bytes(variant, *self.accelerator)

    async def used_bytes(self) -> int | None:
        """What is in use on the server's GPUs; None where nobody says it."""
        return gpu_memory_used_bytes(await self._read_page()) if self.product else None

    async def run(self) -> None:
        """Read until cancelled. Errors make the server silent, never end the loop."""
        loop = asyncio.get_running_loop()
        self._answered_at = loop.time()
        while True:
            try:
                await self._read(loop.time())
                self._answered_at, self._misses, self.silent, self.refused = loop.time(), 0, False, False
                self._set_answering(True)
            except Exception as error:
                self._misses, self.refused = self._misses + 1, isinstance(error, WrongKey)
                if not isinstance(error, TritonError | StoreError):
                    log.exception("reading server %s failed", self.key)
                elif self.answering:
                    log.info("server %s does not answer: %s", self.key, error)
                # Two misses, since one slow read or a pause of our own must not empty a server of its traffic.
                silent = self._misses > 1 and loop.time() - self._answered_at > SILENT_AFTER_SECONDS
                if silent or not self.synced:
                    self._set_answering(False)
                self._set_silent(silent and isinstance(error, TritonError) and not self.refused)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), self._pause())
            self._poke.clear()

    async def close(self) -> None:
        """Stop all jobs and close the connections. rclone goes on with its fetches: the next operator takes them up."""
        self.closing = True
        tasks = [task for facts in self.facts.values() for task in (facts.task, facts.sending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.triton.close()
        await self.store.close()

    def _pause(self) -> float:
        if not self.answering or self._misses:
            return BUSY_POLL_SECONDS
        busy = any(
            facts.job is not None or facts.drain is not None or (facts.index in _UNDER_WAY and not (facts.hung or facts.stuck))
            for facts in self.facts.values()
        )
        return BUSY_POLL_SECONDS if busy else IDLE_POLL_SECONDS

    def _set_answering(self, answering: bool) -> None:
        if answering != self.answering:
            self.answering = answering
            self.answers_changed(self.key)

    def _set_silent(self, silent: bool) -> None:
        if silent != self.silent:
            self.silent = silent
            self.answers_changed(self.key)

    async def _read(self, now: float) -> None:
        index = await self.triton.index()
        await self._take_index(index)
        if not self.synced:
            await self._read_files()
            await self.store.clean(self.incoming())
            # Both at once: a server that is read and does not answer, even for a moment, loses its endpoints.
            self.synced = self.answering = True
            log.info("server %s is read: %d models loaded, %d on disk", self.key, self._count_ready(), len(self.facts))
            self.answers_changed(self.key)
        draining = any(facts.drain is not None for facts in self.facts.values())
        if draining or now - self._statistics_at >= STATISTICS_SECONDS:
            self._statistics_at = now
            statistics, page = await asyncio.gather(self.triton.statistics(), self._read_page())
            self._take_statistics(statistics, page, now)
            self.counted(self, statistics, page)

    async def _read_page(self) -> str:
        """The metrics page; empty where it cannot be read, since nothing but foresight and accounts hang on it."""
        try:
            return await self.page.read() if self.page is not None else ""
        except ServerUnavailable as error:
            log.debug("server %s: %s", self.key, error)
            return ""

    def _count_ready(self) -> int:
        return sum(facts.index is IndexState.READY for facts in self.facts.values())

    async def _read_files(self) -> None:
        for name, revision in (await self.store.list_models()).items():
            if (key := key_of_served_name(name)) is not None:
                facts = self.fact(key)
                facts.has_files, facts.file_revision = True, revision

    async def _take_index(self, index: dict[str, ModelState]) -> None:
        changed: list[ModelKey] = []
        found = {key: state for name, state in index.items() if (key := key_of_served_name(name)) is not None}
        for key, state in found.items():
            new = _INDEX.get(state.state, IndexState.ABSENT)
            if new is IndexState.ABSENT and key not in self.facts:
                continue
            facts = self.fact(key)
            if new is not facts.index:
                facts.index, facts.stuck, facts.orphan_since_seconds = new, False, None
                if new is not IndexState.LOADING:
                    self.hung_loads -= facts.hung
                    facts.hung = False
                if new is not IndexState.READY:
                    facts.loaded_revision, facts.healthy, facts.statistics = None, True, None
                    facts.sent = facts.sent and new is IndexState.LOADING
                if new is IndexState.UNAVAILABLE and facts.job is None:
                    facts.memory_bytes = 0
                changed.append(key)
            self._note_unending(key, facts)
        for key, facts in list(self.facts.items()):
            # While new files take the place of old ones the name is missing for a moment, though Triton serves on.
            if key not in found and facts.index is not IndexState.ABSENT and facts.job is None:
                facts.index, facts.loaded_revision, facts.healthy, facts.statistics = IndexState.ABSENT, None, True, None
                facts.sent, facts.memory_bytes = False, 0
                changed.append(key)
            if facts.gone:
                del self.facts[key]
                changed.append(key)
        changed += await self._read_revisions(found)
        if changed:
            self.wake(changed)

    def _note_unending(self, key: ModelKey, facts: Facts) -> None:
        """A load or unload that is nobody's and goes on must not hold its server for ever."""
        under_way = facts.job is not None or (facts.sending is not None and not facts.sending.done())
        if facts.index not in _UNDER_WAY or under_way or facts.hung or facts.stuck:
            facts.orphan_since_seconds = None
            return
        now = asyncio.get_running_loop().time()
        if facts.orphan_since_seconds is None:
            facts.orphan_since_seconds = now
        if now - facts.orphan_since_seconds <= (ORPHAN_SECONDS if facts.index is IndexState.LOADING else STUCK_SECONDS):
            return
        if facts.index is IndexState.LOADING:
            self.hung_loads += 1
            facts.hung = True
            log.warning("%s is still loading on %s though nobody waits for it: only a new pod ends that", key, self.key)
        else:
            facts.stuck, facts.drain = True, None
            log.warning("%s does not end on %s: its memory there comes back with a new pod", key, self.key)
        self.answers_changed(self.key)

    async def _read_revisions(self, found: Iterable[ModelKey]) -> list[ModelKey]:
        """What is loaded where that is not known; jobs may learn it meanwhile, and know better."""
        learned = []
        for key in found:
            facts = self.facts.get(key)
            if facts is None or not _unknown(facts):
                continue
            with contextlib.suppress(ModelNotServed):
                loaded = await self.triton.loaded(key.served_name)
                if _unknown(facts):
                    facts.loaded_revision, facts.instances, facts.sent = loaded.revision, loaded.instances, False
                    learned.append(key)
        return learned

    def _take_statistics(self, statistics: dict[str, ModelStatistics], page: str, now: float) -> None:
        changed: list[ModelKey] = []
        before, self._page_before = self._page_before, page
        for name, new in statistics.items():
            key = key_of_served_name(name)
            facts = self.facts.get(key) if key is not None else None
            if key is None or facts is None:
                continue
            old, facts.statistics = facts.statistics, new
            if old is not None and facts.job is None and new.success_count < old.success_count:
                facts.loaded_revision = None  # counts begin anew with a reload: perhaps one that an operator before us has sent
            if facts.drain is not None and old is not None:
                seen = (new.success_count + new.failure_count) - (old.success_count + old.failure_count)
                if seen > 0:
                    facts.drain = replace(facts.drain, last_request_seconds=now, requests=facts.drain.requests + seen)
            if old is not None and facts.healthy and facts.job is None and _process_is_dead(old, new, before, page):
                self._note_death(facts, now)
                changed.append(key)
        if changed:
            self.wake(changed)

    def _note_death(self, facts: Facts, now: float) -> None:
        """Have a model repaired: at once the first time, after growing pauses where it dies again and again."""
        facts.healthy = False
        if facts.repaired_at_seconds is None or now - facts.repaired_at_seconds >= REPAIRED_LATELY_SECONDS:
            facts.repairs = 0
        elif facts.loaded_revision is not None and facts.repairs:
            pause = min(LAST_REPAIR_PAUSE_SECONDS, FIRST_REPAIR_PAUSE_SECONDS * 2 ** (facts.repairs - 1))
            message = f"its process died again after {facts.repairs} repairs"
            facts.failure = Failure(facts.loaded_revision, "Unhealthy", message, facts.repairs, now + pause)


def _unknown(facts: Facts) -> bool:
    under_way = facts.job is not None or (facts.sending is not None and not facts.sending.done())
    return facts.index is IndexState.READY and not under_way and (facts.loaded_revision is None or facts.sent)


def _process_is_dead(old: ModelStatistics, new: ModelStatistics, page_before: str, page: str) -> bool:
    """Whether all that was asked between two readings failed in the backend as it does where the model's process is gone.

    Not so a model that raises, after however long: its executions are counted. Nor one whose requests time out in its queue, or
    are given up by their callers, while one executes for long: the page tells those apart.
    """
    failed = new.failure_count - old.failure_count
    if failed <= 0 or new.success_count != old.success_count or new.execution_count != old.execution_count:
        return False
    if (new.failure_ns - old.failure_ns) / failed / 1e9 < DEAD_STUB_SECONDS:
        return False
    then, now = backend_failures(page_before, new.name), backend_failures(page, new.name)
    return then is not None and now is not None and now > then
