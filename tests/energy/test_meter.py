"""Meters that start again, wrap, vanish, go backwards, jump, repeat themselves: each joule once, a gap assumed and said."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.energy.meter import LATE_SECONDS, Believed, Doubt, Meter, MeterState
from ergon.energy.meters import DeviceMeters, MetersState, Reading

L4 = Believed(expected_watts=40.0, nameplate_watts=72.0)
NAN = float("nan")


def follow(
    values: Sequence[float | None], believed: Believed = L4, seconds: float = 5.0
) -> tuple[list[float], float, set[Doubt]]:
    """Joules booked at each reading, how many of all were assumed, and the doubts."""
    meter, booked, assumed, doubts = Meter(), list[float](), 0.0, set[Doubt]()
    for value in values:
        metered = meter.observe(seconds, value, None, believed)
        booked.append(metered.joules)
        assumed += metered.assumed_joules
        doubts |= {doubt for doubt, _ in metered.doubts}
    return booked, assumed, doubts


@pytest.mark.parametrize(
    ("values", "booked", "assumed", "doubts"),
    [
        ([100, 300, 450], [200, 200, 150], 200, set()),
        # Triton renews its counter each 2 s, an exporter is scraped each 30 s: what repeats itself is waited for.
        ([100, 100, 100, 700], [200, 0, 0, 600], 200, set()),
        # For one reading the series was not there.
        ([100, None, 500], [200, 0, 400], 200, set()),
        # Triton started again: its own life counts, what was before is assumed.
        ([1000, 1200, 150], [200, 200, 200], 250, set()),
        # A board that drew more than expected since it started again.
        ([1000, 1200, 260], [200, 200, 260], 200, set()),
        # Two sources of one counter: the second a little behind.
        ([1000, 1200, 1190, 1400], [200, 200, 0, 200], 200, {Doubt.BACKWARDS}),
        # Another device's counter: neither a start nor a step back.
        ([100_000, 100_200, 50_000, 50_200], [200, 200, 200, 200], 400, {Doubt.BACKWARDS}),
        # Above the nameplate: refused, and the good readings after it are believed.
        ([100, 1e9, 1e9 + 200], [200, 200, 200], 400, {Doubt.TOO_MUCH}),
        ([100, -5, NAN, 700], [200, 0, 0, 600], 200, {Doubt.ABSURD}),
    ],
)
def test_a_counter(values: list[float | None], booked: list[float], assumed: float, doubts: set[Doubt]) -> None:
    joules, guessed, found = follow(values)
    assert joules == pytest.approx(booked)
    assert guessed == pytest.approx(assumed)
    assert found == doubts


def test_a_counter_that_wraps() -> None:
    rapl = Believed(40.0, 72.0, wraps_at_joules=262_144.0)
    joules, assumed, doubts = follow([262_000.0, 262_100.0, 56.0], rapl)
    assert (joules, assumed, doubts) == (pytest.approx([200, 100, 100]), 200, set())


def test_a_silent_source_is_assumed_after_a_minute_and_counted_once_when_it_comes_back() -> None:
    booked, assumed, doubts = follow([0.0, 100.0, *[None] * 13, 3500.0, 3700.0])
    assert doubts == {Doubt.SILENT}
    assert sum(booked) == pytest.approx(200 + 3700), "the counter's joules and those before it, not the guess on top"
    assert assumed == pytest.approx(200 + 40 * 65)


def test_what_was_assumed_too_much_is_paid_back() -> None:
    quiet = [100.0 + 10 * 5 * step for step in range(14, 200)]
    booked, _, _ = follow([0.0, 100.0, *[None] * 13, *quiet], Believed(60.0, 72.0))
    assert sum(booked) == pytest.approx(300 + quiet[-1])
    assert min(booked) >= 0


def test_a_server_of_which_nothing_is_known_and_nothing_counted_draws_nothing() -> None:
    assert follow([5.0, 5.0, 5.0], Believed(0.0))[0] == [0.0, 0.0, 0.0]


def test_a_gauge_is_integrated_by_trapezoids_and_doubted_like_a_counter() -> None:
    meter = Meter()
    read = [(40.0, 200.0), (60.0, 250.0), (NAN, 0.0), (-1.0, 0.0), (900.0, 0.0), (0.0, 0.0), (60.0, 1500.0)]
    booked, doubts = [], []
    for watts, expected in read:
        metered = meter.observe(5.0, None, watts, L4)
        booked.append((metered.joules, expected))
        doubts += [doubt for doubt, _ in metered.doubts]
    assert [joules for joules, _ in booked] == pytest.approx([expected for _, expected in booked])
    assert doubts == [Doubt.ABSURD, Doubt.ABSURD, Doubt.TOO_MUCH, Doubt.ZERO]


def test_a_gauge_stands_in_for_a_counter_that_is_stuck_and_the_counter_has_the_last_word() -> None:
    meter = Meter()
    booked = [meter.observe(5.0, 0.0, 50.0, L4).joules]
    booked += [meter.observe(5.0, 0.0, 50.0, L4).joules for _ in range(int(LATE_SECONDS / 5) + 2)]
    assert sum(booked) - booked[0] == pytest.approx(50 * 70)
    booked.append(meter.observe(5.0, 4000.0, 50.0, L4).joules)
    assert sum(booked) - booked[0] == pytest.approx(4000)


def test_a_counter_that_survived_a_restart_of_ours_is_measured_over_the_gap() -> None:
    meter = Meter()
    meter.observe(5.0, 1000.0, None, L4)
    meter = Meter.from_state(MeterState.model_validate_json(meter.to_state().model_dump_json()))
    metered = meter.observe(120.0, 5000.0, None, L4)
    assert (metered.joules, metered.assumed_joules, metered.seconds) == (4000.0, 0.0, 120.0)


def test_a_clock_set_back_over_a_restart_does_not_make_a_good_counter_a_lie() -> None:
    meter = Meter()
    meter.observe(5.0, 1000.0, None, L4)
    metered = Meter.from_state(meter.to_state()).observe(0.0, 9000.0, None, L4)
    assert (metered.joules, metered.doubts) == (8000.0, ())


def test_half_a_page_is_half_a_gap() -> None:
    meters = DeviceMeters("l4-0", 2)
    two = Believed(80.0, 144.0)
    meters.observe(5.0, Reading({"a": 0.0, "b": 0.0}), two)
    meters.observe(5.0, Reading({"a": 200.0, "b": 100.0}), two)
    waiting, _ = meters.observe(5.0, Reading({"a": 400.0}), two)
    assert (waiting.seconds, waiting.joules) == (0.0, 0.0)
    whole, _ = meters.observe(5.0, Reading({"a": 600.0, "b": 300.0}), two)
    assert (whole.seconds, whole.joules, whole.assumed_joules) == (10.0, 600.0, 0.0)


def test_a_pod_that_moved_has_other_accelerators_and_nothing_is_lost_or_doubled() -> None:
    meters = DeviceMeters("l4-0")
    meters.observe(5.0, Reading({"a": 10_000.0}), L4)
    moved, _ = meters.observe(5.0, Reading({"b": 7.0}), L4)
    after, _ = meters.observe(5.0, Reading({"b": 207.0}), L4)
    assert (moved.joules, after.joules) == (200.0, 200.0)


def test_accelerators_that_no_page_ever_named_are_assumed_by_their_share() -> None:
    meters = DeviceMeters("l4-0", 4)
    metered, _ = meters.observe(5.0, Reading(watts={"a": 30.0}), Believed(160.0, 288.0))
    assert (metered.joules, metered.assumed_joules, metered.watts) == (750.0, 600.0, 150.0)


def test_a_device_tells_its_own_limit() -> None:
    meters = DeviceMeters("l4-0")
    _, findings = meters.observe(5.0, Reading(watts={"a": 60.0}, limit_watts={"a": 50.0}), L4)
    assert [finding.doubt for finding in findings] == [Doubt.TOO_MUCH]
    _, findings = meters.observe(5.0, Reading(watts={"a": 60.0}, limit_watts={"a": 72.0}), L4)
    assert findings == []


@given(
    watts=st.lists(st.floats(20, 70), min_size=3, max_size=60),
    missing=st.sets(st.integers(1, 59)),
    restarts=st.sets(st.integers(1, 59)),
)
def test_what_is_booked_is_what_a_surviving_counter_says_wherever_it_is_cut(
    watts: list[float], missing: set[int], restarts: set[int]
) -> None:
    """The same joules in all: silent readings of up to a minute, and restarts of ours between any two readings."""
    gaps = {step for step in missing if step < len(watts) - 1}
    if any(all(step + more in gaps for more in range(12)) for step in gaps):
        return
    meters, counter, total = DeviceMeters("l4-0"), 5000.0, 0.0
    for step, power in enumerate(watts):
        counter += 5 * power
        if step in restarts:
            state = MetersState.model_validate_json(meters.to_state().model_dump_json())
            meters = DeviceMeters.from_state(state, "l4-0")
        metered, _ = meters.observe(5.0, Reading() if step in gaps else Reading({"a": counter}), L4)
        assert metered.joules >= 0
        total += metered.joules
    assert total == pytest.approx(200 + counter - 5000 - 5 * watts[0])


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), max_size=40), st.floats(0, 300))
def test_whatever_a_counter_reads_nothing_is_negative_or_beyond_the_nameplate(values: list[float | None], seconds: float) -> None:
    meter, open_seconds = Meter(), 0.0
    for value in values:
        open_seconds += seconds
        metered = meter.observe(seconds, value, value, L4)
        assert 0 <= metered.assumed_joules <= metered.joules or metered.joules >= 0
        assert metered.joules <= 1.1 * 72 * (open_seconds + LATE_SECONDS + 5) + 1e-6
        open_seconds = 0.0 if metered.seconds > 0 else open_seconds
