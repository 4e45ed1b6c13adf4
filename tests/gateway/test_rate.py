"""How much may escalate."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.gateway.rate import ENOUGH, WINDOW_SECONDS, EscalationRate


def ask(rate: EscalationRate, share: float, urgency: float | None, now: float) -> bool:
    """One request; urgency None: its answer is good."""
    rate.request(now)
    if urgency is None:
        rate.good()
        return False
    return rate.may(share, urgency, now)


@given(st.floats(0, 1), st.lists(st.tuples(st.floats(0, 5), st.none() | st.floats(0, 1) | st.just(math.inf)), max_size=300))
def test_of_the_last_minute_never_more_than_the_share_escalates(share: float, requests: list[tuple[float, float | None]]) -> None:
    rate, now, seen = EscalationRate(), 0.0, []
    for pause, urgency in requests:
        now += pause
        granted = ask(rate, share, urgency, now)
        seen.append((int(now), granted))
        recent = [grant for at, grant in seen if at > int(now) - WINDOW_SECONDS]
        assert not granted or sum(recent) <= math.ceil(share * len(recent))


def test_a_share_of_nothing_is_nothing_and_of_all_is_all() -> None:
    none, everything = EscalationRate(), EscalationRate()
    assert not any(ask(none, 0.0, 1.0, second / 10) for second in range(1000))
    assert all(ask(everything, 1.0, 1.0, second / 10) for second in range(1000))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_a_share_is_used_where_all_would_escalate(share: float) -> None:
    rate, chance = EscalationRate(), random.Random(1)
    granted = sum(ask(rate, share, chance.random(), number / 20) for number in range(10_000))
    assert granted / 10_000 == pytest.approx(share, rel=0.2)


def test_a_lowered_share_goes_to_the_answers_that_are_worth_least() -> None:
    rate, chance = EscalationRate(), random.Random(1)
    chosen, passed = [], []
    for number in range(5_000):
        urgency = chance.random()
        (chosen if ask(rate, 0.2, urgency, number / 20) else passed).append(urgency)
    assert sum(chosen[ENOUGH:]) / len(chosen[ENOUGH:]) > 0.8
    assert sum(passed) / len(passed) < 0.5


def test_good_answers_leave_their_share_to_others() -> None:
    rate = EscalationRate()
    granted = [ask(rate, 0.25, 1.0 if number % 4 == 0 else None, number / 20) for number in range(2_000)]
    assert sum(granted) == 500


def test_what_was_escalated_a_minute_ago_no_longer_counts() -> None:
    rate = EscalationRate()
    assert ask(rate, 0.5, 1.0, 0.0)
    assert not ask(rate, 0.4, 1.0, 1.0)
    assert ask(rate, 0.4, 1.0, 1.0 + WINDOW_SECONDS)
