"""What gateways count of routes: how much is asked, how much of it escalates, and what that asks of every model.

A cascade is a pseudo-model: each of its models is asked for the share of the route's requests that gets as far. So the route's
forecast, times that share, is demand of the model, also of one that answers so little that its own past says nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ergon.demand.forecast import Forecaster
from ergon.fleet.types import ModelKey

FIGURES_SECONDS = 300.0
"""Over which shares are taken: long enough for some hundred requests of a busy route, short enough to follow a change."""
LEAST_REQUESTS = 20.0
"""Of a route, before a share of them says anything."""
MOST_KEPT = 500
"""Routes whose forecasts are kept over a restart: 0.8 kB each, packed, of the 900 that models and joules need room in too."""


@dataclass(frozen=True, slots=True)
class RouteCounters:
    """One gateway's counters of one route since its start. `asked`: by model; `escalations`: requests that went a step further.

    `wished`: those that would have, the ones held back included.
    """

    requests: float = 0.0
    asked: Mapping[str, float] = field(default_factory=dict)
    escalations: float = 0.0
    wished: float = 0.0
    joules: float = 0.0


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """A route over the last minutes. Rates are shares of its requests, None before enough were seen. `quality`: on its samples,
    at the rate that escalates now; `samples`: by rate."""

    requests_per_second: float
    escalation_rate: float | None = None
    wished_rate: float | None = None
    joules_per_request: float | None = None
    quality: float | None = None
    samples: Mapping[float, float] = field(default_factory=dict)


_NOTHING = RouteCounters()


@dataclass(slots=True)
class _Track:
    """One route: at the end of each of its last windows, and before the first of them, the seconds seen and all that was counted
    since it is known. What was counted over the windows is the last of these minus the first: adding up sixty windows of each of
    1,000 routes would take 0.2 s of the process that leads.
    """

    marks: deque[tuple[float, float, RouteCounters]] = field(default_factory=lambda: deque([(-math.inf, 0.0, _NOTHING)]))

    def add(self, end_seconds: float, seconds: float, counted: RouteCounters) -> None:
        """Another window; those that ended before the time over which shares are taken go."""
        _, so_far, total = self.marks[-1]
        self.marks.append((end_seconds, so_far + seconds, total if counted is _NOTHING else _sum(total, counted)))
        while len(self.marks) > 1 and self.marks[1][0] <= end_seconds - FIGURES_SECONDS:
            self.marks.popleft()

    def total(self) -> tuple[float, RouteCounters]:
        """Seconds and counters of all windows that are held."""
        (_, seconds_before, before), (_, seconds, now) = self.marks[0], self.marks[-1]
        return seconds - seconds_before, now if before is _NOTHING else _less(now, before)


class Cascades:
    """All routes. Times are seconds of one clock that never steps back."""

    def __init__(self) -> None:
        self.forecaster = Forecaster(8)
        self._last: dict[str, dict[ModelKey, RouteCounters]] = {}
        self._read_at: float | None = None
        self._tracks: dict[ModelKey, _Track] = {}

    def observe(self, at_seconds: float, pages: Mapping[str, Mapping[ModelKey, RouteCounters]]) -> None:
        """Takes in one look at all gateways: by pod, by route. A pod that did not answer is left out, and goes on from where it
        was; one that is seen for the first time starts here, and one whose counters fell was restarted and counts from 0.
        """
        since, self._read_at = self._read_at, at_seconds
        if since is None or at_seconds <= since:
            self._last.update({pod: dict(page) for pod, page in pages.items()})
            return
        sums: dict[ModelKey, RouteCounters] = dict.fromkeys(self._tracks, _NOTHING)
        for pod, page in pages.items():
            before = self._last.get(pod)
            for key, now in page.items():
                # A route that a known pod had not counted before began at 0 there.
                was = before.get(key, _NOTHING) if before is not None else now
                counted, so_far = _difference(was, now), sums.get(key, _NOTHING)
                sums[key] = counted if so_far is _NOTHING else so_far if counted is _NOTHING else _sum(so_far, counted)
            self._last[pod] = dict(page)
        for key, counted in sums.items():
            self._tracks.setdefault(key, _Track()).add(at_seconds, at_seconds - since, counted)
            self.forecaster.add(key, since, at_seconds, counted.requests)

    def keep(self, routes: Iterable[ModelKey], pods: Iterable[str]) -> None:
        """Forgets routes and gateways that are no more."""
        known, there = set(routes), set(pods)
        for key in [key for key in self._tracks if key not in known]:
            del self._tracks[key]
            self.forecaster.forget(key)
        self._last = {pod: page for pod, page in self._last.items() if pod in there}

    def figures(self, key: ModelKey, samples: Mapping[float, float]) -> RouteFigures | None:
        """A route's figures; None before anything was counted."""
        seconds, total = self._total(key)
        if seconds <= 0:
            return None
        enough = total.requests >= LEAST_REQUESTS
        rate = _share(total.escalations, total.requests) if enough else None
        return RouteFigures(
            total.requests / seconds,
            rate,
            _share(max(total.wished, total.escalations), total.requests) if enough else None,
            total.joules / total.requests if enough and total.joules > 0 else None,
            samples=samples,
        )

    def to_state(self) -> dict[str, Any]:
        """What survives a restart, as JSON can hold it: some 1 kB a route that was ever asked, of the busiest MOST_KEPT."""
        tracks = sorted(self._tracks.items(), key=lambda item: (-item[1].total()[1].requests, item[0]))
        known = {key: track for key, track in tracks if key in self.forecaster}
        kept = list(known.items())[:MOST_KEPT]
        return {
            "version": 1,
            "routes": {str(key): {**self.forecaster.to_state(key), "last": _last(track)} for key, track in kept},
        }

    def take_state(self, state: Mapping[str, Any], now: float | None = None) -> None:
        """Goes on from what `to_state` gave; what cannot be read is left out, and another version altogether. A past that lies
        after `now`, since the clock it was kept by ran ahead, is moved back.
        """
        routes = state.get("routes")
        if state.get("version") != 1 or not isinstance(routes, Mapping):
            return
        for text, entry in routes.items():
            namespace, slash, name = str(text).partition("/")
            if slash and isinstance(entry, Mapping):
                key = ModelKey(namespace, name)
                self.forecaster.take_state(key, entry, now)
                self._tracks[key] = _track(entry.get("last"))

    def least_work(
        self,
        now: float,
        horizon_seconds: float,
        observed_work: Callable[[ModelKey, float], float | None],
        token_requests: Callable[[ModelKey, float], float | None],
    ) -> dict[ModelKey, tuple[float, str]]:
        """Work per second that routes foresee for their models, with the sentence that says so.

        A model's own direct demand, plus of each route its forecast times the share of its requests that asks the model.
        `observed_work`: over so many seconds, direct and through routes; None where the model is not known.
        `token_requests`: requests per second over so many seconds of a model whose work is tokens, None for any other.
        """
        self.forecaster.advance(now)
        foreseen: dict[ModelKey, float] = {}
        asked_now: dict[ModelKey, float] = {}
        over: dict[ModelKey, float] = {}
        through: dict[ModelKey, list[str]] = {}
        for key in self._tracks:
            seconds, total = self._total(key)
            if total.requests < LEAST_REQUESTS:
                continue
            expected = self.forecaster.forecast(key, now, horizon_seconds).p90
            for name, asked in total.asked.items():
                model, share = ModelKey(key.namespace, name), _share(asked, total.requests)
                foreseen[model] = foreseen.get(model, 0.0) + expected * share
                asked_now[model] = asked_now.get(model, 0.0) + asked
                over[model] = max(over.get(model, 0.0), seconds)
                through.setdefault(model, []).append(f"{share:.0%} of route {key.name}")
        found = {}
        for model, requests in foreseen.items():
            # All over the same time: of a route that has just begun, a mean over less would pass for direct demand.
            seconds = over[model]
            observed = observed_work(model, seconds)
            if observed is None:
                continue
            work = cascade_work(observed, asked_now[model] / seconds, requests, token_requests(model, seconds))
            found[model] = work, f"asked for by {' and '.join(through[model])}"
        return found

    def _total(self, key: ModelKey) -> tuple[float, RouteCounters]:
        track = self._tracks.get(key)
        return track.total() if track is not None else (0.0, _NOTHING)


def _last(track: _Track) -> list[Any]:
    """When the last window ended, the seconds of all, and what was counted over them."""
    seconds, total = track.total()
    numbers = (track.marks[-1][0], seconds, total.requests, total.escalations, total.wished, total.joules)
    return [*(round(number, 3) if math.isfinite(number) else 0.0 for number in numbers), dict(total.asked)]


def _track(last: Any) -> _Track:
    """From what `_last` gave; an empty one where that cannot be read."""
    track = _Track()
    try:
        *numbers, asked = last
        at, seconds, requests, escalations, wished, joules = (float(number) for number in numbers)
        counted = {str(name): float(count) for name, count in asked.items()}
    except (TypeError, ValueError, AttributeError):
        return track
    if all(0 <= number < math.inf for number in (at, seconds, requests, escalations, wished, joules, *counted.values())):
        track.add(at, seconds, RouteCounters(requests, counted, escalations, wished, joules))
    return track


def cascade_work(observed: float, asked: float, foreseen: float, token_requests: float | None) -> float:
    """Work per second: what comes to the model directly, and what routes are foreseen to bring.

    `observed`: work per second that it did, `asked`: requests per second of it that came through routes, both over the same
    time; `foreseen`: requests per second that will. `token_requests`: of a model that counts tokens all its requests per second
    over that time; each is worth what they were on average, those of routes as much as others.
    """
    if token_requests is None:
        return max(0.0, observed - asked) + foreseen
    requests = max(token_requests, asked)  # those that are on their way are counted by the route alone
    return observed * (requests - asked + foreseen) / requests if requests > 0 else 0.0


def _difference(old: RouteCounters, new: RouteCounters) -> RouteCounters:
    """What was counted since; counters that fell count from 0."""
    if old == new:
        return _NOTHING
    fell = (
        new.requests < old.requests
        or new.escalations < old.escalations
        or new.wished < old.wished
        or new.joules < old.joules
        or any(new.asked.get(name, 0.0) < asked for name, asked in old.asked.items())
    )
    return new if fell or old is _NOTHING else _less(new, old)


def _less(new: RouteCounters, old: RouteCounters) -> RouteCounters:
    return RouteCounters(
        new.requests - old.requests,
        {name: asked - old.asked.get(name, 0.0) for name, asked in new.asked.items() if asked > old.asked.get(name, 0.0)},
        new.escalations - old.escalations,
        new.wished - old.wished,
        new.joules - old.joules,
    )


def _sum(one: RouteCounters, other: RouteCounters) -> RouteCounters:
    asked = dict(one.asked)
    for name, count in other.asked.items():
        asked[name] = asked.get(name, 0.0) + count
    return RouteCounters(
        one.requests + other.requests,
        asked,
        one.escalations + other.escalations,
        one.wished + other.wished,
        one.joules + other.joules,
    )


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole)
