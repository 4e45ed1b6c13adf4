"""From what was asked for to results: builds each policy, finds sizes where it has one, and runs it."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ergon.fleet.types import Fleet, Model, ModelKey
from ergon.planning import plan
from ergon.planning.arrays import Floats
from ergon.simulate.bound import bound
from ergon.simulate.curves import Place, build_places
from ergon.simulate.demand import Forecasts, Future
from ergon.simulate.job import Job, Mode
from ergon.simulate.policies.base import Fixed, Observed, Policy, Target
from ergon.simulate.policies.cost import cheapest_mix
from ergon.simulate.policies.ergon import PLAN_SECONDS, Ergon
from ergon.simulate.policies.homes import Home, energy_best, fixed_target, homes_of
from ergon.simulate.policies.hpa import Hpa
from ergon.simulate.rates import RateRun
from ergon.simulate.requests import Progress, RequestRun, TooLate
from ergon.simulate.results import ModelResult, Result
from ergon.simulate.sampling import Sampler
from ergon.simulate.sizing import ENOUGH, ENOUGH_EACH, NoSize, smallest, smallest_each
from ergon.simulate.traces import BadTrace, Chunk
from ergon.simulate.workload import Workload, work_of

PEAK_SHARE = 0.995
"""Of a model's steps that its first guess of a fixed size carries."""

SCALE, SMALLEST_SCALE = 1.05, 0.3
"""Packings to freeze are tried for 5 % more demand each, from 0.3 of the peak."""

_CLOSE = 2.0
"""An estimate knows the latency rule and no bursts: it has been 1.5 times what a size found by trying draws."""


@dataclass
class _Timed:
    """A policy whose own seconds are counted."""

    inner: Policy
    clock: Callable[[], float]
    seconds: float = 0.0
    name: str = field(init=False)
    interval_seconds: float = field(init=False)
    alone: bool = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.interval_seconds, self.alone = self.inner.name, self.inner.interval_seconds, self.inner.alone

    @property
    def planned_watts(self) -> float | None:
        return self.inner.planned_watts

    def start(self, now_seconds: float) -> Target:
        began = self.clock()
        target = self.inner.start(now_seconds)
        self.seconds += self.clock() - began
        return target

    def decide(self, observed: Observed) -> Target | None:
        began = self.clock()
        target = self.inner.decide(observed)
        self.seconds += self.clock() - began
        return target


class Simulation:
    """A job, ready for any policy. Raises BadTrace or NoHome where the job cannot be done."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.fleet = replace(job.fleet, models=job.workload.models)
        self.models = job.workload.models
        self.places = build_places(self.fleet)
        steps = job.workload.steps
        first, last = max(0, steps.row(job.begin)), max(1, steps.row(job.end - 1e-6) + 1)
        self.rows = slice(first, last)
        self.work = np.nan_to_num(job.workload.work(self.rows)) / steps.step_seconds
        if not steps.requests[self.rows].sum():
            raise BadTrace(f"no request lies between {job.begin:.0f} s and {job.end:.0f} s; the trace is from "
                           f"{steps.start_seconds:.0f} s to {steps.end_seconds:.0f} s")  # fmt: skip
        self.peak = np.quantile(self.work, PEAK_SHARE, axis=0)
        self.mean = self.work.mean(axis=0)
        asked = steps.requests[self.rows].sum(axis=0) > 0
        self.asked = [m for m in range(len(self.models)) if asked[m]]

    def simulate(self, name: str) -> Result:
        """A policy over the job."""
        builders: dict[str, Callable[[], Result]] = {
            "ergon": self._ergon,
            "clairvoyant": self._clairvoyant,
            "static": self._static,
            "dedicated": self._dedicated,
            "hpa": self._hpa,
            "cost": self._cost,
            "general": self._general,
            "general-hpa": self._general_hpa,
            "bound": lambda: bound(self.job, self.fleet, self.work, self.rows),
        }
        return builders[name]()

    # -- running --------------------------------------------------------------------------------------------------------------

    def run(
        self,
        policy: Policy,
        *,
        route: list[int] | None = None,
        only: Sequence[int] | None = None,
        misses_allowed: int | None = None,
        size: str = "",
        notes: Iterable[str] = (),
        what: str = "",
    ) -> Result:
        """One run of one policy. With `only`, requests of other models are left out. Raises TooLate."""
        job = self.job
        timed = _Timed(policy, job.clock)
        sampler = Sampler(lambda: policy.planned_watts)
        workload = job.workload if only is None else _only(job.workload, only)
        progress = self._progress(what or policy.name)
        if job.mode == "rate":
            run = RateRun(
                self.fleet, self.places, workload, timed, job.settings,
                begin=job.begin, end=job.end, route=route, progress=progress,
            )  # fmt: skip
            run.run(sampler)
            return self._result(policy, timed, run, sampler, self._rate_models(run), [], _worst(run), size, tuple(notes))
        exact = RequestRun(
            self.fleet, self.places, workload, timed, job.settings, seed=job.seed,
            begin=job.begin, end=job.end, route=route, progress=progress, misses_allowed=misses_allowed,
        )  # fmt: skip
        exact.run(sampler)
        worst = min((counter.worst_window for counter in exact.counters), default=1.0)
        return self._result(policy, timed, exact, sampler, self._exact_models(exact), exact.ratios, worst, size, tuple(notes))

    def _progress(self, what: str) -> Progress:
        begin, length = self.job.begin, self.job.end - self.job.begin
        return lambda seconds: self.job.progress(what, (seconds - begin) / length)

    def _result(
        self,
        policy: Policy,
        timed: _Timed,
        run: RequestRun | RateRun,
        sampler: Sampler,
        models: tuple[ModelResult, ...],
        ratios: list[list[int]],
        worst: float,
        size: str,
        notes: tuple[str, ...],
    ) -> Result:
        assert run.used is not None
        steps = self.job.workload.steps
        requests = steps.requests[self.rows].sum(axis=1) / steps.step_seconds
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.nan_to_num(self.work / np.where(self.mean > 0, self.mean, np.inf)).mean(axis=1)
        return Result(
            policy=policy.name,
            mode=self.job.mode,
            seed=self.job.seed,
            seconds=self.job.end - self.job.begin,
            models=models,
            accounts=run.used.accounts,
            pools=tuple(pool.name for pool in self.fleet.pools),
            pool_joules=run.used.pools,
            series=sampler.series(requests, share, ratios),
            loads=run.world.loads,
            unloads=run.world.unloads,
            boots=run.world.boots,
            worst_window=worst,
            solver_seconds=timed.seconds,
            size=size,
            notes=notes,
        )

    def _exact_models(self, run: RequestRun) -> tuple[ModelResult, ...]:
        return tuple(
            ModelResult(
                name=str(model.key),
                requests=int(counter.total.sum()),
                within=sum(counter.within),
                refused=counter.refused,
                p50_seconds=counter.percentile(0.50),
                p95_seconds=counter.percentile(0.95),
                p99_seconds=counter.percentile(0.99),
                target_seconds=counter.slo if math.isfinite(counter.slo) else None,
                joules=run.model_joules[m],
            )
            for m, (model, counter) in enumerate(zip(self.models, run.counters, strict=True))
        )

    def _rate_models(self, run: RateRun) -> tuple[ModelResult, ...]:
        return tuple(
            ModelResult(
                name=str(model.key),
                requests=round(float(run.total[:, m].sum())),
                within=round(float(run.within[:, m].sum())),
                refused=round(float(run.refused[m])),
                p50_seconds=None,
                p95_seconds=None,
                p99_seconds=None,
                target_seconds=model.slo_latency_seconds,
                joules=float(run.model_joules[m]),
            )
            for m, model in enumerate(self.models)
        )

    # -- policies -------------------------------------------------------------------------------------------------------------

    def _ergon(self) -> Result:
        began = self.job.clock()
        source = Forecasts(self.models, {model.key: self._horizon(model.key) for model in self.models}, self.job.begin)
        source.learn(self.job.workload, self.job.begin)
        if self.job.begin <= self.job.workload.steps.start_seconds:  # nothing to learn from: it starts with the first step
            source.learn(self.job.workload, self.job.begin + self.job.workload.steps.step_seconds)
        learning = self.job.clock() - began
        result = self.run(Ergon("ergon", self.fleet, source, self.job.effort, self.job.improve_seconds))
        return replace(result, solver_seconds=result.solver_seconds + learning)

    def _horizon(self, key: ModelKey) -> float:
        """The plan interval, or the model's longest cold start on a server that is up."""
        sizes = [place.memory_bytes for place in self.places.values() if place.model == key]
        return max([PLAN_SECONDS, *map(self.job.settings.cold_start_seconds, sizes)])

    def _clairvoyant(self) -> Result:
        boot = max((pool.boot_delay_seconds for pool in self.fleet.pools), default=0.0)
        cold = max((self.job.settings.cold_start_seconds(p.memory_bytes) for p in self.places.values()), default=0.0)
        future = Future(self.job.workload, boot + cold + 60.0)
        return self.run(Ergon("clairvoyant", self.fleet, future, self.job.effort, self.job.improve_seconds))

    def _static(self) -> Result:
        """A packing for a part of each model's peak: the smallest for all alike, then less for each that keeps its target so."""
        found: dict[tuple[int, ...], Result] = {}
        kept: list[Result] = []

        def enough(scales: tuple[int, ...]) -> bool:
            factors = SMALLEST_SCALE * SCALE ** np.array(scales, float)
            demand = {model.key: float(self.peak[m] * factors[m]) for m, model in enumerate(self.models)}
            made = plan(replace(self.fleet, demand=demand, current=()), effort=self.job.effort)
            policy = Fixed("static", Target(made.placements), alone=False, planned_watts=made.watts)
            mean = float(factors @ self.peak / self.peak.sum())
            size = f"packed for {mean:.2f} x the peaks"
            if not self._tried(found, scales, policy, size, "static", short=made.short):
                return False
            kept.append(found[scales])
            return True

        count = len(self.models)
        guess = round(math.log(1.0 / SMALLEST_SCALE, SCALE))
        alike = smallest(lambda scale: enough((scale,) * count), guess, 2 * guess)
        best = (alike,) * count
        for step in (12, 6, 3):
            # Each model that has time to spare gives up so much; those that then miss theirs get it back.
            less = tuple(s - step if self._spare(found[best], m) else s for m, s in enumerate(best))
            if less != best and enough(less):
                best = less
                continue
            worse = found.get(less)
            if worse is not None:
                back = tuple(s if self._spare(worse, m) else b for m, (s, b) in enumerate(zip(less, best, strict=True)))
                if back != best and enough(back):
                    best = back
        return min(kept, key=lambda result: result.accounts.total)

    def _spare(self, result: Result, m: int) -> bool:
        """Whether a model keeps its target with something to spare."""
        return m in self.asked and result.models[m].within_share >= ENOUGH

    @staticmethod
    def _keeps(result: Result) -> bool:
        worst = result.worst_model
        return result.within_share >= ENOUGH and (worst is None or worst.within_share >= ENOUGH_EACH)

    def _tried(
        self, found: dict[Any, Result], at: object, policy: Policy, size: str, what: str, *, short: bool = False,
        route: list[int] | None = None,
    ) -> bool:  # fmt: skip
        """Whether a size keeps 99 % in time, 97 % of each model; it is given up as soon as it cannot."""
        total = float(self.job.workload.steps.requests[self.rows].sum())
        try:
            found[at] = self.run(policy, size=size, what=what, route=route, misses_allowed=int(total * (1 - ENOUGH)) + 1)
        except TooLate:
            return False
        return self._keeps(found[at]) and not short

    def _homes(self, m: int, load: float) -> list[Home]:
        """Where a model may be: its best variant on each pool, the one that draws least at this load first."""
        by_pool: dict[str, list[Home]] = {}
        for home in homes_of(self.fleet, self.places.values(), self.models[m].key):
            by_pool.setdefault(home.pool.name, []).append(home)
        mean = float(self.mean[m])
        best = [energy_best(homes, load, mean) for homes in by_pool.values()]
        return sorted(best, key=lambda home: (home.watts(home.pods(load), mean), home.pool.name))

    def _sizes(self, homes: dict[int, Home]) -> dict[int, int]:
        """The smallest fixed sizes of models that are alone, all tried at once."""
        numbers = list(homes)

        def shares(counts: Sequence[int], open_: Sequence[int]) -> list[float]:
            only = [numbers[i] for i in open_]
            pods = {self.models[m].key: [(homes[m], counts[i])] for i, m in zip(open_, only, strict=True)}
            target, _ = fixed_target(self.fleet, pods)
            tried = self.run(Fixed("dedicated", target), only=only, what=f"dedicated, sizes of {len(only)} models")
            return [tried.models[m].within_share for m in only]

        guesses = [homes[m].pods(float(self.peak[m])) for m in numbers]
        most = [homes[m].pool.servers_max * homes[m].slots for m in numbers]
        return dict(zip(numbers, smallest_each(shares, guesses, most), strict=True))

    def _dedicated(self) -> Result:
        """Each model on the pool on which the size that it needs draws least: the two best by their estimates are sized."""
        options = {m: self._homes(m, float(self.peak[m])) for m in self.asked}
        sized = {m: (options[m][0], count) for m, count in self._sizes({m: homes[0] for m, homes in options.items()}).items()}
        second = {m: homes[1] for m, homes in options.items() if len(homes) > 1 and self._close(m, homes[0], homes[1])}
        for m, count in (self._sizes(second) if second else {}).items():
            home, mean = second[m], float(self.mean[m])
            if home.watts(count, mean) < sized[m][0].watts(sized[m][1], mean):
                sized[m] = (home, count)
        target, short = fixed_target(self.fleet, {self.models[m].key: [part] for m, part in sized.items()})
        return self.run(Fixed("dedicated", target), size=f"{sum(count for _, count in sized.values())} pods", notes=short)

    def _close(self, m: int, best: Home, other: Home) -> bool:
        """Whether the estimates of two homes are too close to leave it at them."""
        peak, mean = float(self.peak[m]), float(self.mean[m])
        return other.watts(other.pods(peak), mean) < _CLOSE * best.watts(best.pods(peak), mean)

    def _hpa(self) -> Result:
        """On the pool that draws least for the mean, which is what the scaled size follows."""
        homes = {m: self._homes(m, float(self.mean[m]))[0] for m in self.asked}
        return self.run(Hpa("hpa", self.fleet, self.models, homes, self.work[0]))

    def _cost(self) -> Result:
        every = {m: homes_of(self.fleet, self.places.values(), self.models[m].key) for m in self.asked}
        guess = round(math.log(1.0 / SMALLEST_SCALE, SCALE))

        def mixes(scales: Sequence[int], of: Sequence[int]) -> dict[ModelKey, list[tuple[Home, int]]]:
            made = {}
            for i in of:
                m = self.asked[i]
                made[self.models[m].key] = cheapest_mix(every[m], float(self.peak[m]) * SMALLEST_SCALE * SCALE ** scales[i])
            return made

        def shares(scales: Sequence[int], open_: Sequence[int]) -> list[float]:
            target, _ = fixed_target(self.fleet, mixes(scales, open_))
            only = [self.asked[i] for i in open_]
            tried = self.run(Fixed("cost", target), only=only, what=f"cost, sizes of {len(only)} models")
            return [tried.models[m].within_share for m in only]

        scales = smallest_each(shares, [guess] * len(self.asked), [2 * guess] * len(self.asked))
        final = mixes(scales, range(len(self.asked)))
        target, short = fixed_target(self.fleet, final)
        price = sum(home.price(count) for parts in final.values() for home, count in parts)
        return self.run(Fixed("cost", target), size=f"{price:.2f} an hour", notes=short)

    def _general_model(self) -> tuple[int, list[int], Floats]:
        """The general model's number, the route of every request to it, and what all of them ask of it by step."""
        key = self.job.general
        number = next((m for m, model in enumerate(self.models) if model.key == key), None)
        if number is None:
            raise BadTrace("name the model that serves every task with --general namespace/name; it must be in the fleet")
        general = self.models[number]
        steps = self.job.workload.steps
        if general.counts_tokens:
            work = work_of([general] * len(self.models), steps, self.rows)
            untold = [m for m in self.asked if np.isnan(work[:, m]).any()]
            if untold:
                raise BadTrace(
                    f"the trace does not say the tokens of {self.models[untold[0]].key}, so it cannot be counted as a prompt to "
                    f"{key}; add input_tokens and output_tokens"
                )
        else:
            work = steps.requests[self.rows]
        return number, [number] * len(self.models), np.nan_to_num(work).sum(axis=1) / steps.step_seconds

    def _general(self) -> Result:
        number, route, work = self._general_model()
        home = self._general_home(number, work)
        found: dict[int, Result] = {}

        def enough(count: int) -> bool:
            target, _ = fixed_target(self.fleet, {self.models[number].key: [(home, count)]})
            return self._tried(found, count, Fixed("general", target), f"{count} pods", f"general, {count} pods", route=route)

        most = home.pool.servers_max * home.slots
        try:
            return found[smallest(enough, home.pods(float(np.quantile(work, PEAK_SHARE))), most)]
        except NoSize:
            target, _ = fixed_target(self.fleet, {self.models[number].key: [(home, most)]})
            note = f"pool {home.pool.name} has {home.pool.servers_max} servers, which is not enough for 99 %"
            return self.run(Fixed("general", target), route=route, size=f"{most} pods", notes=[note])

    def _general_home(self, number: int, work: Floats) -> Home:
        homes = homes_of(self.fleet, self.places.values(), self.models[number].key)
        return energy_best(homes, float(np.quantile(work, PEAK_SHARE)), float(work.mean()))

    def _general_hpa(self) -> Result:
        number, route, work = self._general_model()
        home = self._general_home(number, work)
        first = np.zeros(len(self.models))
        first[number] = work[0]
        return self.run(Hpa("general-hpa", self.fleet, self.models, {number: home}, first), route=route)


def _only(workload: Workload, models: Sequence[int]) -> Workload:
    """The same with the requests of some models."""
    keep = np.zeros(len(workload.models), bool)
    keep[list(models)] = True
    steps = replace(workload.steps, requests=np.where(keep, workload.steps.requests, 0.0))
    read = workload.chunks
    if read is None:
        return Workload(workload.models, steps, None)

    def chunks() -> Iterator[Chunk]:
        for chunk in read():
            yield chunk.part(np.flatnonzero(keep[chunk.model]))

    return Workload(workload.models, steps, chunks)


def _worst(run: RateRun) -> float:
    enough = run.total >= 100
    return float((run.within[enough] / run.total[enough]).min()) if enough.any() else 1.0


def asked_models(fleet: Fleet) -> tuple[Model, ...]:
    """The fleet's models in the order of their names."""
    return tuple(sorted(fleet.models, key=lambda model: model.key))


__all__ = ["Job", "Mode", "NoSize", "Place", "Simulation", "asked_models"]
