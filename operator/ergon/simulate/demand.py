"""Where a policy's demand comes from: the operator's own forecasts and scaling, or for `clairvoyant` what will come."""

from collections import deque
from typing import Protocol

import numpy as np

from ergon.demand import Forecaster, Limits, Scaling, Signals
from ergon.demand.forecast import SETTLE_SECONDS
from ergon.demand.peaks import Peaks, kept_share
from ergon.demand.places import Places
from ergon.demand.scaling import FAST_SECONDS, STABILISE_SECONDS, SUSTAINED_SECONDS
from ergon.fleet.types import Model, ModelKey
from ergon.simulate.policies.base import Observed
from ergon.simulate.workload import Workload, work_of

_LOOKS = 3
_JUDGED = 20
"""Requests in a look below which a share of late ones says nothing."""

_LATE_SHARE = 0.05


class DemandSource(Protocol):
    """Says what work per second to plan for."""

    def observe(self, observed: Observed) -> None:
        """Take in what came since the last look."""

    def forecast(self, now_seconds: float) -> dict[ModelKey, float]:
        """Work per second by model to plan for from now on; once a plan."""

    def urgent(self, now_seconds: float) -> dict[ModelKey, float]:
        """The models that need more before the next plan, and how much."""

    def peaks(self, now_seconds: float) -> dict[ModelKey, float]:
        """Work per second that models which generate must have places for, where it is known."""


class Forecasts:
    """The operator's demand: its forecaster and its scaling, fed with what arrives in place of what Triton's counters tell.

    `horizon_seconds` by model: the plan interval, or the model's cold start where that is longer.
    """

    def __init__(self, models: tuple[Model, ...], horizon_seconds: dict[ModelKey, float], begin: float) -> None:
        self._models, self._horizons = models, horizon_seconds
        self._forecaster = Forecaster(max(64, len(models)))
        self._scaling = [Scaling(begin) for _ in models]
        self._limits = [Limits.of(model, can_wake=False) for model in models]
        self._seen: deque[Observed] = deque(maxlen=_LOOKS)
        self._peaks = Peaks()
        self._places = Places(self._peaks, STABILISE_SECONDS)
        self._generating = [(m, model) for m, model in enumerate(models) if model.counts_tokens]

    def learn(self, workload: Workload, end_seconds: float) -> None:
        """Go through what came before, step by step."""
        steps = workload.steps
        last = min(steps.row(end_seconds - 1e-6) + 1, len(steps.requests))
        work = np.nan_to_num(workload.work(slice(0, max(last, 0))))
        for row, came in enumerate(work):
            start = steps.start_seconds + row * steps.step_seconds
            for model, amount in zip(self._models, came.tolist(), strict=True):
                self._forecaster.add(model.key, start, start + steps.step_seconds, amount)
            self._forecaster.advance(start + steps.step_seconds + SETTLE_SECONDS)
        spans = workload.spans or steps
        last = min(spans.row(end_seconds - 1e-6) + 1, len(spans.requests))
        came = np.nan_to_num(work_of(self._models, spans, slice(0, max(last, 0))))
        for m, model in self._generating:
            for row, amount in enumerate(came[:, m].tolist()):
                start = spans.start_seconds + row * spans.step_seconds
                self._peaks.add(model.key, start, start + spans.step_seconds, amount)
        self._peaks.advance(end_seconds)

    def observe(self, observed: Observed) -> None:
        """Take in what came."""
        now, seconds = observed.now_seconds, observed.interval_seconds
        self._seen.append(observed)
        for m, (model, work) in enumerate(zip(self._models, observed.work.tolist(), strict=True)):
            self._forecaster.add(model.key, now - seconds, now, work)
            if work > 0:
                self._scaling[m].asked(now)
        for m, model in self._generating:
            self._peaks.add(model.key, now - seconds, now, float(observed.work[m]))

    def forecast(self, now_seconds: float) -> dict[ModelKey, float]:
        """The forecast's p90, held and raised as the operator does."""
        self._forecaster.advance(now_seconds)
        self._peaks.advance(now_seconds)
        made = {}
        for m, model in enumerate(self._models):
            forecast = self._forecaster.forecast(model.key, now_seconds, self._horizons[model.key])
            has_places = self._places.find(model.key, model.slo_percentile, forecast.p90, now_seconds)
            expected = forecast.mean if has_places else forecast.p90
            decision = self._scaling[m].decide(now_seconds, expected, self._signals(m, now_seconds), self._limits[m])
            made[model.key] = decision.work_per_second
        return made

    def urgent(self, now_seconds: float) -> dict[ModelKey, float]:
        """The fast path's decisions."""
        found = {}
        for m, model in enumerate(self._models):
            decision = self._scaling[m].look(now_seconds, self._signals(m, now_seconds), self._limits[m])
            if decision is not None:
                found[model.key] = decision.work_per_second
        return found

    def peaks(self, now_seconds: float) -> dict[ModelKey, float]:
        """The operator's peaks, as found with the last forecast."""
        return self._places.known()

    def _signals(self, m: int, now: float) -> Signals:
        """What Triton's statistics would show; where more than one in twenty is late, latency as twice the target."""
        if not self._seen:
            return Signals()
        new, old = self._seen[-1], self._seen[0]
        requests = float(new.requests[m])
        target = self._models[m].slo_latency_seconds
        late = requests >= _JUDGED and float(new.late[m]) > _LATE_SHARE * requests
        places = self._places.of(self._models[m].key)
        return Signals(
            observed=self._forecaster.observed(self._models[m].key, now, SUSTAINED_SECONDS if places else FAST_SECONDS),
            places=places,
            requests_per_second=requests / max(new.interval_seconds, 1e-9),
            pending=int(new.waiting[m]),
            pending_before=int(old.waiting[m]),
            latency_seconds=None if target is None else 2 * target if late else 0.0,
            latency_target_seconds=target,
        )


class Future:
    """What will come: the largest mean of a step from now until a cold start, and the hold, are over."""

    def __init__(self, workload: Workload, lookahead_seconds: float) -> None:
        self._models = workload.models
        self._steps = workload.steps
        self._work = np.nan_to_num(workload.work(slice(None))) / workload.steps.step_seconds
        self._ahead = lookahead_seconds
        self._generating = np.array([model.counts_tokens for model in workload.models])
        self._spans = workload.spans or workload.steps
        self._span_work = np.nan_to_num(work_of(workload.models, self._spans, slice(None)))

    def observe(self, observed: Observed) -> None:
        """Nothing: it knows already."""

    def forecast(self, now_seconds: float) -> dict[ModelKey, float]:
        """The largest step from now on; of models that generate the mean, since they have places for their peaks."""
        first = max(0, self._steps.row(now_seconds))
        last = max(first, self._steps.row(now_seconds + self._ahead - 1e-6)) + 1
        rows = self._work[first:last]
        most = rows.max(axis=0) if len(rows) else np.zeros(len(self._models))
        most = np.where(self._generating, rows.mean(axis=0) if len(rows) else most, most)
        return {model.key: float(work) for model, work in zip(self._models, most, strict=True)}

    def urgent(self, now_seconds: float) -> dict[ModelKey, float]:
        """Nothing: what comes is planned for."""
        return {}

    def peaks(self, now_seconds: float) -> dict[ModelKey, float]:
        """Of the next hour, by the same measure."""
        spans = self._spans
        first = max(0, spans.row(now_seconds))
        rates = self._span_work[first : first + max(1, round(3600.0 / spans.step_seconds))] / spans.step_seconds
        found = {}
        for m, model in enumerate(self._models):
            if model.counts_tokens and len(rates) and rates[:, m].sum() > 0:
                mine = np.sort(rates[:, m])
                share = np.cumsum(mine) / mine.sum()
                found[model.key] = float(mine[np.searchsorted(share, kept_share(model.slo_percentile))])
        return found
