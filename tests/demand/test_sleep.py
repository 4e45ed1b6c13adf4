"""Asleep until somebody asks; awake before the hour at which somebody always does."""

import numpy as np
import pytest

from ergon.demand import Book, Limits, Tenant
from ergon.demand.history import PER_QUARTER, QUARTERS, History
from ergon.demand.recurring import recurring_work
from ergon.demand.scaling import Direction, Scaling, Signals
from tests.demand.things import NER, Server, server, variant

QUARTER = 900.0
MAY_SLEEP = Limits(min_replicas=0, can_wake=True, idle_after_seconds=600)


def test_what_slept_before_this_process_began_goes_on_sleeping() -> None:
    scaling = Scaling(1000.0)
    scaling.rest()
    decision = scaling.decide(1000.0, 0.0, Signals(), MAY_SLEEP)
    assert decision.asleep
    assert decision.least_replicas == 0
    assert decision.reason == "asleep: the gateway wakes it"


def test_what_is_on_its_way_does_not_fall_asleep_while_somebody_asks() -> None:
    book = Book()
    book.rest(NER, 0.0)
    assert book.demand(0.0, {NER: MAY_SLEEP})[NER].asleep
    book.wake(NER, 10.0)
    assert NER in book.urgent(10.0, {NER: MAY_SLEEP})
    for now in range(60, 1800, 60):
        book.asked(NER, float(now))
        assert not book.demand(float(now), {NER: MAY_SLEEP})[NER].asleep
    assert book.demand(1800.0 + 600.0, {NER: MAY_SLEEP})[NER].asleep


def asked_at(*quarters: int, closed: int, work: float = 3.0) -> History:
    """A history of one model, known up to the quarter before `closed`, with work in some of its quarters of an hour."""
    history = History(1)
    history.closed_minute = closed * PER_QUARTER - 1
    history.quarters[:] = 0.0
    for quarter in quarters:
        history.quarters[0, quarter % QUARTERS] = work / QUARTER
    return history


TODAY = 100 * 96
HALF_PAST_SEVEN = 30
RECURRING = {
    "two days running": ((-1, -2), 3.0),
    "once": ((-1,), 0.0),
    "long ago": ((-3, -4), 0.0),
    "the same day of two weeks": ((-7, -14), 3.0),
    "a week ago and yesterday": ((-1, -7), 0.0),
    "never": ((), 0.0),
}


@pytest.mark.parametrize(("days", "work"), RECURRING.values(), ids=RECURRING)
def test_what_came_on_two_earlier_days_is_expected(days: tuple[int, ...], work: float) -> None:
    history = asked_at(*(TODAY + day * 96 + HALF_PAST_SEVEN for day in days), closed=TODAY + HALF_PAST_SEVEN)
    at = (TODAY + HALF_PAST_SEVEN) * QUARTER
    assert recurring_work(history, 0, at, 60.0) == pytest.approx(work)
    assert recurring_work(history, 0, at - 600, 60.0) == 0  # not yet
    assert recurring_work(history, 0, at - 600, 900.0) == pytest.approx(work)  # it takes a quarter of an hour to start
    assert recurring_work(history, 0, at + QUARTER, 60.0) == 0  # over


def test_what_is_unknown_or_less_than_a_request_is_not_expected() -> None:
    history = asked_at(TODAY - 96, TODAY - 192, closed=TODAY)
    history.quarters[0, (TODAY - 96) % QUARTERS] = np.nan
    assert recurring_work(history, 0, TODAY * QUARTER, 60.0) == 0
    assert recurring_work(asked_at(TODAY - 96, TODAY - 192, closed=TODAY, work=0.2), 0, TODAY * QUARTER, 60.0) == 0


def test_a_daily_first_request_is_awaited() -> None:
    book, view = Book(models=1), server({NER: Tenant(variant())})
    replica, yesterday = Server(), (TODAY - 96 + HALF_PAST_SEVEN) * QUARTER
    for now in (yesterday, yesterday + 5):
        book.observe(view, {NER: replica.read(now)})
        replica.execute(3, 1, 0.01)
    book.server_gone(view.key)
    book.forecaster.history.quarters[0] = asked_at(*(TODAY + HALF_PAST_SEVEN - 96 * d for d in (1, 2)), closed=TODAY).quarters[0]
    first = (TODAY + HALF_PAST_SEVEN) * QUARTER
    cold_start = {NER: 120.0}
    assert book.demand(first - 3600, {NER: MAY_SLEEP}, cold_start)[NER].asleep
    assert book.demand(first - 180, {NER: MAY_SLEEP}, cold_start)[NER].asleep
    woken = book.demand(first - 120, {NER: MAY_SLEEP}, cold_start)[NER]
    assert (woken.asleep, woken.least_replicas, woken.direction) == (False, 1, Direction.UP)
    assert woken.reason == "awake: at this time it was asked for on earlier days too"
    assert book.demand(first + 60, {NER: MAY_SLEEP}, cold_start)[NER].direction is Direction.STEADY
    # Nobody came today: it sleeps again when the quarter is over.
    assert book.demand(first + QUARTER + 60, {NER: MAY_SLEEP}, cold_start)[NER].asleep
