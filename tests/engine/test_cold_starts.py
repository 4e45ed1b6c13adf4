"""What a start says of the next one: how long it took, but not for ever, and not where something failed."""

from ergon.engine.cold_starts import LONGEST_SECONDS, ColdStarts
from ergon.fleet.types import ModelKey

KEY = ModelKey("team", "m")


def test_a_start_is_told_with_the_wait_for_it() -> None:
    told: list[float] = []
    starts = ColdStarts(lambda _, seconds: told.append(seconds))
    starts.decided(KEY, 100.0, cold=True, failed=False)
    starts.decided(KEY, 110.0, cold=True, failed=False)
    assert starts.waited(KEY, 130.0) == 30.0
    starts.started(KEY, starts.waited(KEY, 130.0) + 2.0)
    assert told == [32.0]
    starts.decided(KEY, 133.0, cold=False, failed=False)
    assert starts.waited(KEY, 200.0) == 0.0


def test_hours_without_a_server_are_not_foreseen_again() -> None:
    told: list[float] = []
    ColdStarts(lambda _, seconds: told.append(seconds)).started(KEY, 5 * 3600.0)
    assert told == [LONGEST_SECONDS]


def test_a_start_on_which_something_failed_says_nothing_and_the_next_one_does() -> None:
    told: list[float] = []
    starts = ColdStarts(lambda _, seconds: told.append(seconds))
    starts.decided(KEY, 0.0, cold=True, failed=True)
    starts.decided(KEY, 300.0, cold=True, failed=False)  # it is tried again, perhaps elsewhere
    starts.started(KEY, starts.waited(KEY, 310.0))
    assert told == []
    starts.decided(KEY, 311.0, cold=False, failed=False)
    starts.decided(KEY, 400.0, cold=True, failed=False)
    starts.started(KEY, starts.waited(KEY, 404.0))
    assert told == [4.0]
