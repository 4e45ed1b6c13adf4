"""What gateways count of routes: how much is asked, how much of it escalates, and what that asks of every model.

A cascade is a pseudo-model: each of its models is asked for the share of the route's requests that gets as far. So the route's
forecast, times that share, is demand of the model, also of one that answers so little that its own past says nothing.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ergon.demand.forecast import Forecaster
from ergon.fleet.types import ModelKey

FIGURES_SECONDS = 300.0
"""Over which shares are taken: long enough for some hundred requests of a busy route, short enough to follow a change."""
LEAST_REQUESTS = 20.0
"""Of a route, before a share of them says anything."""


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


@dataclass(slots=True)
class _Track:
    """One route: its last windows, (end, seconds, counters), and how many seconds each gateway told of."""

    windows: deque[tuple[float, float, RouteCounters]] = field(default_factory=deque)


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
        sums: dict[ModelKey, RouteCounters] = {key: RouteCounters() for key in self._tracks}
        for pod, page in pages.items():
            before = self._last.get(pod)
            for key, now in page.items():
                # A route that a known pod had not counted before began at 0 there.
                was = before.get(key, RouteCounters()) if before is not None else now
                sums[key] = _sum(sums.get(key, RouteCounters()), _difference(was, now))
            self._last[pod] = dict(page)
        for key, counted in sums.items():
            track = self._tracks.setdefault(key, _Track())
            track.windows.append((at_seconds, at_seconds - since, counted))
            while track.windows and track.windows[0][0] <= at_seconds - FIGURES_SECONDS:
                track.windows.popleft()
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
        if track is None or not track.windows:
            return 0.0, RouteCounters()
        total = RouteCounters()
        for _, _, counted in track.windows:
            total = _sum(total, counted)
        return sum(seconds for _, seconds, _ in track.windows), total


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
    pairs = [(old.requests, new.requests), (old.escalations, new.escalations), (old.wished, new.wished), (old.joules, new.joules)]
    pairs += [(old.asked.get(name, 0.0), new.asked.get(name, 0.0)) for name in old.asked]
    if any(now < was for was, now in pairs):
        return new
    return RouteCounters(
        new.requests - old.requests,
        {name: asked - old.asked.get(name, 0.0) for name, asked in new.asked.items()},
        new.escalations - old.escalations,
        new.wished - old.wished,
        new.joules - old.joules,
    )


def _sum(one: RouteCounters, other: RouteCounters) -> RouteCounters:
    names = one.asked.keys() | other.asked.keys()
    return RouteCounters(
        one.requests + other.requests,
        {name: one.asked.get(name, 0.0) + other.asked.get(name, 0.0) for name in names},
        one.escalations + other.escalations,
        one.wished + other.wished,
        one.joules + other.joules,
    )


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole)
