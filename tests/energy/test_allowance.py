"""Allowances over a window: the forecast's shape, never protected demand, neither over the limit nor far below it."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ergon.energy.allowance import Allowance, AllowanceState, Allowed
from ergon.energy.forecast import BINS, DayShape, Forecast, ShapeState, level_forecast
from tests.energy.days import simulate

DAY = 86_400.0


def allowed(limit: float, used: float, left: float, forecast: Forecast, needed: float, protected: float) -> Allowed:
    return Allowance().allowed(limit, used, 1.0, DAY, left, forecast, needed, protected)


def test_nothing_gives_way_where_the_forecast_fits() -> None:
    now = allowed(1.05 * 100 * DAY, 0.0, DAY, level_forecast(100, 60), 100, 60)
    assert (now.watts, now.feasible, now.crossed_in_seconds) == (None, True, None)
    assert now.needed == pytest.approx(100 * DAY)


def test_what_may_give_way_is_cut_by_one_share_at_every_hour() -> None:
    """The valley and the peak of a day give the same share of what they may give: no flat line."""
    shape = Forecast(DAY / 2, (50.0, 150.0), (30.0, 90.0))
    limit = 70 * DAY
    night = allowed(limit, 0.0, DAY, shape, 50, 30).watts
    noon = allowed(limit, 0.0, DAY, shape, 150, 90).watts
    assert night is not None
    assert noon is not None
    assert 30 < night < 50
    assert (night - 30) / 20 == pytest.approx((noon - 90) / 60)


def test_protected_demand_is_allowed_even_where_nothing_is_left() -> None:
    now = allowed(10 * DAY, 11 * DAY, DAY / 2, level_forecast(100, 60), 100, 60)
    assert (now.watts, now.feasible, now.crossed_in_seconds) == (60, False, 0.0)


def test_protected_demand_above_the_limit_is_told_at_the_windows_begin() -> None:
    now = allowed(50 * DAY, 0.0, DAY, level_forecast(100, 60), 100, 60)
    assert not now.feasible
    assert now.crossed_in_seconds == pytest.approx(DAY * 50 / 60)


def test_feasible_comes_back_only_when_there_is_room() -> None:
    allowance = Allowance()

    def judged(protected: float) -> bool:
        return allowance.allowed(60 * DAY, 0.0, 1.0, DAY, DAY, level_forecast(100, protected), 100, protected).feasible

    assert [judged(watts) for watts in (59, 61, 59, 58.1)] == [True, False, False, True]
    restored = Allowance.from_state(AllowanceState.model_validate_json(allowance.to_state().model_dump_json()))
    assert restored.to_state() == allowance.to_state()


def test_a_forecast_that_is_wrong_all_day_is_corrected_by_what_is_seen() -> None:
    allowance, forecast = Allowance(), level_forecast(100, 60)
    for _ in range(12):
        allowance.observe(3600.0, 125.0, forecast)
    assert allowance.allowed(1e12, 0.0, 1.0, DAY, DAY, forecast, 125, 75).needed == pytest.approx(125 * DAY, rel=0.01)
    allowance = Allowance()
    allowance.observe(3600.0, 300.0, forecast)
    assert allowance.allowed(1e12, 0.0, 1.0, DAY, DAY, forecast, 300, 75).needed < 115 * DAY, "one hour is no day"


def test_thirty_days_with_an_error_of_a_fifth_and_two_hours_that_nobody_foresaw() -> None:
    """Where protected demand needs 60 to 75 % of the limit, all demand 102 to 135 %. Measured over five seeds (150
    windows): 2 over by more than 1 % (2.7 %: three times the protected demand late in the evening), 2 below 96 %, 6 in which
    the last tenth shed more than twice its share, 1.05 times what had to be shed.
    """
    days = [day for seed in range(3) for day in simulate(seed)]
    assert max(day.protected_shed for day in days) == pytest.approx(0, abs=1e-12)
    quiet = [day for day in days if day.spike_hour is None]
    assert max(day.used for day in quiet) <= 1.01
    assert max(day.used for day in days) <= 1.03
    shed = [day for day in days if day.shed > 1e-3]
    assert sum(day.used < 0.96 for day in shed) <= 0.03 * len(shed)
    assert sum(day.last_tenth > 0.2 for day in shed) <= 0.06 * len(shed)
    assert sum(day.shed for day in days) <= 1.25 * sum(day.clairvoyant_shed for day in days)


def test_with_an_error_of_a_tenth_every_window_is_well_used() -> None:
    days = [day for seed in range(2) for day in simulate(seed, error=0.1, spikes=0)]
    shed = [day for day in days if day.shed > 1e-3]
    assert max(day.used for day in days) <= 1.01
    assert min(day.used for day in shed) >= 0.96
    assert sum(day.last_tenth > 0.2 for day in shed) <= 0.03 * len(shed)


def test_protected_demand_of_more_than_the_limit_is_served_and_told_hours_before() -> None:
    days = [day for seed in range(2) for day in simulate(seed, days=10, protected=(1.1, 1.1), needed=(1.3, 1.5))]
    assert max(day.protected_shed for day in days) == pytest.approx(0, abs=1e-12)
    told = [day.infeasible_hours_before for day in days]
    assert min(hours for hours in told if hours is not None) >= 2
    assert None not in told


@example([8.99e307] * 3, 0.0, 3e6)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=5), st.floats(0, 1e6), st.floats(1e-3, 3e6))
def test_whatever_a_forecast_says_the_allowance_is_a_figure_and_serves_what_is_protected(
    watts: list[float], protected: float, left: float
) -> None:
    forecast = Forecast(3600.0, watts, watts[::-1])
    allowance = Allowance()
    allowance.observe(5.0, protected + 1, Forecast(3600.0, [w for w in watts if math.isfinite(w)], ()))
    now = allowance.allowed(1e9, 1e8, 1.0, 3e6, left, forecast, protected + 10, protected)
    assert now.watts is None or protected <= now.watts <= protected + 10
    assert now.needed >= now.protected >= 1e8


def test_a_day_is_learned_and_kept_and_two_points_are_no_day() -> None:
    shape = DayShape()
    shape.observe(500, 100, 900, 0)
    shape.observe(700, 100, 900, 900)
    assert shape.forecast(600, 90, 1800).needed_watts == (600,)
    for day in range(3):
        for quarter in range(BINS):
            watts = 100.0 + quarter + 10 * day
            for _ in range(3):
                shape.observe(watts, 50, 300, day * DAY + quarter * 900 + 10)
    learned = shape.forecast(0, 0, 4 * DAY + 12 * 3600)
    assert learned.needed_watts[0] == pytest.approx(100 + 48 + 10, abs=1)
    assert learned.needed_watts[BINS // 2 + 2] == pytest.approx(100 + 2 + 10, abs=1)
    restored = DayShape.from_state(ShapeState.model_validate_json(shape.to_state().model_dump_json()))
    assert np.allclose(restored.forecast(0, 0, 0).needed_watts, shape.forecast(0, 0, 0).needed_watts, rtol=1e-3)
    assert DayShape.from_state(ShapeState(bins=((1, 1, 1),))).forecast(5, 4, 0).needed_watts == (5,)


@pytest.mark.parametrize(
    ("known", "seconds", "joules"),
    [((100.0,), 7200.0, 720_000), ((100.0, 200.0), 5400.0, 720_000), ((100.0, 200.0), 10_800.0, 1_620_000), ((), 3600.0, 0)],
)
def test_a_forecast_covers_the_window_whatever_its_length(known: tuple[float, ...], seconds: float, joules: float) -> None:
    needed, _, lengths = Forecast(3600.0, known, ()).over(seconds)
    assert float(needed @ lengths) == pytest.approx(joules)
