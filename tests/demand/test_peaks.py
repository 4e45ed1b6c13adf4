"""Peaks: what most of a model's work comes at, over the span of a generation."""

import numpy as np
import pytest

from ergon.demand.peaks import LEAST_SECONDS, SPAN_SECONDS, Peaks, kept_share
from ergon.fleet.types import ModelKey

KEY = ModelKey("n", "m")


def told(rates: list[float], look_seconds: float = 10.0, start: float = 0.0, into: Peaks | None = None) -> Peaks:
    """One rate a span, told in looks."""
    peaks = into or Peaks()
    looks = round(SPAN_SECONDS / look_seconds)
    for n, rate in enumerate(rate for rate in rates for _ in range(looks)):
        at = start + n * look_seconds
        peaks.add(KEY, at, at + look_seconds, rate * look_seconds)
    peaks.advance(start + len(rates) * SPAN_SECONDS)
    return peaks


def test_a_steady_stream_peaks_at_its_rate() -> None:
    assert told([100.0] * 200).peak(KEY, 95) == pytest.approx(100.0, rel=0.13)


def test_a_burst_in_twenty_that_brings_most_of_the_work_is_the_peak() -> None:
    assert told(([10.0] * 19 + [1000.0]) * 200).peak(KEY, 95) == pytest.approx(1000.0, rel=0.13)


def test_rare_peaks_that_bring_little_are_left_to_what_may_be_late() -> None:
    found = told(([100.0] * 199 + [200.0]) * 5).peak(KEY, 95)
    assert found == pytest.approx(100.0, rel=0.13)


def test_a_stricter_percentile_asks_for_more() -> None:
    draws = np.random.default_rng(0).gamma(0.5, 200.0, 4000).tolist()
    peaks = told(draws)
    found = [peaks.peak(KEY, percentile) or 0.0 for percentile in (50, 90, 95, 99)]
    assert found == sorted(found)
    worked = np.sort(draws)
    share = np.cumsum(worked) / worked.sum()
    exact = worked[np.searchsorted(share, kept_share(95))]
    assert found[2] == pytest.approx(exact, rel=0.15)


def test_peaks_follow_the_level_over_hours() -> None:
    peaks = told([50.0, 150.0] * 1000)
    before = peaks.peak(KEY, 95) or 0.0
    told([100.0, 300.0] * 1000, start=2000 * SPAN_SECONDS, into=peaks)
    found = peaks.peak(KEY, 95) or 0.0
    assert 1.9 * before <= found <= 3.3 * before  # while the level rises it errs on the safe side


def test_too_little_says_nothing_and_gaps_are_not_quiet() -> None:
    few = int(LEAST_SECONDS / SPAN_SECONDS) - 1
    peaks = told([100.0] * few)
    assert peaks.peak(KEY, 95) is None
    assert peaks.peak(ModelKey("n", "other"), 95) is None
    told([100.0] * few, start=1e6, into=peaks)
    assert peaks.peak(KEY, 95) == pytest.approx(100.0, rel=0.13)


@pytest.mark.parametrize("span", [(0.0, float("nan")), (10.0, 5.0), (0.0, float("inf"))])
def test_what_cannot_be_is_not_taken_in(span: tuple[float, float]) -> None:
    peaks = Peaks()
    peaks.add(KEY, *span, 5.0)
    peaks.add(KEY, 0.0, 5.0, float("nan"))
    peaks.advance(100.0)
    assert peaks.to_state([KEY]) == {}


def test_peaks_survive_a_restart_and_rubbish_does_not() -> None:
    peaks = told(([10.0] * 19 + [1000.0]) * 40)
    again = Peaks()
    again.take_state({**peaks.to_state([KEY]), "n/x": "rubbish", "y": 5, "n/z": None})
    assert again.peak(KEY, 95) == pytest.approx(peaks.peak(KEY, 95), rel=0.05)
    assert again.peak(ModelKey("n", "x"), 95) is None
    assert len(peaks.to_state([KEY])[str(KEY)]) < 450


def test_a_forgotten_model_is_unknown() -> None:
    peaks = told([100.0] * 200)
    peaks.forget(KEY)
    assert peaks.peak(KEY, 95) is None
