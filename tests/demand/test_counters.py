"""From counters to windows: nothing lost, nothing invented, nothing negative."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.demand import BatchCounters, Counters, Window, difference


def counters(at: float, requests: int = 0, busy: float = 0.0, **rest: object) -> Counters:
    batches = (BatchCounters(1, requests, busy),) if requests else ()
    said: dict[str, object] = {"succeeded": requests, "executions": requests, "rows": requests, "batches": batches} | rest
    return Counters(at, **said)  # type: ignore[arg-type]


def window(old: Counters | None, new: Counters | None, instances: int = 1) -> Window:
    found = difference(old, new, instances)
    assert found is not None
    return found


def test_a_window_says_what_happened_in_it() -> None:
    old = Counters(10.0, 100, 1, 50, 100, 20.0, 30.0, (BatchCounters(2, 50, 5.0),), pending=3)
    new = Counters(15.0, 140, 3, 60, 142, 24.0, 38.0, (BatchCounters(2, 55, 5.5), BatchCounters(7, 5, 1.5)), pending=5)
    seen = window(old, new)
    assert (seen.seconds, seen.succeeded, seen.failures, seen.executions, seen.rows) == (5.0, 40, 2, 10, 42)
    assert seen.busy_seconds == pytest.approx(2.0)
    assert seen.busy_share() == pytest.approx(0.4)
    assert seen.batches == (BatchCounters(2, 5, 0.5), BatchCounters(7, 5, 1.5))
    assert seen.achieved_batch == pytest.approx(4.2)
    assert (seen.queue_seconds, seen.request_seconds) == (pytest.approx(0.1), pytest.approx(0.2))
    assert seen.arrivals == 44  # those answered, and two more that wait
    assert seen.complete


NAN = math.nan
UNKNOWABLE = {
    "seen for the first time": (None, counters(5)),
    "gone": (counters(5), None),
    "the clock stood still": (counters(5, 1), counters(5, 2)),
    "the clock stepped back": (counters(5, 1), counters(4, 2)),
    "negative": (counters(5), replace(counters(6), failed=-1)),
    "not a number": (counters(5), replace(counters(6), queue_seconds=NAN)),
    "endless": (counters(5), replace(counters(6), request_seconds=math.inf)),
    "negative busy time": (counters(5), counters(6, 1, -0.5)),
    "absurd": (counters(5), replace(counters(6), rows=10**19)),
    "fell, but not to 0": (counters(5, 1000, 900.0), counters(6, 999, 899.0)),
}


@pytest.mark.parametrize(("old", "new"), UNKNOWABLE.values(), ids=UNKNOWABLE)
def test_what_cannot_be_known_is_no_window(old: Counters | None, new: Counters | None) -> None:
    assert difference(old, new) is None


def test_a_hot_reload_counts_from_zero() -> None:
    seen = window(counters(5, 1000, 90.0), counters(10, 30, 3.0))
    assert (seen.succeeded, seen.busy_seconds, seen.complete) == (30, 3.0, False)


def test_a_reload_that_already_overtook_the_old_counters_shows_by_its_epoch() -> None:
    seen = window(counters(5, 10, 1.0, epoch="pod-1"), counters(10, 30, 3.0, epoch="pod-2"))
    assert seen.succeeded == 30


def test_a_gap_is_said_and_its_mean_is_right() -> None:
    seen = window(counters(0, 0), counters(600, 1200, 60.0))
    assert (seen.arrivals / seen.seconds, seen.busy_share(), seen.complete) == (2.0, pytest.approx(0.1), False)


@pytest.mark.parametrize(
    ("executions", "busy", "instances", "spread", "share"),
    [
        (10, 2.0, 1, 5.0, 0.4),
        (1, 8.0, 1, 8.0, 1.0),  # began 3 s before the window
        (3, 24.0, 4, 8.0, 0.75),  # three of four instances, 8 s each
        (1, 8.0, 4, 8.0, 0.25),  # fits into the window, yet took longer than it
        (20, 30.0, 2, 15.0, 1.0),  # more than two instances can do in 5 s
    ],
)
def test_busy_time_from_before_the_window_is_spread_back(
    executions: int, busy: float, instances: int, spread: float, share: float
) -> None:
    seen = window(counters(100), counters(105, executions, busy), instances)
    assert seen.spread_seconds == pytest.approx(spread)
    assert seen.busy_share(instances) == pytest.approx(share)
    assert seen.busy_seconds == pytest.approx(busy)


def test_busy_time_that_no_execution_can_have_taken_is_cut_and_said() -> None:
    seen = window(counters(0), counters(5, 3, 1e9))
    assert seen.busy_seconds <= 3600 * 1.05
    assert not seen.complete


@st.composite
def lives(draw: st.DrawFn) -> list[list[tuple[int, int, float]]]:
    """Loads of a model after one another, each a list of (requests, failures, share of the 5 s kept busy) by window."""
    step = st.tuples(st.integers(0, 50), st.integers(0, 3), st.floats(0, 1))
    return draw(st.lists(st.lists(step, min_size=1, max_size=6), min_size=1, max_size=4))


@given(lives())
def test_windows_add_up_to_what_the_counters_ended_at_across_resets(life: list[list[tuple[int, int, float]]]) -> None:
    at, last, windows, requests, failures, busy = 0.0, counters(0.0, epoch="0"), [], 0, 0, 0.0
    for number, load in enumerate(life):
        now = Counters(at, epoch=str(number))
        for more, failed, share in load:
            at += 5
            count, seconds = now.executions + more, now.busy_seconds + (5 * share if more else 0)
            now = counters(at, now.succeeded + more, failed=now.failed + failed, epoch=str(number))
            now = replace(now, batches=(BatchCounters(1, count, seconds),))
            windows.append(window(last, now))
            last = now
        requests, failures, busy = requests + now.succeeded, failures + now.failed, busy + now.busy_seconds
    assert sum(each.succeeded for each in windows) == requests
    assert sum(each.failures for each in windows) == failures
    assert math.isclose(math.fsum(each.busy_seconds for each in windows), busy, abs_tol=1e-9)


ANYTHING = st.integers(-5, 10**6) | st.just(10**30)
FIGURE = st.floats() | st.integers(-5, 10**6).map(float)
BATCHES = st.lists(st.builds(BatchCounters, ANYTHING, ANYTHING, FIGURE), max_size=3).map(tuple)
ANY_COUNTERS = st.builds(
    Counters, FIGURE, ANYTHING, ANYTHING, ANYTHING, ANYTHING, FIGURE, FIGURE, BATCHES, st.none() | ANYTHING, st.sampled_from("ab")
)


@given(ANY_COUNTERS, ANY_COUNTERS, st.integers(1, 8))
def test_nothing_is_ever_negative_or_endless(old: Counters, new: Counters, instances: int) -> None:
    seen = difference(old, new, instances)
    if seen is None:
        return
    figures = [seen.succeeded, seen.failures, seen.executions, seen.rows, seen.arrivals, seen.busy_seconds, seen.spread_seconds]
    figures += [seen.queue_seconds or 0, seen.request_seconds or 0, *(b.busy_seconds for b in seen.batches)]
    assert all(0 <= figure < math.inf for figure in figures)
    assert seen.seconds > 0
    assert 0 <= seen.busy_share(instances) <= 1
