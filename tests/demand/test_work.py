"""Demand in the planner's unit of work: requests for ordinary models, weighted tokens for generative ones."""

from dataclasses import replace

import pytest

from ergon.demand.counters import Window
from ergon.demand.work import counts_tokens, rate_at, request_work, token_work
from tests.demand.things import point

TOKENS = (replace(point(1, 100.0), counts_tokens=True), replace(point(8, 400.0), counts_tokens=True))
WINDOW = Window(100, 5, 16, 0, 4, 16, 2.5, 5, (), 0.0, 1.0, 0, 0, True)


@pytest.mark.parametrize(("batch", "rate"), [(0.5, 50), (1, 100), (4.5, 250), (8, 400), (100, 400)])
def test_rate_between_points(batch: float, rate: float) -> None:
    assert rate_at(TOKENS, batch) == pytest.approx(rate)
    assert rate_at((), batch) == 0


def test_tokens_come_from_busy_seconds_at_the_achieved_batch() -> None:
    rate = rate_at(TOKENS, 4)
    assert token_work(WINDOW, TOKENS, 1) == pytest.approx(2.5 * rate)
    assert token_work(WINDOW, TOKENS, 2) == pytest.approx(2.5 / 2 * rate)


def test_longer_answers_are_more_work_with_as_many_requests() -> None:
    assert token_work(replace(WINDOW, busy_seconds=5.0), TOKENS, 1) == pytest.approx(2 * token_work(WINDOW, TOKENS, 1))


def test_those_that_wait_are_work_too() -> None:
    assert token_work(replace(WINDOW, pending_growth=16), TOKENS, 1) == pytest.approx(2 * token_work(WINDOW, TOKENS, 1))
    assert token_work(replace(WINDOW, pending_growth=-100), TOKENS, 1) == 0
    assert request_work(replace(WINDOW, pending_growth=4), 1.0) == 20


def test_request_work_is_arrivals_by_size_within_bounds() -> None:
    assert request_work(WINDOW, 2.0) == 32
    assert request_work(WINDOW, 1000.0) == 16 * 16
    assert request_work(WINDOW, 0.0) == 4
    assert counts_tokens(TOKENS)
    assert not counts_tokens((point(),))
