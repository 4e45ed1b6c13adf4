"""Measure one server by asking it with more and more requests in flight, until more brings nothing."""

import asyncio
import contextlib
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from ergon.triton.errors import TritonError

_T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t at 97.5 %, for 1 to 9 degrees of freedom: half the width of a 95 % interval in standard errors."""

GAIN = 1.05
"""A step that brings less than 5 % more throughput brings nothing."""
STEPS_WITHOUT_GAIN = 2
FAILED_SHARE = 0.01
CLIENT_BUSY_SHARE = 0.85
"""Of a core in this process: from here on the client may be what is slow."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: windows of `window_seconds`, at least three and at most `windows`, until the throughput is known
    to `uncertainty` (half a 95 % interval over the mean). `warm_seconds` before that are not counted."""

    window_seconds: float = 2.0
    warm_seconds: float = 2.0
    windows: int = 10
    uncertainty: float = 0.03


@dataclass(frozen=True, slots=True)
class Step:
    """What `in_flight` requests at once gave. `latency_seconds` is at the percentile asked for; `uncertainty` is relative.

    `failed`: requests that got no answer, `problem` the first of them. `client_share`: of a core that this process took.
    """

    in_flight: int
    requests_per_second: float
    latency_seconds: float
    uncertainty: float
    windows: int
    requests: int
    failed: int
    problem: str
    client_share: float

    @property
    def broken(self) -> bool:
        """Whether too many requests failed for the figures to mean anything."""
        return self.requests == 0 or self.failed > FAILED_SHARE * (self.requests + self.failed)


def in_flight_steps(most: int) -> Iterator[int]:
    """1, 2, 4, 8, … up to and including `most`."""
    step = 1
    while step < most:
        yield step
        step *= 2
    yield most


def brings_nothing(steps: list[Step]) -> bool:
    """Whether the last steps brought no more throughput than those before them."""
    if len(steps) <= STEPS_WITHOUT_GAIN:
        return False
    before = max(step.requests_per_second for step in steps[:-STEPS_WITHOUT_GAIN])
    return all(step.requests_per_second < GAIN * before for step in steps[-STEPS_WITHOUT_GAIN:])


def worth_pasting(steps: list[Step]) -> list[Step]:
    """The operating points a planner can use: each delivers more than any with fewer requests in flight."""
    kept: list[Step] = []
    for step in steps:
        if not step.broken and (not kept or step.requests_per_second >= GAIN * kept[-1].requests_per_second):
            kept.append(step)
    return kept


def half_interval(values: list[float]) -> float:
    """Half a 95 % interval of the mean, over the mean; infinite for fewer than two values, or a mean of 0."""
    mean = statistics.fmean(values) if values else 0.0
    if len(values) < 2 or mean <= 0:
        return math.inf
    t = _T_95[min(len(values) - 1, len(_T_95)) - 1]
    return t * statistics.stdev(values) / math.sqrt(len(values)) / mean


def percentile(values: list[float], percent: float) -> float:
    """The value that `percent` of all are at or below (nearest rank); NaN for none."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)] if ranked else math.nan


async def measure(ask: Callable[[], Awaitable[float]], in_flight: int, percent: float, effort: Effort) -> Step:
    """Keep `in_flight` requests under way, each asked anew as soon as it is answered, and count window by window."""
    counter = _Counter()
    workers = [asyncio.create_task(_keep_asking(ask, counter)) for _ in range(in_flight)]
    try:
        await asyncio.sleep(effort.warm_seconds)
        rates: list[float] = []
        latencies: list[float] = []
        failed, problem = 0, ""
        clock = asyncio.get_running_loop().time
        cpu_began, began = time.process_time(), clock()
        while len(rates) < 3 or (len(rates) < effort.windows and half_interval(rates) > effort.uncertainty):
            counter.take()
            window_began = clock()
            await _window(counter, effort.window_seconds)
            answered, wrong, said = counter.take()
            rates.append(len(answered) / (clock() - window_began))
            latencies += answered
            failed, problem = failed + wrong, problem or said
            if failed > FAILED_SHARE * (len(latencies) + failed) and len(rates) >= 2:
                break
        share = (time.process_time() - cpu_began) / (clock() - began)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return Step(
        in_flight=in_flight,
        requests_per_second=statistics.fmean(rates),
        latency_seconds=percentile(latencies, percent),
        uncertainty=half_interval(rates),
        windows=len(rates),
        requests=len(latencies),
        failed=failed,
        problem=problem,
        client_share=share,
    )


SLOWEST_WINDOW = 30.0
"""A window ends after so many times its length, however few requests were answered in it."""
ANSWERS_A_WINDOW = 10


async def _window(counter: "_Counter", seconds: float) -> None:
    """So long, and for slow models longer: until enough answers came to count by."""
    await asyncio.sleep(seconds)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(counter.enough.wait(), (SLOWEST_WINDOW - 1) * seconds)


class _Counter:
    """What came back since it was last taken; `enough` is set once that is enough to count by."""

    def __init__(self) -> None:
        self.enough = asyncio.Event()
        self._answered: list[float] = []
        self._failed = 0
        self._problem = ""

    def answered(self, seconds: float) -> None:
        self._answered.append(seconds)
        self._look()

    def failed(self, problem: str) -> None:
        self._failed += 1
        self._problem = self._problem or problem
        self._look()

    def take(self) -> tuple[list[float], int, str]:
        taken = self._answered, self._failed, self._problem
        self._answered, self._failed, self._problem = [], 0, ""
        self.enough.clear()
        return taken

    def _look(self) -> None:
        if len(self._answered) + self._failed >= ANSWERS_A_WINDOW:
            self.enough.set()


async def _keep_asking(ask: Callable[[], Awaitable[float]], counter: _Counter) -> None:
    while True:
        try:
            counter.answered(await ask())
        except TritonError as error:
            counter.failed(str(error))
            await asyncio.sleep(0.05)  # a server that refuses at once is not asked in a tight loop
