"""Where a policy's demand comes from: what was seen, or for `clairvoyant` what will come."""

from collections import deque
from typing import Protocol

import numpy as np

from ergon.fleet.types import Model, ModelKey
from ergon.planning.arrays import Floats
from ergon.simulate.policies.base import Observed
from ergon.simulate.workload import Workload


class DemandSource(Protocol):
    """Says what work per second to plan for."""

    def observe(self, observed: Observed) -> None:
        """Take in what came since the last look."""

    def forecast(self, now_seconds: float) -> dict[ModelKey, float]:
        """Work per second by model to plan for from now on."""


class ObservedRate:
    """The largest mean of a minute in the last `window_seconds`: no forecast, a plain hold."""

    def __init__(self, models: tuple[Model, ...], first: Floats, window_seconds: float = 300.0) -> None:
        self._models, self._window = models, window_seconds
        self._seen: deque[tuple[float, float, Floats]] = deque()
        self._means: deque[tuple[float, Floats]] = deque([(-np.inf, first)])

    def observe(self, observed: Observed) -> None:
        """Take in what came."""
        now = observed.now_seconds
        self._seen.append((now, observed.interval_seconds, observed.work))
        while self._seen and self._seen[0][0] - self._seen[0][1] < now - 60.0 - 1e-9:
            self._seen.popleft()
        span = sum(seconds for _, seconds, _ in self._seen)
        if span >= 59.0:
            self._means.append((now, np.sum([work for _, _, work in self._seen], axis=0) / span))
        while len(self._means) > 1 and self._means[0][0] < now - self._window:
            self._means.popleft()

    def forecast(self, now_seconds: float) -> dict[ModelKey, float]:
        """The largest of the means."""
        most = np.max([mean for _, mean in self._means], axis=0)
        return {model.key: float(work) for model, work in zip(self._models, most, strict=True)}


class Future:
    """What will come: the largest mean of a step from now until a cold start, and the hold, are over."""

    def __init__(self, workload: Workload, lookahead_seconds: float) -> None:
        self._models = workload.models
        self._steps = workload.steps
        self._work = np.nan_to_num(workload.work(slice(None))) / workload.steps.step_seconds
        self._ahead = lookahead_seconds

    def observe(self, observed: Observed) -> None:
        """Nothing: it knows already."""

    def forecast(self, now_seconds: float) -> dict[ModelKey, float]:
        """The largest step from now on."""
        first = max(0, self._steps.row(now_seconds))
        last = max(first, self._steps.row(now_seconds + self._ahead - 1e-6)) + 1
        rows = self._work[first:last]
        most = rows.max(axis=0) if len(rows) else np.zeros(len(self._models))
        return {model.key: float(work) for model, work in zip(self._models, most, strict=True)}
