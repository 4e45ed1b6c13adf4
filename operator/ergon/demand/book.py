"""What the engine and the simulator drive: windows in every few seconds, demand out every plan, what is urgent in between.

All times are seconds of one clock that never steps back (the caller's: the epoch at its start plus what a monotonic clock says
since).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ergon.demand.counters import Counters, Window, difference
from ergon.demand.forecast import SETTLE_SECONDS, Forecast, Forecaster
from ergon.demand.learning import Finding, Learning, ServiceKey, points_for
from ergon.demand.peaks import Peaks
from ergon.demand.places import Places
from ergon.demand.scaling import (
    FAST_SECONDS,
    STABILISE_SECONDS,
    SUSTAINED_SECONDS,
    Decision,
    Direction,
    Limits,
    Scaling,
    Signals,
    Trigger,
)
from ergon.demand.work import counts_tokens, request_work, token_work
from ergon.fleet.types import Model, ModelKey, OperatingPoint, ServerKey, Variant

PLAN_SECONDS = 60.0
"""The default plan interval, and the shortest horizon."""

MOST_KEPT_MODELS = 1000
"""In the state, the busiest: a ConfigMap holds 600 to 1,000 of them, and an operator that ends has two seconds to write it."""

PIECE_MODELS = 10
"""Of the state at once: 0.3 to 0.7 ms each."""

_NOT_LOADED = "not loaded"
_REFUSED_MOST = 3
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Tenant:
    """A model on a server: its variant, and the instances it executes with at once there."""

    variant: Variant
    instances: int = 1


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server as its counters are read: where it is, what it is, and which models it should hold."""

    key: ServerKey
    product: str | None
    accelerator_class: str
    tenants: Mapping[ModelKey, Tenant]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the caller knows of a model and counters do not: the plan's unserved work per second, and latency beside its target.

    `latency_seconds` is the maximum over the model's servers of their percentile, None where not known.
    """

    unserved: float = 0.0
    latency_seconds: float | None = None
    latency_target_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a model, all in work per second, and what the plan must hold for it.

    `work_per_second` is what to plan for; `mean`, `p90`, `method` and `score` are the forecast's; `observed` is the mean of the
    last ten seconds. `reason` is one sentence.
    """

    work_per_second: float
    mean: float
    p90: float
    observed: float
    method: str
    score: float | None
    least_replicas: int
    asleep: bool
    urgent: bool
    direction: Direction
    trigger: Trigger
    reason: str

    @property
    def headroom(self) -> float:
        """What is planned for beyond the expected mean."""
        return max(0.0, self.work_per_second - self.mean)


@dataclass(slots=True)
class _Track:
    """One replica's last believable counters, and its last windows."""

    counters: Counters | None = None
    refused: int = 0
    windows: deque[Window] = field(default_factory=lambda: deque(maxlen=_LOOKS))


class Book:
    """Everything that is known of demand. Measured: `observe` takes 85 us a replica, `demand` 0.14 ms a model with forecasts."""

    def __init__(self, stabilise_seconds: float = STABILISE_SECONDS, models: int = 64) -> None:
        """Knows nothing. `models` is room to begin with."""
        self.learning = Learning()
        self.forecaster = Forecaster(models)
        self.peaks = Peaks()
        self.findings: tuple[Finding, ...] = ()
        self.places = Places(self.peaks, stabilise_seconds)
        self._stabilise_seconds = stabilise_seconds
        self._tracks: dict[ServerKey, dict[ModelKey, _Track]] = {}
        self._looked_at: dict[ServerKey, float] = {}
        self._servers_of: dict[ModelKey, set[ServerKey]] = {}
        self._scaling: dict[ModelKey, Scaling] = {}
        self._seen: dict[ModelKey, Seen] = {}
        self._points: dict[tuple[ModelKey, str, str | None, str], tuple[Variant, tuple[OperatingPoint, ...]]] = {}

    def observe(
        self, server: ServerView, counters: Mapping[ModelKey, Counters], at_seconds: float | None = None
    ) -> dict[ModelKey, Window]:
        """Takes in one reading of a server; what each of its models did since the last one, where that is known.

        A tenant without counters (not read, half a page) is remembered, one that is no tenant any more forgotten. One that was
        none at the last reading, where `at_seconds` tells when that was, was loaded since: its counters began at 0.
        """
        tracks = self._tracks.setdefault(server.key, {})
        looked_at = self._looked_at.get(server.key)
        if at_seconds is not None:
            self._looked_at[server.key] = at_seconds
        for gone in [key for key in tracks if key not in server.tenants]:
            del tracks[gone]
            self._leaves(gone, server.key)
        windows = {}
        for key, tenant in server.tenants.items():
            track = tracks.get(key)
            if track is None:
                track = tracks[key] = _Track(Counters(looked_at, epoch=_NOT_LOADED) if looked_at is not None else None)
                self._servers_of.setdefault(key, set()).add(server.key)
            window = _next_window(track, counters.get(key), tenant.instances)
            if window is not None:
                windows[key] = window
        self._take_in(server, windows)
        return windows

    def server_gone(self, server: ServerKey) -> None:
        """A server was removed: its replicas are no more."""
        self._looked_at.pop(server, None)
        for key in self._tracks.pop(server, {}):
            self._leaves(key, server)

    def seen(self, key: ModelKey, seen: Seen) -> None:
        """Notes what the caller knows of a model; it holds until it is said anew."""
        self._seen[key] = seen

    def wake(self, key: ModelKey, now: float) -> None:
        """Somebody asks for a model that may be asleep: needed at once, at the next `urgent` or `demand`."""
        self._scaling_of(key, now).wake(now)

    def asked(self, key: ModelKey, now: float) -> None:
        """Somebody asks for a model that is on its way: it does not fall asleep meanwhile."""
        self._scaling_of(key, now).asked(now)

    def rest(self, key: ModelKey, now: float) -> None:
        """A model slept before this process began; it goes on sleeping."""
        self._scaling_of(key, now).rest()

    def demand(
        self,
        now: float,
        limits: Mapping[ModelKey, Limits],
        horizons: Mapping[ModelKey, float] | None = None,
        *,
        all_read: bool = True,
    ) -> dict[ModelKey, Demand]:
        """The demand of every model in `limits`, for a plan. Once a plan: learned points take their step here.

        `horizons` are seconds: the plan interval, or the model's cold start where that is longer; absent, the plan interval.
        `all_read`: every server was read by now, so that a model of which nothing was seen was asked for nothing.
        """
        self._advance(now, all_read)
        self.findings = tuple(self.learning.plan_passed())
        return {key: self._demand(key, now, each, (horizons or {}).get(key, PLAN_SECONDS)) for key, each in limits.items()}

    def urgent(self, now: float, limits: Mapping[ModelKey, Limits]) -> dict[ModelKey, Demand]:
        """The models that need more before the next plan, and what to plan for; only ever more. Cheap: every few seconds."""
        found = {}
        for key, each in limits.items():
            scaling = self._scaling.get(key)
            decision = scaling.look(now, self._signals(key, now), each) if scaling is not None else None
            if decision is not None:
                forecast = self.forecaster.forecast(key, now, PLAN_SECONDS)
                found[key] = self._as_demand(decision, forecast, key, now)
        return found

    def corrected(self, model: Model) -> Model:
        """The model with operating points as learned, for the planner."""
        variants = tuple(self.learning.corrected(model.key, variant) for variant in model.variants)
        return model if variants == model.variants else replace(model, variants=variants)

    def forget(self, key: ModelKey) -> None:
        """Drops a model that is no more."""
        for tracks in self._tracks.values():
            tracks.pop(key, None)
        for known in (self._servers_of, self._scaling, self._seen):
            known.pop(key, None)
        for points in [points for points in self._points if points[0] == key]:
            del self._points[points]
        self.learning.forget(key)
        self.forecaster.forget(key)
        self.peaks.forget(key)
        self.places.forget(key)

    def to_state(self) -> dict[str, Any]:
        """What survives a restart, as JSON can hold it: some 1 kB a model, of the MOST_KEPT_MODELS that were asked most."""
        state, *pieces = self.pieces()
        for piece in pieces:
            for name, part in piece.items():
                state[name] |= part
        return state

    def pieces(self) -> Iterator[dict[str, Any]]:
        """The same in pieces, of a few milliseconds each, whose parts of one name are to be united; the busiest models first."""
        keys = self.forecaster.busiest()[:MOST_KEPT_MODELS]
        place = {(key.namespace, key.name): number for number, key in enumerate(keys)}
        learning = self.learning.to_state()
        services = [service for service in learning["services"] if (service[0], service[1]) in place]
        services.sort(key=lambda service: place[service[0], service[1]])
        yield {"version": 1, "learning": {**learning, "services": services}, "forecasts": {}, "peaks": {}}
        for first in range(0, len(keys), PIECE_MODELS):
            some = [key for key in keys[first : first + PIECE_MODELS] if key in self.forecaster]
            yield {
                "forecasts": {str(key): self.forecaster.to_state(key) for key in some},
                "peaks": self.peaks.to_state(some),
            }

    def take_state(self, state: Mapping[str, Any], now: float | None = None) -> None:
        """Goes on from what `to_state` gave; what cannot be read is left out, and another version altogether. A past that lies
        after `now`, since the clock it was kept by ran ahead, is moved back.
        """
        if state.get("version") != 1:
            return
        learning, forecasts, peaks = state.get("learning"), state.get("forecasts"), state.get("peaks")
        if isinstance(peaks, Mapping):
            self.peaks.take_state(peaks)
        if isinstance(learning, Mapping):
            self.learning = Learning.from_state(learning)
        for text, entry in forecasts.items() if isinstance(forecasts, Mapping) else ():
            namespace, slash, name = str(text).partition("/")
            if slash and isinstance(entry, Mapping):
                self.forecaster.take_state(ModelKey(namespace, name), entry, now)

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], stabilise_seconds: float = STABILISE_SECONDS, now: float | None = None
    ) -> "Book":
        """A book that begins with what `to_state` gave."""
        book = cls(stabilise_seconds)
        book.take_state(state, now)
        return book

    def _take_in(self, server: ServerView, windows: Mapping[ModelKey, Window]) -> None:
        shares = {key: window.busy_share(server.tenants[key].instances) for key, window in windows.items()}
        total = sum(shares.values())
        all_known = len(windows) == len(server.tenants)
        for key, window in windows.items():
            tenant = server.tenants[key]
            points = self._points_of(key, tenant.variant, server.product, server.accelerator_class)
            service = ServiceKey(key, tenant.variant.name, server.product or server.accelerator_class)
            if all_known:
                self.learning.learn(service, points, tenant.instances, window, max(0.0, total - shares[key]))
            if counts_tokens(points):
                work, span = token_work(window, points, tenant.instances), window.spread_seconds
                self.peaks.add(key, window.end_seconds - span, window.end_seconds, work)
            else:
                work, span = request_work(window, self.learning.size(service)), window.seconds
            self.forecaster.add(key, window.end_seconds - span, window.end_seconds, work)
            scaling = self._scaling_of(key, window.end_seconds)
            if window.arrivals or window.pending:
                scaling.asked(window.end_seconds)

    def _advance(self, now: float, all_read: bool) -> None:
        idle = frozenset(key for key in self.forecaster if all_read and not self._servers_of.get(key))
        self.forecaster.advance(now, idle)
        self.peaks.advance(now - SETTLE_SECONDS)

    def _demand(self, key: ModelKey, now: float, limits: Limits, horizon_seconds: float) -> Demand:
        forecast = self.forecaster.forecast(key, now, horizon_seconds)
        recurring = self.forecaster.recurring(key, now, horizon_seconds) if limits.may_sleep else 0.0
        # What generates has places for its peak, and for the p90: busy it is with what is expected.
        has_places = self.places.find(key, limits.percentile, forecast.p90, now)
        expected = forecast.mean if has_places else forecast.p90
        decision = self._scaling_of(key, now).decide(now, expected, self._signals(key, now), limits, recurring)
        return self._as_demand(decision, forecast, key, now)

    def _as_demand(self, decision: Decision, forecast: Forecast, key: ModelKey, now: float) -> Demand:
        return Demand(
            work_per_second=decision.work_per_second,
            mean=forecast.mean,
            p90=forecast.p90,
            observed=self.forecaster.observed(key, now, FAST_SECONDS),
            method=forecast.method,
            score=forecast.score,
            least_replicas=decision.least_replicas,
            asleep=decision.asleep,
            urgent=decision.urgent,
            direction=decision.direction,
            trigger=decision.trigger,
            reason=decision.reason,
        )

    def _signals(self, key: ModelKey, now: float) -> Signals:
        told = self._seen.get(key, Seen())
        tracks = [self._tracks[server][key] for server in self._servers_of.get(key, ())]
        recent = [track.windows for track in tracks if track.windows and now - track.windows[-1].end_seconds <= 2 * FAST_SECONDS]
        newest, oldest = [windows[-1] for windows in recent], [windows[0] for windows in recent]
        places = self.places.of(key)
        return Signals(
            observed=self.forecaster.observed(key, now, SUSTAINED_SECONDS if places else FAST_SECONDS),
            places=places,
            requests_per_second=sum(window.arrivals / window.seconds for window in newest),
            unserved=told.unserved,
            pending=_total_pending(newest),
            pending_before=_total_pending(oldest),
            queue_seconds=_mean_wait(newest),
            queue_seconds_before=_mean_wait(oldest),
            latency_seconds=told.latency_seconds,
            latency_target_seconds=told.latency_target_seconds,
        )

    def _points_of(
        self, key: ModelKey, variant: Variant, product: str | None, accelerator_class: str
    ) -> tuple[OperatingPoint, ...]:
        place = (key, variant.name, product, accelerator_class)
        known = self._points.get(place)
        if known is None or known[0] is not variant:
            known = self._points[place] = (variant, points_for(variant.points, product, accelerator_class))
        return known[1]

    def _scaling_of(self, key: ModelKey, now: float) -> Scaling:
        scaling = self._scaling.get(key)
        if scaling is None:
            scaling = self._scaling[key] = Scaling(now, self._stabilise_seconds)
        return scaling

    def _leaves(self, key: ModelKey, server: ServerKey) -> None:
        servers = self._servers_of.get(key)
        if servers is not None:
            servers.discard(server)


def _next_window(track: _Track, new: Counters | None, instances: int) -> Window | None:
    """The window since the last believable counters; what cannot be believed three times running is where it starts anew."""
    if new is None:
        return None
    window = difference(track.counters, new, instances)
    if window is not None:
        track.windows.append(window)
    elif track.counters is not None and track.refused + 1 < _REFUSED_MOST:
        track.refused += 1
        return None
    if new.sound:
        track.counters, track.refused = new, 0
    return window


def _total_pending(windows: Iterable[Window]) -> int | None:
    known = [window.pending for window in windows if window.pending is not None]
    return sum(known) if known else None


def _mean_wait(windows: Iterable[Window]) -> float | None:
    answered = [(window.queue_seconds, window.succeeded) for window in windows if window.queue_seconds is not None]
    total = sum(count for _, count in answered)
    return sum(wait * count for wait, count in answered) / total if total else None
