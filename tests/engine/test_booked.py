"""What models did while no operator looked is known from what Triton counted on."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ergon.demand.counters import BatchCounters, Counters
from ergon.engine.booked import KEPT_REPLICAS, BookedCounters, ReplicaState
from ergon.fleet.types import ModelKey, ServerKey

SERVER, KEY = ServerKey("cpu", 0), ModelKey("team", "m")
counts = st.integers(0, 10**6)


def counters(at: float, done: int, busy: float, epoch: str = "pod/r1") -> Counters:
    """As read at `at`, after `done` requests."""
    return Counters(at, done, 0, done, done, batches=(BatchCounters(1, done, busy),) if done else (), epoch=epoch)


def restarted(booked: BookedCounters) -> BookedCounters:
    """As another process takes it up from JSON."""
    text = json.dumps([replica.plain() for replica in booked.to_state()])
    return BookedCounters.from_state(tuple(ReplicaState.model_validate(state) for state in json.loads(text)))


@given(counts, counts, counts)
def test_what_was_read_and_not_booked_is_in_what_happened_meanwhile(booked: int, read: int, meanwhile: int) -> None:
    before = BookedCounters()
    assert before.read(SERVER, {KEY: counters(100, booked, booked * 1e-3)}, {}) == {}
    before.book()
    before.read(SERVER, {KEY: counters(105, booked + read, (booked + read) * 1e-3)}, {})
    after = restarted(before)
    done = booked + read + meanwhile
    windows = after.read(SERVER, {KEY: counters(4000, done, done * 1e-3)}, {})
    assert windows[KEY].completed == read + meanwhile
    assert abs(windows[KEY].busy_seconds - (read + meanwhile) * 1e-3) < 1e-5
    assert after.read(SERVER, {KEY: counters(4005, done, done * 1e-3)}, {}) == {}, "told twice"


def test_a_server_that_was_replaced_or_is_read_too_late_tells_what_it_knows_and_no_more() -> None:
    before = BookedCounters()
    before.read(SERVER, {KEY: counters(100, 50, 5.0)}, {})
    before.book()
    (window,) = restarted(before).read(SERVER, {KEY: counters(200, 7, 0.7, "other pod/r1")}, {}).values()
    assert window.completed == 7
    late = restarted(before)
    late.book()  # that time was split as the minutes before it
    assert late.read(SERVER, {KEY: counters(200, 90, 9.0)}, {}) == {}
    assert restarted(before).read(SERVER, {}, {}) == {}
    backwards = restarted(before).read(SERVER, {KEY: counters(50, 90, 9.0)}, {})
    assert backwards == {}, "a clock that was set back"


def test_an_operator_that_ends_before_it_booked_hands_on_what_it_was_given() -> None:
    before = BookedCounters()
    before.read(SERVER, {KEY: counters(100, 50, 5.0)}, {})
    before.book()
    again = restarted(restarted(before))
    assert again.read(SERVER, {KEY: counters(200, 60, 6.0)}, {})[KEY].completed == 10


def test_of_very_many_replicas_the_busiest_are_kept() -> None:
    before = BookedCounters()
    models = {ModelKey("team", f"m{n}"): counters(100, n, n * 1e-3) for n in range(KEPT_REPLICAS + 10)}
    before.read(SERVER, models, {})
    before.book()
    kept = before.to_state()
    assert len(kept) == KEPT_REPLICAS
    assert min(replica.counters.succeeded for replica in kept) == 10
