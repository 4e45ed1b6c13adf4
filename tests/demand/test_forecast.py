"""The p90 forecast: sane from the first look on, whatever is missing, and right about nine times in ten."""

import json
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.demand.forecast import HORIZON_MINUTES, NONE, Forecast, Forecaster
from ergon.demand.history import QUARTERS, History
from ergon.demand.rung import Rung
from ergon.fleet.types import ModelKey
from tests.demand.things import CODE, NER, OTHER

START = 20_000 * 86_400.0
"""A midnight, UTC."""


def fed(rates: list[float | None], key: ModelKey = NER, forecaster: Forecaster | None = None, start: float = START) -> Forecaster:
    """A forecaster that has seen these mean rates, a minute each; None: not seen."""
    made = forecaster if forecaster is not None else Forecaster(8)
    for minute, rate in enumerate(rates):
        begin = start + 60 * minute
        if rate is not None:
            made.add(key, begin, begin + 60, 60 * rate)
        made.advance(begin + 67)
    return made


def after(forecaster: Forecaster, minutes: int, horizon_seconds: float = 60.0, key: ModelKey = NER) -> Forecast:
    return forecaster.forecast(key, START + 60 * minutes + 7, horizon_seconds)


def test_nothing_seen_is_nothing_expected() -> None:
    empty = Forecaster()
    assert after(empty, 5) == NONE == Forecast(0, 0, "none")
    empty.add(NER, START, START + 5, 0.0)
    assert NER not in empty  # a model that was never asked costs nothing


@pytest.mark.parametrize(("seen_seconds", "mean"), [(10, 5), (20, 10), (30, 15), (50, 15)])
def test_the_first_requests_are_no_rate_and_half_a_minute_of_them_is(seen_seconds: int, mean: float) -> None:
    forecaster = Forecaster()
    for second in range(0, seen_seconds, 10):
        forecaster.add(NER, START + second, START + second + 5, 50)
        forecaster.add(NER, START + second + 5, START + second + 10, 100)
    found = forecaster.forecast(NER, START + seen_seconds, 60)
    assert found.mean == pytest.approx(mean, rel=0.01)
    assert mean <= found.p90 <= 2 * mean
    assert found.method == "first look"


@pytest.mark.parametrize("horizon_seconds", [10, 60, 120, 300, 900, 3600, 1e6])
def test_two_minutes_give_something_sane(horizon_seconds: float) -> None:
    found = after(fed([10.0, 12.0]), 2, horizon_seconds)
    assert 9 <= found.mean <= 13
    assert found.mean <= found.p90 <= 24
    assert found.method != "none"


def test_constant_traffic_needs_no_headroom() -> None:
    found = after(fed([10.0] * 60), 60, 300)
    assert found.mean == pytest.approx(10, rel=1e-3)
    assert found.p90 == pytest.approx(10, rel=1e-3)
    assert found.score == pytest.approx(0, abs=0.05)


def test_noise_is_covered_nine_times_in_ten() -> None:
    chance = np.random.default_rng(3)
    rates = chance.gamma(20, 1, 600)
    forecaster, covered = Forecaster(4), []
    for minute, rate in enumerate(rates):
        said = forecaster.forecast(NER, START + 60 * minute + 7, 60)
        if minute >= 60:
            covered.append(rate <= said.p90)
        fed([float(rate)], forecaster=forecaster, start=START + 60 * minute)
    assert 0.86 <= np.mean(covered) <= 0.94


def test_a_rise_is_followed_within_minutes() -> None:
    assert after(fed([10.0] * 60 + [40.0] * 3), 63).p90 >= 40


def test_the_day_is_learned_where_it_recurs() -> None:
    # A jump every day at noon from 10 to 100: at 11:55 nothing but the days before tell it.
    history, rung = History(1), Rung(60, 1)
    chance = random.Random(1)
    for minute in range(4 * 1440 + 715):
        now = int(START // 60) + minute
        rate = (10.0 if minute % 1440 < 720 else 100.0) * chance.uniform(0.9, 1.1)
        history.add(0, now * 60.0, now * 60.0 + 60, rate * 60)
        history.close(now, np.array([], np.int64))
        rung.tick(history)
    assert rung.p90[0] > 60
    assert "days" in rung.method(0) or "day" in rung.method(0)


def test_hours_that_a_clock_change_moves_are_hours_like_any_other() -> None:
    # Days count from the clock's zero: the same traffic an hour later in the day gives the same forecast.
    chance = random.Random(2)
    rates = [chance.uniform(5, 15) for _ in range(180)]
    one = fed(rates)
    other = fed(rates, start=START + 3600)
    there = other.forecast(NER, START + 3600 + 60 * 180 + 7, 900)
    assert after(one, 180, 900).p90 == pytest.approx(there.p90, rel=1e-6)


RATES = st.lists(st.none() | st.floats(0, 1000).map(lambda rate: round(rate, 1)), min_size=1, max_size=20)


@settings(max_examples=25, deadline=None)
@given(RATES, st.sampled_from([60.0, 200.0, 900.0]))
def test_holes_do_no_harm_and_nothing_is_negative(rates: list[float | None], horizon: float) -> None:
    found = after(fed(rates), len(rates), horizon)
    most = max((rate for rate in rates if rate is not None), default=0.0)
    assert 0 <= found.mean <= 2 * most + 1e-6
    assert 0 <= found.p90 <= 6 * most + 1e-6
    assert found.score is None or found.score >= 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1000).map(lambda rate: round(rate, 1)), min_size=1, max_size=20), st.sampled_from([2, 8, 1024]))
def test_more_traffic_is_a_higher_forecast_in_the_same_proportion(rates: list[float], factor: int) -> None:
    small = after(fed([*rates]), len(rates), 300)
    large = after(fed([rate * factor for rate in rates]), len(rates), 300)
    assert large.p90 == pytest.approx(small.p90 * factor, rel=1e-3, abs=1e-6)


def test_a_gap_says_nothing_and_a_model_without_replicas_was_not_asked() -> None:
    seen = [10.0] * 30
    with_gap = fed([*seen, *[None] * 30])
    assert after(with_gap, 60).p90 == pytest.approx(10, rel=0.01)
    asleep = fed(seen)
    asleep.advance(START + 60 * 60 + 7, idle=frozenset({NER}))
    assert after(asleep, 60).mean == pytest.approx(0, abs=0.5)


def test_work_that_ended_now_and_began_in_a_closed_minute_counts_there() -> None:
    forecaster = fed([1.0] * 5)
    forecaster.add(NER, START + 240, START + 300, 540)
    row = forecaster.history.minutes[forecaster._row[NER]]
    assert row[int(START // 60 + 4) % 120] == pytest.approx(10)
    assert row[int(START // 60 + 3) % 120] == pytest.approx(1)


def test_models_do_not_touch_each_other_and_rooms_are_used_again() -> None:
    alone = fed([5.0, 7.0, 9.0])
    both = Forecaster(1)
    for minute in range(3):
        begin = START + 60 * minute
        both.add(NER, begin, begin + 60, 60 * (5 + 2 * minute))
        both.add(CODE, begin, begin + 60, 6000)
        both.add(OTHER, begin, begin + 60, 60)
        both.advance(begin + 67)
    assert after(both, 3) == after(alone, 3)
    both.forget(CODE)
    assert after(both, 3, key=CODE) == NONE
    again = ModelKey("finance", "new")
    both.add(again, START + 180, START + 240, 60)
    both.advance(START + 247)
    assert both.forecast(again, START + 247, 60).mean == pytest.approx(1, rel=0.01)


def test_a_restart_goes_on_where_it_was() -> None:
    chance = random.Random(4)
    rates = [chance.uniform(80, 120) for _ in range(300)]
    before = fed(rates)
    state = json.loads(json.dumps(before.to_state(NER)))
    assert len(json.dumps(state)) < 3000
    after_restart = Forecaster()
    after_restart.take_state(NER, state)
    fed(rates[:1], forecaster=after_restart, start=START + 60 * 300)
    here, there = after(before, 301), after(after_restart, 301)
    assert there.p90 == pytest.approx(here.p90, rel=0.25)
    assert there.score is not None
    kept = after_restart.history.quarters[after_restart._row[NER]]
    assert np.sum(~np.isnan(kept)) >= 20 - 4
    assert np.nanmax(np.abs(kept - 100)) < 15


@pytest.mark.parametrize(
    "state",
    [{}, {"past": 3}, {"past": "1 2 x"}, {"past": "9 nan "}, {"1": "x"}, {"past": "", "1": "1e9 0000"}, {"past": "-5 1 00"}],
    ids=str,
)
def test_a_state_that_cannot_be_read_is_no_state(state: dict[str, object]) -> None:
    forecaster = Forecaster()
    forecaster.take_state(NER, state)
    fed([10.0] * 3, forecaster=forecaster)
    assert after(forecaster, 3).p90 <= 25


def test_a_long_pause_is_over_at_once() -> None:
    forecaster = fed([10.0] * 10)
    fed([20.0] * 2, forecaster=forecaster, start=START + 86_400 * 40)
    found = forecaster.forecast(NER, START + 86_400 * 40 + 127, 60)
    assert 15 <= found.mean <= 25
    assert int(np.isnan(forecaster.history.quarters).sum()) == QUARTERS * forecaster.history.rows


def test_nonsense_is_not_taken_in() -> None:
    forecaster = fed([10.0] * 5)
    before = after(forecaster, 5)
    for start, end, work in (
        (float("nan"), START, 1.0),
        (START, START, 5.0),
        (START, START + 5, -1.0),
        (START, START + 5, float("inf")),
    ):
        forecaster.add(NER, start, end, work)
    assert after(forecaster, 5) == before


def test_horizons_between_the_rungs_lie_between_them() -> None:
    chance = random.Random(5)
    forecaster = fed([chance.uniform(5, 50) for _ in range(240)])
    for low, high in pairwise(HORIZON_MINUTES):
        ends = sorted((after(forecaster, 240, low * 60).p90, after(forecaster, 240, high * 60).p90))
        assert ends[0] - 1e-9 <= after(forecaster, 240, (low + high) * 30).p90 <= ends[1] + 1e-9
