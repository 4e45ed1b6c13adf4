"""What gateways count of routes becomes demand of the models they ask."""

import json
import time

import pytest

from ergon.demand.cascade import MOST_KEPT, Cascades, RouteCounters, cascade_work
from ergon.fleet.types import ModelKey

ROUTE = ModelKey("team", "languages")
BIG = ModelKey("team", "big")
START = 86400.0 * 100


class Gateway:
    """A gateway's counters, which grow."""

    def __init__(self) -> None:
        self.requests = self.escalated = self.wished = 0.0

    def serve(self, requests: int, escalated: int, held_back: int = 0) -> None:
        self.requests += requests
        self.escalated += escalated
        self.wished += escalated + held_back

    def page(self) -> dict[ModelKey, RouteCounters]:
        asked = {"small": self.requests, "big": self.escalated}
        return {ROUTE: RouteCounters(self.requests, asked, self.escalated, self.wished, 0.1 * self.requests + 4 * self.escalated)}


def run(
    cascades: Cascades, seconds: int, *gateways: Gateway, requests: int = 10, escalated: int = 2, start: float = START
) -> float:
    now = start
    for _ in range(0, seconds, 5):
        cascades.observe(now, {str(n): each.page() for n, each in enumerate(gateways)})
        for each in gateways:
            each.serve(requests, escalated, held_back=1)
        now += 5
        if now % 60 == 10:
            cascades.forecaster.advance(now)
    cascades.observe(now, {str(n): each.page() for n, each in enumerate(gateways)})
    return now


def test_the_figures_are_those_of_all_gateways_together() -> None:
    cascades = Cascades()
    run(cascades, 60, Gateway(), Gateway())
    figures = cascades.figures(ROUTE, {})
    assert figures is not None
    assert figures.requests_per_second == pytest.approx(4.0)
    assert figures.escalation_rate == pytest.approx(0.2)
    assert figures.wished_rate == pytest.approx(0.3)
    assert figures.joules_per_request == pytest.approx(0.9)


def test_what_a_gateway_had_counted_before_it_was_seen_is_not_of_now() -> None:
    cascades, old = Cascades(), Gateway()
    old.serve(100_000, 100_000)
    run(cascades, 60, old)
    figures = cascades.figures(ROUTE, {})
    assert figures is not None
    assert figures.escalation_rate == pytest.approx(0.2)


def test_one_that_starts_again_counts_from_nothing() -> None:
    cascades = Cascades()
    now = run(cascades, 60, Gateway())
    run(cascades, 60, Gateway(), start=now + 5)
    figures = cascades.figures(ROUTE, {})
    assert figures is not None
    assert figures.requests_per_second == pytest.approx(2.0, rel=0.1)
    assert figures.escalation_rate == pytest.approx(0.2)


def test_one_that_is_silent_for_a_while_goes_on_from_where_it_was() -> None:
    cascades, gateway = Cascades(), Gateway()
    now = run(cascades, 60, gateway)
    for _ in range(6):
        now += 5
        cascades.observe(now, {})
        gateway.serve(10, 2)
    cascades.observe(now + 5, {"0": gateway.page()})
    figures = cascades.figures(ROUTE, {})
    assert figures is not None
    assert figures.requests_per_second == pytest.approx(2.0, rel=0.1)


def test_a_handful_of_requests_says_no_share() -> None:
    cascades = Cascades()
    run(cascades, 5, Gateway(), requests=5, escalated=5)
    figures = cascades.figures(ROUTE, {})
    assert figures is not None
    assert figures.requests_per_second > 0
    assert figures.escalation_rate is None
    assert cascades.least_work(START + 60, 60.0, lambda *_: 1.0, lambda *_: None) == {}


def test_a_route_and_a_gateway_that_are_gone_are_forgotten() -> None:
    cascades = Cascades()
    run(cascades, 60, Gateway())
    cascades.keep([], [])
    assert cascades.figures(ROUTE, {}) is None


def test_what_escalates_is_demand_of_the_big_model() -> None:
    cascades = Cascades()
    now = run(cascades, 1800, Gateway(), requests=100, escalated=25)
    # The big model does 5 escalated requests a second and 1 of its own.
    least = cascades.least_work(now, 60.0, lambda key, _: 6.0 if key == BIG else None, lambda *_: None)
    assert set(least) == {BIG}
    work, why = least[BIG]
    assert work == pytest.approx(6.0, rel=0.2)
    assert why == "asked for by 25% of route languages"


def test_a_route_that_has_just_begun_is_no_direct_demand_too() -> None:
    cascades, gateway = Cascades(), Gateway()
    now = run(cascades, 600, gateway, requests=0, escalated=0)
    now = run(cascades, 60, gateway, requests=500, escalated=500, start=now + 5)
    asked: list[float] = []

    def observed(key: ModelKey, seconds: float) -> float | None:
        asked.append(seconds)
        return 100.0 * 60 / seconds if key == BIG else None  # all of it came through the route

    work, _ = cascades.least_work(now, 60.0, observed, lambda *_: None)[BIG]
    assert asked == pytest.approx([300.0, 300.0])
    foreseen = cascades.forecaster.forecast(ROUTE, now, 60.0).p90
    assert foreseen > 50
    assert work == pytest.approx(foreseen, rel=0.1)


CASES = {
    "as much comes as is foreseen": (6.0, 5.0, 5.0, None, 6.0),
    "the route grows": (6.0, 5.0, 8.0, None, 9.0),
    "the route shrinks": (6.0, 5.0, 1.0, None, 2.0),
    "nothing was answered yet": (0.0, 0.0, 4.0, None, 4.0),
    "tokens, all through routes": (500.0, 5.0, 8.0, 5.0, 800.0),
    "tokens, some not counted yet": (500.0, 5.0, 8.0, 4.0, 800.0),
    "tokens, a tenth through routes": (1000.0, 1.0, 2.0, 10.0, 1100.0),
    "tokens, the route ends": (1000.0, 1.0, 0.0, 10.0, 900.0),
    "tokens of nobody": (0.0, 0.0, 8.0, 0.0, 0.0),
}


@pytest.mark.parametrize(("observed", "asked", "foreseen", "tokens", "work"), CASES.values(), ids=CASES)
def test_a_model_s_own_demand_and_its_routes(
    observed: float, asked: float, foreseen: float, tokens: float | None, work: float
) -> None:
    assert cascade_work(observed, asked, foreseen, tokens) == pytest.approx(work)


def test_another_operator_goes_on_from_what_was_kept() -> None:
    cascades, gateway = Cascades(), Gateway()
    now = run(cascades, 1800, gateway)
    cascades.forecaster.advance(now)
    kept = json.loads(json.dumps(cascades.to_state(), allow_nan=False))
    after = Cascades()
    after.take_state(kept)
    assert after.figures(ROUTE, {}) == cascades.figures(ROUTE, {})
    foreseen = [
        each.least_work(now + 30, 60.0, lambda key, seconds: 0.0, lambda key, seconds: None)[BIG][0] for each in (cascades, after)
    ]
    assert foreseen[0] > 0
    assert foreseen[1] == pytest.approx(foreseen[0], rel=0.25)
    # What the gateways had counted by then is a start for it, and what comes after is counted on top.
    later = run(after, 600, gateway, escalated=0, start=now + 60)
    figures = after.figures(ROUTE, {})
    assert figures is not None
    assert figures.escalation_rate == 0.0
    after.keep([], [])
    assert after.to_state()["routes"] == {}
    assert later > now


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 2, "routes": {"team/languages": {}}},
        {"version": 1, "routes": []},
        {"version": 1, "routes": {"languages": {}, "team/languages": None}},
        {"version": 1, "routes": {"team/languages": {"last": [1, 2, "x"], "past": "?"}}},
        {"version": 1, "routes": {"team/languages": {"last": [1, 2, -3, 4, 5, 6, {}]}}},
    ],
)
def test_what_cannot_be_read_of_it_is_left_out(state: dict[str, object]) -> None:
    cascades = Cascades()
    cascades.take_state(state)
    assert cascades.figures(ROUTE, {}) is None
    run(cascades, 60, Gateway())
    figures = cascades.figures(ROUTE, {})
    assert figures is not None
    assert figures.escalation_rate == pytest.approx(0.2)


def test_of_many_routes_the_busiest_are_kept() -> None:
    cascades = Cascades()
    for number in range(3):
        routes = {ModelKey("t", f"r{n}"): RouteCounters(number * (n + 1.0)) for n in range(MOST_KEPT + 10)}
        cascades.observe(START + 5 * number, {"a": routes})
    kept = cascades.to_state()["routes"]
    assert len(kept) == MOST_KEPT
    assert f"t/r{MOST_KEPT + 9}" in kept
    assert "t/r9" not in kept


def test_a_look_at_many_routes_takes_little_of_the_process_that_leads() -> None:
    """Its loop does nothing else meanwhile: 0.01 s for all of it, where adding up the windows anew took 0.15 s."""
    cascades = Cascades()
    keys = [ModelKey("t", f"r{n}") for n in range(250)]
    for number in range(70):
        counted = RouteCounters(10.0 * number, {"small": 10.0 * number, "big": 2.0 * number}, 2.0 * number, 3.0 * number)
        cascades.observe(START + 5 * number, dict.fromkeys(("a", "b"), dict.fromkeys(keys, counted)))
    began = time.process_time()
    counted = RouteCounters(700.0, {"small": 700.0, "big": 140.0}, 140.0, 210.0)
    cascades.observe(START + 350, dict.fromkeys(("a", "b"), dict.fromkeys(keys, counted)))
    figures = [cascades.figures(key, {}) for key in keys]
    cascades.least_work(START + 350, 60.0, lambda key, seconds: 1.0, lambda key, seconds: None)
    assert time.process_time() - began < 0.1
    assert all(each is not None and each.escalation_rate == pytest.approx(0.2) for each in figures)
