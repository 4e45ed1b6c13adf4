"""Rate mode: the same fleet, with requests as a flow; queueing and batches by formula. For weeks and months.

Between two events (a step of the trace, a look of the policy, a change of the fleet) all is constant. A batched replica with x
requests a second serves batches of b = m + exp(-m), m = x t(b) / (1 - U'), what comes during one execution (Poisson), U' being
the busy share of the others on its server; a continuous one has as many in generation as make its rate. A request counts as in
time where l (1 + 3U / (1 - U)) of its replica, the planner's rule for p95, keeps the target, U being the planner's sum of x / mu.
One that generates, where it finds a place soon enough: a rate z times what the replicas can do makes the last of a span of s
seconds wait for (z - 1) s. Spans are as short as those that peaks are of; in a trace of rates they are its steps.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import numpy as np

from ergon.fleet.types import Fleet, ModelKey
from ergon.planning.arrays import Floats
from ergon.simulate.curves import Place
from ergon.simulate.policies.base import Observed, Policy
from ergon.simulate.results import WINDOW_SECONDS
from ergon.simulate.sampling import Sampler, Used, count_joules
from ergon.simulate.settings import Settings
from ergon.simulate.workload import Steps, Workload, work_of
from ergon.simulate.world import Replica, Server, World

_ROUNDS = 6
Progress = Callable[[float], None]


class RateRun:
    """One policy over one part of a workload, [begin, end)."""

    def __init__(
        self,
        fleet: Fleet,
        places: dict[tuple[ModelKey, str, str], Place],
        workload: Workload,
        policy: Policy,
        settings: Settings,
        *,
        begin: float,
        end: float,
        route: list[int] | None = None,
        progress: Progress = lambda seconds: None,
    ) -> None:
        self.begin, self.end = begin, end
        self._workload, self._policy, self._settings, self._progress = workload, policy, settings, progress
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self.world = World(fleet, places, settings, begin, self._later)
        many = len(workload.models)
        self._route = np.array(route if route is not None else range(many))
        self._slo = [m.slo_latency_seconds if m.slo_latency_seconds is not None else math.inf for m in workload.models]
        windows = max(1, math.ceil((end - begin) / WINDOW_SECONDS))
        self.total, self.within, self.refused = np.zeros((windows, many)), np.zeros((windows, many)), np.zeros(many)
        self.model_joules = np.zeros(many)
        self._execution, self._awake = [0.0] * len(fleet.pools), [0.0] * len(fleet.pools)
        self._execution_watts, self._awake_watts = [0.0] * len(fleet.pools), [0.0] * len(fleet.pools)
        self._model_watts = np.zeros(many)
        self._over = np.zeros(many, bool)
        self._on_time, self._served = np.zeros(many), np.zeros(many, bool)
        self._work, self._requests = np.zeros(many), np.zeros(many)
        self._spans = workload.spans or workload.steps
        self._span_rates = np.zeros((1, many))
        self._row = -1
        self._dirty, self._changes = True, 0
        self._looked = begin
        self._late = np.zeros(many)
        self._passed = np.zeros((2, many))
        self.used: Used | None = None

    @property
    def execution_joules(self) -> list[float]:
        """By pool, so far."""
        return self._execution

    @property
    def awake_joules(self) -> list[float]:
        """By pool, so far."""
        return self._awake

    def run(self, sampler: Sampler) -> None:
        """Simulate all of it."""
        world, heap, step = self.world, self._heap, self._workload.steps.step_seconds
        world.alone = self._policy.alone
        world.begin(self._policy.start(self.begin), self.begin)
        self._later(self.begin + self._policy.interval_seconds, self._look)
        sampler.begin(self, self.begin)
        now = self.begin
        while now < self.end - 1e-9:
            row = self._workload.steps.row(now)
            edge = min(self._workload.steps.start_seconds + (row + 1) * step, self.end)
            self._take_row(row)
            while now < edge - 1e-9:
                until = min(edge, heap[0][0] if heap else edge)
                if until > now:
                    self._pass(now, until)
                    now = until
                while heap and heap[0][0] <= now:
                    _, _, call = heappop(heap)
                    call(now)
            world.advance(now)
            sampler.sample(self, now)
            self._progress(now)
        self.used = count_joules(self)

    def _later(self, at: float, call: Callable[[float], None]) -> None:
        heappush(self._heap, (at, next(self._order), call))

    def _take_row(self, row: int) -> None:
        """The step's rates; a general model takes over the others' work."""
        steps = self._workload.steps
        one = slice(max(row, 0), max(row, 0) + 1)
        if not 0 <= row < len(steps.requests):
            self._requests = np.zeros(len(self._workload.models))
            self._work = self._requests
            self._span_rates = self._work[None, :]
        else:
            self._requests = steps.requests[row] / steps.step_seconds
            self._work = self._rates_of(steps, one)[0]
            parts = max(1, round(steps.step_seconds / self._spans.step_seconds))
            self._span_rates = self._rates_of(self._spans, slice(row * parts, (row + 1) * parts))
        self._dirty = True

    def _rates_of(self, steps: Steps, rows: slice) -> Floats:
        """Work per second by row and by the model that serves it."""
        serving = [self._workload.models[g] for g in self._route]
        work = np.nan_to_num(work_of(serving, steps, rows)) / steps.step_seconds
        return np.array([np.bincount(self._route, row, len(row)) for row in work]).reshape(work.shape)

    def _pass(self, now: float, until: float) -> None:
        """Count what happens between two events."""
        if self._dirty or self.world.changes != self._changes:
            self._settle()
            self._dirty, self._changes = False, self.world.changes
        passed = until - now
        for p, (execution, awake) in enumerate(zip(self._execution_watts, self._awake_watts, strict=True)):
            self._execution[p] += execution * passed
            self._awake[p] += awake * passed
        self.model_joules += self._model_watts * passed
        requests = self._requests * passed
        window = min(int((now - self.begin) / WINDOW_SECONDS), len(self.total) - 1)
        self.total[window] += requests
        on_time, served = self._on_time[self._route], self._served[self._route]
        self.within[window] += on_time * requests
        self.refused += np.where(served, 0.0, requests)
        self._late += np.bincount(self._route, np.where(self._over[self._route], requests, 0.0), len(requests))
        self._passed[0] += np.bincount(self._route, requests, len(requests))
        self._passed[1] += self._work * passed

    def _settle(self) -> None:
        """Find loads and power anew."""
        world = self.world
        flows: list[tuple[Replica, float]] = []
        self._served[:] = False
        for m, ready in enumerate(world.ready):
            work = float(self._work[m])
            usable = [replica for replica in ready if replica.place.known]
            if not usable:
                continue
            self._served[m] = True
            equal = self._settings.balance == "round-robin"
            weights = [1.0 if equal else replica.place.work_per_second for replica in usable]
            total = sum(weights)
            flows += [(replica, work * weight / total) for replica, weight in zip(usable, weights, strict=True)]
        self._power(flows)
        planned: dict[int, float] = {}
        for replica, work in flows:
            key = id(replica.server)
            planned[key] = planned.get(key, 0.0) + work / replica.place.work_per_second
        self._judge(planned, flows)

    def _power(self, flows: list[tuple[Replica, float]]) -> None:
        """Power by pool and model."""
        busy: dict[int, float] = {}
        first = {id(replica): _served(replica.place, work, 0.0) for replica, work in flows}
        for replica, _ in flows:
            key = id(replica.server)
            busy[key] = busy.get(key, 0.0) + first[id(replica)][0]
        awake: dict[int, list[tuple[float, float]]] = {}
        server_of: dict[int, Server] = {}
        pools = range(len(self.world.pools))
        execution_watts, awake_watts = [0.0 for _ in pools], [0.0 for _ in pools]
        self._model_watts[:] = 0.0
        for replica, work in flows:
            server, place = replica.server, replica.place
            others = busy[id(server)] - first[id(replica)][0]
            _, watts, active = _served(place, work, min(others, 0.95)) if others > 0.02 else first[id(replica)]
            execution_watts[server.pool] += watts
            self._model_watts[replica.model] += watts
            if place.awake_watts > 0:
                awake.setdefault(id(server), []).append((place.awake_watts, active))
                server_of[id(server)] = server
        for key, parts in awake.items():
            asleep = 1.0
            for watts, active in sorted(parts, reverse=True):
                awake_watts[server_of[key].pool] += watts * active * asleep
                asleep *= 1.0 - active
        self._execution_watts, self._awake_watts = execution_watts, awake_watts

    def _judge(self, busy: dict[int, float], flows: list[tuple[Replica, float]]) -> None:
        """The share of each model's work whose replica keeps the target, and which models have more to do than they can."""
        kept, whole = np.zeros(len(self._slo)), np.zeros(len(self._slo))
        self._over[:] = ~self._served
        places: dict[int, tuple[float, float]] = {}
        for replica, work in flows:
            m, share, place = replica.model, busy.get(id(replica.server), 0.0), replica.place
            work = max(work, 1e-12)
            whole[m] += work
            if share >= 1.0:
                self._over[m] = True
            elif place.continuous:
                rate, waits = places.get(m, (0.0, math.inf))
                places[m] = rate + place.work_rate[-1], min(waits, max(self._slo[m] - place.answer_seconds[-1], 0.0))
            elif place.answer_seconds[-1] * (1 + 3 * share / (1 - share)) <= self._slo[m] * (1 + 1e-6):
                kept[m] += work
        self._on_time = np.divide(kept, whole, out=np.zeros_like(kept), where=whole > 0)
        for m, (rate, waits) in places.items():
            self._on_time[m] += self._found_places(m, rate, waits)

    def _found_places(self, m: int, rate: float, waits: float) -> float:
        """Of a generating model's work in this step the share that begins within `waits` seconds, where `rate` can be done."""
        came = self._span_rates[:, m]
        if came.sum() <= 0:
            return 1.0
        line = np.maximum(came / rate - 1.0, 0.0) * self._spans.step_seconds
        share = np.minimum(1.0, np.divide(waits, line, out=np.ones_like(line), where=line > 0))
        return float((came * share).sum() / came.sum())

    def _look(self, now: float) -> None:
        passed = now - self._looked
        observed = Observed(
            now_seconds=now,
            interval_seconds=passed,
            requests=self._passed[0].copy(),
            work=self._passed[1].copy(),
            late=self._late.copy(),
            waiting=np.zeros(len(self._requests)),
            ready=frozenset(replica.wanted for ready in self.world.ready for replica in ready),
            present=self.world.present,
            moving=self.world.moving,
        )
        self._passed[:] = 0.0
        self._late[:] = 0.0
        self._looked = now
        target = self._policy.decide(observed)
        if target is not None:
            self.world.apply(target, now)
        if now + self._policy.interval_seconds < self.end:
            self._later(now + self._policy.interval_seconds, self._look)


def _served(place: Place, work: float, others: float) -> tuple[float, float, float]:
    """Busy share, watts above awake, and the share of time in which anything executes, with so much work a second."""
    if work <= 0:
        return 0.0, 0.0, 0.0
    if place.continuous:
        rates = place.work_rate
        at = bisect_left(rates, work)
        if at >= len(rates):
            return work / rates[-1], place.slope_watts[-1], 1.0
        below = rates[at - 1]
        in_flight = at - 1 + (work - below) / max(rates[at] - below, 1e-300)
        return _between(place.share, in_flight), _between(place.slope_watts, in_flight), 1.0 - math.exp(-in_flight)
    size, most = 1.0, float(place.max_batch)
    for _ in range(_ROUNDS):
        coming = work * _between(place.seconds, size) / (1.0 - others)
        size = min(coming + math.exp(-coming), most) if coming < 50 else min(coming, most)
    share = work / size * _between(place.seconds, size)
    active = min(share, 1.0)
    return share, active * _between(place.slope_watts, size), active


def _between(values: list[float], at: float) -> float:
    low = int(at)
    if low >= len(values) - 1:
        return values[-1]
    part = at - low
    return values[low] * (1.0 - part) + values[low + 1] * part
