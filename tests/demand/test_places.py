"""Places of models that generate: for the peak and the p90, and for no less than a few minutes ago."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.demand.peaks import SPAN_SECONDS, Peaks
from ergon.demand.places import Held, Places
from ergon.fleet.types import ModelKey

KEY = ModelKey("n", "m")


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 1e6)), min_size=1, max_size=40), st.floats(1, 600))
def test_the_largest_of_the_last_while_is_held(steps: list[tuple[float, float]], seconds: float) -> None:
    held, now, told = Held(), 0.0, list[tuple[float, float]]()
    for passed, value in steps:
        now += passed
        told.append((now, value))
        assert held.add(now, value, seconds) == max(value for at, value in told if at > now - seconds)
    held.clear()
    assert held.largest == 0


def test_places_are_for_the_peak_or_the_p90_and_go_after_a_while() -> None:
    peaks = Peaks()
    places = Places(peaks, 300.0)
    assert not places.find(KEY, 95, 50.0, 0.0)
    assert (places.of(KEY), places.known()) == (0.0, {})
    for span in range(200):
        peaks.add(KEY, span * SPAN_SECONDS, (span + 1) * SPAN_SECONDS, 100.0 * SPAN_SECONDS)
    peaks.advance(200 * SPAN_SECONDS)
    asked = {0.0: 10.0, 60.0: 400.0, 120.0: 10.0, 350.0: 10.0, 361.0: 10.0}
    found = {}
    for at, p90 in asked.items():
        assert places.find(KEY, 95, p90, 4000.0 + at)
        found[at] = places.of(KEY)
    assert [found[at] for at in (60.0, 120.0, 350.0)] == [400.0] * 3
    assert found[0.0] == found[361.0] == pytest.approx(100.0, rel=0.13)
    assert places.known() == {KEY: found[361.0]}
    places.forget(KEY)
    assert places.known() == {}


def test_a_burst_is_learnt_against_the_level_that_places_were_for() -> None:
    peaks = Peaks()
    rates = ([10.0] * 89 + [900.0]) * 40
    for span, rate in enumerate(rates):
        peaks.add(KEY, span * SPAN_SECONDS, (span + 1) * SPAN_SECONDS, rate * SPAN_SECONDS)
    quiet = len(rates) * SPAN_SECONDS
    for span in range(60):  # the level has gone back to what it is between bursts
        peaks.add(KEY, quiet + span * SPAN_SECONDS, quiet + (span + 1) * SPAN_SECONDS, 10.0 * SPAN_SECONDS)
    peaks.advance(quiet + 60 * SPAN_SECONDS)
    found = peaks.peak(KEY, 95)
    assert found is not None
    assert found >= 800.0
