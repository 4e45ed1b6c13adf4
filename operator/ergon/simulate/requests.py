"""Request mode: every request, batch and power step as an exact discrete event.

A request goes to one of its model's ready replicas (`Settings.balance`: the fewer requests of two drawn at random, as Envoy does
by default, or in turn, as Traefik does). A batched replica hands waiting requests to its free instances as Triton's dynamic
batcher does: all that wait, up to the largest batch, at once, or after max_queue_delay where that is set and the batch is not
full. A continuous replica takes a request as soon as fewer than its largest batch are in generation.

What executes on one server shares its time by the planner's additive busy shares (`serving`).
"""

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import numpy as np

from ergon.fleet.types import Fleet, ModelKey
from ergon.simulate.curves import Place
from ergon.simulate.policies.base import Observed, Policy
from ergon.simulate.results import (
    BUCKETS,
    BUCKETS_A_DECADE,
    RATIO_BUCKETS,
    SMALLEST_RATIO,
    SMALLEST_SECONDS,
    WINDOW_SECONDS,
    Counter,
)
from ergon.simulate.sampling import Sampler, Used, count_joules
from ergon.simulate.serving import Event, Serving
from ergon.simulate.settings import Settings
from ergon.simulate.traces import Chunk
from ergon.simulate.workload import Workload
from ergon.simulate.world import Asked, Replica, World

_LEAST_WORK = 1e-6
_LOG_SCALE = BUCKETS_A_DECADE / math.log(10)
_LOG_OFFSET = -math.log(SMALLEST_SECONDS) * _LOG_SCALE
_RATIO_OFFSET = int(-math.log10(SMALLEST_RATIO) * BUCKETS_A_DECADE)
_TAIL_SECONDS = 3600.0
"""After the last request, so long may answers still take."""

Progress = Callable[[float], None]


class TooLate(Exception):
    """More requests have missed their target than a search for the smallest size allows."""


class RequestRun:
    """One policy over one part of a workload, [begin, end)."""

    def __init__(
        self,
        fleet: Fleet,
        places: dict[tuple[ModelKey, str, str], Place],
        workload: Workload,
        policy: Policy,
        settings: Settings,
        *,
        seed: int,
        begin: float,
        end: float,
        route: list[int] | None = None,
        progress: Progress = lambda seconds: None,
        misses_allowed: int | None = None,
    ) -> None:
        self.begin, self.end = begin, end
        self._workload, self._policy, self._settings = workload, policy, settings
        self._heap: list[Event] = []
        self._order = count()
        self._serving = Serving(self._heap, self._order, self._later, self._answer, self._refuse)
        self._progress = progress
        self._misses_allowed = misses_allowed
        self._chance = np.random.default_rng(seed)
        self.world = World(fleet, places, settings, begin, self._later)
        self.world.became_ready = self._take_held
        self.world.gone = self._keep_figures
        models = workload.models
        self._route = route if route is not None else list(range(len(models)))
        windows = max(1, math.ceil((end - begin) / WINDOW_SECONDS))
        slo = [_target(models[m].slo_latency_seconds, models[g].slo_latency_seconds, m == g) for m, g in enumerate(self._route)]
        self.counters = [Counter(target, windows) for target in slo]
        self.ratios = [[0] * (RATIO_BUCKETS + 1) for _ in range(math.ceil((end - begin) / settings.step_seconds))]
        self._held: list[deque[Asked]] = [deque() for _ in models]
        self._may_hold = [model.min_replicas == 0 and model.fixed_replicas is None for model in models]
        self._turn = [0] * len(models)
        self._requests = [0] * len(models)
        self._work = [0.0] * len(models)
        self._late = [0] * len(models)
        self.model_joules = [0.0] * len(models)
        self.missed = 0
        self.used: Used | None = None
        self._looked = begin
        self._chances: list[float] = []

    # -- the loop -------------------------------------------------------------------------------------------------------------

    def run(self, sampler: Sampler) -> None:
        """Simulate all of it. Raises TooLate where `misses_allowed` is exceeded."""
        world, heap = self.world, self._heap
        world.alone = self._policy.alone
        world.begin(self._policy.start(self.begin), self.begin)
        self._later(math.inf, lambda at: None)  # so that there is always a next event
        self._later(self.begin + self._policy.interval_seconds, self._look)
        sampler.begin(self, self.begin)
        self._later(self.begin + self._settings.step_seconds, lambda at: self._sample(sampler, at))
        for chunk in self._workload.chunks() if self._workload.chunks is not None else ():
            inside = chunk.part(
                slice(*(int(np.searchsorted(chunk.seconds, edge, side="left")) for edge in (self.begin, self.end)))
            )
            for start in range(0, len(inside), 65536):
                self._feed(inside.part(slice(start, start + 65536)))
            if len(chunk) and chunk.seconds[-1] >= self.end:
                break
        self._until(self.end)
        self._flush(self.end)
        world.advance(self.end)
        sampler.finish(self, self.end)
        for model, mine in enumerate(world.replicas):
            self.model_joules[model] += sum(self._serving.joules(replica) for replica in mine.values())
        world.gone = lambda replica: None
        self.used = count_joules(self)
        self._finish_answers()
        heap.clear()

    def _feed(self, chunk: Chunk) -> None:
        """Take the requests of a chunk in, and do all that happens between them."""
        if not len(chunk):
            return
        models = self._workload.models
        route = np.array(self._route)
        tokens = np.array([models[g].counts_tokens for g in self._route])
        weight = np.array([models[g].input_weight for g in self._route])
        work = np.where(tokens[chunk.model], chunk.output_tokens + weight[chunk.model] * chunk.input_tokens, 1.0)
        work = np.maximum(np.nan_to_num(work, nan=1.0), _LEAST_WORK)
        window = ((chunk.seconds - self.begin) / WINDOW_SECONDS).astype(np.int64)
        for m in np.unique(chunk.model):
            np.add.at(self.counters[m].total, window[chunk.model == m], 1)
        heap, until, arrive, requests, works = self._heap, self._until, self._arrive, self._requests, self._work
        rows = zip(chunk.seconds.tolist(), chunk.model.tolist(), work.tolist(), route[chunk.model].tolist(), strict=True)
        for now, asked, size, serving in rows:
            if heap[0][0] <= now:
                until(now)
            requests[serving] += 1
            works[serving] += size
            arrive(now, serving, size, asked)

    def _until(self, now: float) -> None:
        """Do all events up to a time."""
        heap, complete = self._heap, self._serving.complete
        while heap and heap[0][0] <= now:
            at, _, event, what = heappop(heap)
            if event < 0:
                what(at)  # type: ignore[operator]
            elif event == what.event:  # type: ignore[union-attr]
                complete(what, at)  # type: ignore[arg-type]

    def _later(self, at: float, call: Callable[[float], None]) -> None:
        heappush(self._heap, (at, next(self._order), -1, call))

    # -- requests -------------------------------------------------------------------------------------------------------------

    def _arrive(self, now: float, model: int, work: float, asked: int) -> None:
        ready, serving = self.world.ready[model], self._serving
        many = len(ready)
        if many == 1:
            replica = ready[0]
        elif many:
            replica = self._choose(ready, many, model, now)
        elif self._may_hold[model]:
            self._held[model].append((now, work, asked))
            return
        else:
            self._refuse(asked)
            return
        place = replica.place
        if not place.work_per_second:
            self._refuse(asked)
            return
        replica.outstanding += 1
        if place.continuous:
            if replica.in_flight < place.max_batch:
                server = replica.server
                serving.advance(server, now)
                serving.admit(replica, (now, work, asked), now)
                serving.schedule(server, now)
            elif place.queue.max_queue and len(replica.waiting) >= place.queue.max_queue:
                replica.outstanding -= 1
                self._refuse(asked)
            else:
                replica.waiting.append((now, work, asked))
            return
        waiting, queue = replica.waiting, place.queue
        if queue.max_queue and len(waiting) >= queue.max_queue:
            replica.outstanding -= 1
            self._refuse(asked)
            return
        waiting.append((now, work, asked))
        if replica.running < queue.instances:
            if not queue.delay_seconds or len(waiting) >= place.max_batch:
                server = replica.server
                serving.advance(server, now)
                serving.send(replica, now)
                serving.schedule(server, now)
            elif len(waiting) == 1:
                serving.send_later(replica, now + queue.delay_seconds)

    def _choose(self, ready: list[Replica], many: int, model: int, now: float) -> Replica:
        if self._settings.balance == "round-robin":
            self._turn[model] = turn = (self._turn[model] + 1) % many
            return ready[turn]
        first, second = 0, 1
        if not self._chances:
            self._chances = self._chance.random(8192).tolist()
        drawn = self._chances.pop()
        if many > 2:
            pair = int(drawn * many * (many - 1))
            first, second = divmod(pair, many - 1)
            if second >= first:
                second += 1
        elif drawn < 0.5:
            first, second = 1, 0
        one, other = ready[first], ready[second]
        for replica in (one, other):
            answered = replica.answered
            while answered and answered[0][0] <= now:
                replica.outstanding -= answered.popleft()[1]
        return one if one.outstanding <= other.outstanding else other

    def _refuse(self, asked: int) -> None:
        self.counters[asked].refused += 1
        self._late[self._route[asked]] += 1
        self.missed += 1
        if self._misses_allowed is not None and self.missed > self._misses_allowed:
            raise TooLate

    def _take_held(self, replica: Replica, now: float) -> None:
        held = self._held[replica.model]
        while held:
            came, work, asked = held.popleft()
            if now - came > self._settings.hold_seconds:
                self._refuse(asked)
                continue
            replica.outstanding += 1
            replica.waiting.append((came, work, asked))
        self._serving.advance(replica.server, now)
        self._serving.refill(replica, now)
        self._serving.schedule(replica.server, now)

    def _answer(self, came: float, latency: float, asked: int) -> None:
        counter = self.counters[asked]
        scaled = int(math.log(latency) * _LOG_SCALE + _LOG_OFFSET) if latency > SMALLEST_SECONDS else 0
        if scaled > BUCKETS:
            scaled = BUCKETS
        counter.buckets[scaled] += 1
        since = came - self.begin
        if latency <= counter.slo:
            counter.within[int(since / WINDOW_SECONDS)] += 1
        else:
            self._late[self._route[asked]] += 1
            self.missed += 1
            if self._misses_allowed is not None and self.missed > self._misses_allowed:
                raise TooLate
        ratio = scaled - counter.log_slo + _RATIO_OFFSET
        self.ratios[int(since / self._settings.step_seconds)][min(max(ratio, 0), RATIO_BUCKETS)] += 1

    # -- looking --------------------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Let the policy decide."""
        world = self.world
        waiting = np.zeros(len(self._workload.models))
        for m, mine in enumerate(world.replicas):
            waiting[m] = sum(len(replica.waiting) for replica in mine.values()) + len(self._held[m])
        observed = Observed(
            now_seconds=now,
            interval_seconds=now - self._looked,
            requests=np.array(self._requests, float),
            work=np.array(self._work, float),
            late=np.array(self._late, float),
            waiting=waiting,
            ready=frozenset(replica.wanted for ready in world.ready for replica in ready),
            present=world.present,
            moving=world.moving,
        )
        self._looked = now
        for counts in (self._requests, self._late):
            counts[:] = [0] * len(counts)
        self._work[:] = [0.0] * len(self._work)
        target = self._policy.decide(observed)
        if target is not None:
            world.apply(target, now)
        for held in self._held:
            while held and now - held[0][0] > self._settings.hold_seconds:
                self._refuse(held.popleft()[2])
        if now + self._policy.interval_seconds < self.end:
            self._later(now + self._policy.interval_seconds, self._look)

    def _sample(self, sampler: Sampler, now: float) -> None:
        self._flush(now)
        self.world.advance(now)
        sampler.sample(self, now)
        self._progress(now)
        if now + self._settings.step_seconds <= self.end:
            self._later(now + self._settings.step_seconds, lambda at: self._sample(sampler, at))

    def _flush(self, now: float) -> None:
        for servers in self.world.servers:
            for server in servers:
                if server.batches or server.flowing:
                    self._serving.advance(server, now)

    def _finish_answers(self) -> None:
        """Answers to requests that came before the end, though energy is counted up to the end only."""
        latest = self.end + _TAIL_SECONDS
        heap = self._heap
        while heap and heap[0][0] <= latest:
            if not any(server.batches or server.flowing for servers in self.world.servers for server in servers):
                break
            self._until(heap[0][0])

    def _keep_figures(self, replica: Replica) -> None:
        self.model_joules[replica.model] += replica.joules

    @property
    def execution_joules(self) -> list[float]:
        """By pool, what executing has taken so far, being awake not counted."""
        return [sum(server.execution_joules for server in servers) for servers in self.world.servers]

    @property
    def awake_joules(self) -> list[float]:
        """By pool, what being awake has taken so far."""
        return [sum(server.awake_joules for server in servers) for servers in self.world.servers]


def _target(own: float | None, serving: float | None, same: bool) -> float | None:
    """The target a request is held to; one that a general model answers gets the more generous of the two."""
    if same or own is None or serving is None:
        return own if same else None
    return max(own, serving)
