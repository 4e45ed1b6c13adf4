"""What a run leaves: energy by account, requests within their target, and series for the plots."""

import math
from dataclasses import dataclass, field

import numpy as np

from ergon.planning.arrays import Floats

WINDOW_SECONDS = 300.0
JUDGED_REQUESTS = 100
"""A window of a model with fewer requests says nothing about a share."""

BUCKETS_A_DECADE = 200
SMALLEST_SECONDS = 1e-4
BUCKETS = 8 * BUCKETS_A_DECADE
"""Latencies from 0.1 ms to three hours, 1.2 % apart."""

RATIO_BUCKETS = 6 * BUCKETS_A_DECADE
SMALLEST_RATIO = 1e-3

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model's part. Latencies are None in rate mode, and where nothing was answered. `joules`: of execution, without pue."""

    name: str
    requests: int
    within: int
    refused: int
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    target_seconds: float | None
    joules: float

    @property
    def within_share(self) -> float:
        """Of its requests; 1 where there were none."""
        return self.within / self.requests if self.requests else 1.0


@dataclass(frozen=True, slots=True)
class Series:
    """One entry a step, the first ending at `seconds[0]`; tables have a column a pool. Watts: means of the step, at the wall.

    `latency_share`: p95 of latency as a share of the target, NaN where unknown.
    """

    seconds: Floats
    requests_per_s: Floats
    work_share: Floats
    watts: Floats
    planned_watts: Floats
    servers: Floats
    replicas: Floats
    latency_share: Floats


@dataclass(frozen=True, slots=True)
class Accounts:
    """Joules of a run: models' execution, servers awake, idle, host, loading, and what the site adds (pue). They add up."""

    execution: float
    awake: float
    idle: float
    host: float
    loading: float
    pue: float

    @property
    def total(self) -> float:
        """Joules at the wall."""
        return self.execution + self.awake + self.idle + self.host + self.loading + self.pue

    @property
    def kwh(self) -> float:
        """Kilowatt-hours at the wall."""
        return self.total / JOULES_PER_KWH


@dataclass(frozen=True, slots=True)
class Result:
    """A policy over a trace. `mode` says how it was found; in rate mode `within` is by formula: work in steps in which the
    replicas that answer keep their planned busy share. `worst_window`: least share within target in any five minutes of a model
    with 100 requests or more in them. `solver_seconds`: what the policy itself took (planning), apart from the simulation."""

    policy: str
    mode: str
    seed: int
    seconds: float
    models: tuple[ModelResult, ...]
    accounts: Accounts
    pools: tuple[str, ...]
    pool_joules: tuple[float, ...]
    series: Series
    loads: int
    unloads: int
    boots: int
    worst_window: float
    solver_seconds: float
    size: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def requests(self) -> int:
        """Requests that came."""
        return sum(model.requests for model in self.models)

    @property
    def within(self) -> int:
        """Requests that were answered within their target."""
        return sum(model.within for model in self.models)

    @property
    def refused(self) -> int:
        """Requests that were refused: no replica, a full queue, or a time-out in it."""
        return sum(model.refused for model in self.models)

    @property
    def within_share(self) -> float:
        """Of all requests; refused and unanswered ones are misses."""
        return self.within / self.requests if self.requests else 1.0

    @property
    def worst_model(self) -> ModelResult | None:
        """The model with the least share within its target."""
        return min((m for m in self.models if m.requests), key=lambda m: m.within_share, default=None)

    @property
    def mean_watts(self) -> float:
        """At the wall, over the run."""
        return self.accounts.total / self.seconds if self.seconds else 0.0

    @property
    def joules_per_request(self) -> float:
        """At the wall, over all requests that came."""
        return self.accounts.total / self.requests if self.requests else 0.0


class Counter:
    """Latencies of one model as they come: counts by bucket, and how many were in time, by window."""

    __slots__ = ("buckets", "log_slo", "refused", "slo", "total", "within")

    def __init__(self, slo_seconds: float | None, windows: int) -> None:
        self.slo = math.inf if slo_seconds is None else slo_seconds
        self.log_slo = 0 if slo_seconds is None else bucket(slo_seconds)
        self.buckets = [0] * (BUCKETS + 1)
        self.total = np.zeros(windows, np.int64)
        self.within = [0] * windows
        self.refused = 0

    def percentile(self, share: float) -> float | None:
        """The latency that so large a share of the answers kept, to 1.2 %."""
        answered = sum(self.buckets)
        if not answered:
            return None
        place = int(np.searchsorted(np.cumsum(self.buckets), share * answered))
        return float(SMALLEST_SECONDS * 10 ** ((place + 1) / BUCKETS_A_DECADE))

    @property
    def worst_window(self) -> float:
        """The least share in time of a window with enough requests."""
        enough = self.total >= JUDGED_REQUESTS
        shares = np.array(self.within)[enough] / self.total[enough]
        return float(shares.min()) if len(shares) else 1.0


def bucket(seconds: float) -> int:
    """Which bucket a latency falls into."""
    return min(max(int(math.log10(max(seconds, 1e-12) / SMALLEST_SECONDS) * BUCKETS_A_DECADE), 0), BUCKETS)
