"""Calendar windows over clock changes, and what was used in them when the clock is stepped."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.energy.windows import UsedState, WindowKind, WindowUse, window_at, zone_of

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",  # half an hour
    "Asia/Kathmandu",  # three quarters
    "Australia/Lord_Howe",  # changes its clock by half an hour
    "America/St_Johns",
    "Pacific/Apia",  # left out a day
    "America/Havana",  # changes at midnight
    "Asia/Beirut",
    "America/Santiago",
)


def at(text: str, zone: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("kind", "zone", "inside", "start", "hours"),
    [
        ("Day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", 23),
        ("Day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:00", 25),
        ("Day", "Europe/Berlin", "2026-10-26T00:00", "2026-10-26T00:00", 24),
        ("Day", "Australia/Lord_Howe", "2026-04-05T12:00", "2026-04-05T00:00", 24.5),
        ("Day", "Australia/Lord_Howe", "2026-10-04T12:00", "2026-10-04T00:00", 23.5),
        ("Day", "Asia/Kolkata", "2026-07-01T00:10", "2026-07-01T00:00", 24),
        ("Day", "America/Santiago", "2026-09-06T12:00", "2026-09-06T01:00", 23),  # midnight is left out
        ("Day", "Pacific/Apia", "2011-12-31T12:00", "2011-12-31T00:00", 24),
        ("Hour", "Asia/Kathmandu", "2026-07-01T10:59", "2026-07-01T10:00", 1),
        ("Hour", "Europe/Berlin", "2026-10-25T02:30", "2026-10-25T02:00", 1),
        ("Week", "Europe/Berlin", "2026-10-25T23:00", "2026-10-19T00:00", 169),
        ("Week", "UTC", "2026-11-23T00:00", "2026-11-23T00:00", 168),
        ("Month", "America/New_York", "2026-03-31T23:59", "2026-03-01T00:00", 743),
        ("Month", "UTC", "2028-02-29T12:00", "2028-02-01T00:00", 696),
        ("Month", "UTC", "2026-12-31T12:00", "2026-12-01T00:00", 744),
    ],
)
def test_a_window_is_what_the_calendar_there_says(kind: str, zone: str, inside: str, start: str, hours: float) -> None:
    window = window_at(WindowKind(kind), zone_of(zone), at(inside, zone))
    assert window.start == at(start, zone)
    assert window.seconds == hours * 3600


def test_the_hour_that_comes_twice_is_two_windows() -> None:
    zone = zone_of("Europe/Berlin")
    first, second = (window_at("Hour", zone, at("2026-10-25T02:30", "Europe/Berlin", fold)) for fold in (0, 1))
    assert first.end == second.start


@given(
    st.sampled_from(ZONES),
    st.sampled_from(list(WindowKind)),
    st.floats(at("2009-01-01T00:00", "UTC"), at("2030-01-01T00:00", "UTC")),
)
def test_each_moment_is_in_one_window_and_windows_follow_each_other(name: str, kind: WindowKind, moment: float) -> None:
    zone = zone_of(name)
    window = window_at(kind, zone, moment)
    assert window.start <= moment < window.end
    assert 0 <= window.fraction(moment) < 1
    assert window_at(kind, zone, window.start) == window
    assert window_at(kind, zone, window.end).start == window.end
    assert window_at(kind, zone, window.start - 1).end == window.start


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "Europe"])
def test_a_zone_that_is_none_is_said_so(name: str) -> None:
    with pytest.raises(ValueError, match="is no time zone; write an IANA name"):
        zone_of(name)


MIDNIGHT = at("2026-11-25T00:00", "UTC")


def day_use() -> WindowUse:
    return WindowUse(WindowKind.DAY, zone_of("UTC"))


def used(use: WindowUse, moment: float) -> float:
    return use.used(window_at(use.kind, use.zone, moment))[0]


def test_an_interval_over_midnight_is_parted_by_time() -> None:
    use = day_use()
    use.add(100.0, 50.0, 100.0, MIDNIGHT + 25)
    assert used(use, MIDNIGHT - 1) == pytest.approx(75)
    assert use.used(window_at(WindowKind.DAY, use.zone, MIDNIGHT)) == (pytest.approx(25), pytest.approx(12.5))
    use.add(8.0, 0.0, 60.0, MIDNIGHT)
    assert used(use, MIDNIGHT - 1) == pytest.approx(83)


def test_a_clock_set_back_over_midnight_finds_its_day_again_and_counts_nothing_twice() -> None:
    use = day_use()
    use.add(100.0, 0.0, 5.0, MIDNIGHT - 60)
    use.add(10.0, 0.0, 5.0, MIDNIGHT + 60)
    use.add(1.0, 0.0, 5.0, MIDNIGHT - 60)
    use.add(1.0, 0.0, 5.0, 0.0)
    use.add(10.0, 0.0, 5.0, MIDNIGHT + 60)
    assert (used(use, MIDNIGHT - 1), used(use, MIDNIGHT)) == (101.0, 20.0)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e5)), max_size=20), st.sets(st.integers(0, 19)))
def test_restarts_change_no_windows_use(steps: list[tuple[float, float]], restarts: set[int]) -> None:
    whole, cut, now = day_use(), day_use(), MIDNIGHT
    for step, (joules, seconds) in enumerate(steps):
        now += seconds
        if step in restarts:
            cut = WindowUse.from_state(UsedState.model_validate_json(cut.to_state().model_dump_json()), cut.kind, cut.zone)
        for use in (whole, cut):
            use.add(joules, 0.0, seconds, now)
    assert cut.to_state() == whole.to_state()
