"""Leader election as a state machine, and as a simulation in which everything that can delay a candidate does."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.kube.election import MARGIN_SECONDS, Election, Seen, Step, Timing

TIMING = Timing()
OTHER = Seen("other", 15, "1")


def candidate() -> Election:
    return Election("me", TIMING)


def leading(at: float = 100.0) -> Election:
    return candidate().wrote(Seen("me", 15, "2"), at)


@pytest.mark.parametrize(
    ("state", "now", "step"),
    [
        (candidate().observe(None, 0), 0, Step.CREATE),
        (candidate().observe(Seen("", 1, "1"), 0), 0, Step.TAKE),
        (candidate().observe(Seen("me", 15, "1"), 0), 0, Step.TAKE),  # our own, from before a restart
        (candidate().observe(OTHER, 50), 65, Step.WAIT),
        (candidate().observe(OTHER, 50), 65.1, Step.TAKE),
        (candidate().observe(OTHER, 50).observe(OTHER, 60), 65.1, Step.TAKE),  # seen again, unchanged
        (candidate().observe(OTHER, 50).observe(Seen("other", 15, "2"), 60), 65.1, Step.WAIT),
        (candidate().observe(Seen("other", 40, "1"), 50), 70, Step.WAIT),  # its own, longer duration
        (leading(), 102, Step.RENEW),
        (leading(), 110.1, Step.LOST),
        (leading().observe(OTHER, 103), 103, Step.LOST),
    ],
)
def test_steps(state: Election, now: float, step: Step) -> None:
    assert state.step(now) is step


def test_what_is_begun_must_end_before_the_lease() -> None:
    state = leading(at=100)
    assert state.outlives(5, 100)
    assert not state.outlives(15 - MARGIN_SECONDS, 100)
    assert not state.outlives(5, 111)
    assert not leading().observe(OTHER, 101).outlives(0, 101)
    assert not candidate().outlives(0, 0)
    assert not leading().gave_back().outlives(0, 100)


def test_a_lease_counts_from_when_its_write_was_sent() -> None:
    # The answer may come much later than others saw the write.
    assert leading(at=100).expires_at() == 115


@pytest.mark.parametrize("timing", [(10, 10, 2), (15, 2, 2), (15, 10, 0), (5, 10, 2)])
def test_durations_that_make_no_sense(timing: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be above"):
        Timing(*timing)


@dataclass
class Store:
    """The Lease in the API server: compare and swap."""

    seen: Seen | None = None
    version: int = 0

    def write(self, expected: Seen | None, holder: str) -> Seen | None:
        """The new Lease, or None where somebody else was faster."""
        if (expected and expected.version) != (self.seen and self.seen.version):
            return None
        self.version += 1
        self.seen = Seen(holder, TIMING.lease_seconds, str(self.version))
        return self.seen


@dataclass
class Actor:
    """A candidate whose reads, writes and answers are each late by chance, and which stands still now and then."""

    state: Election
    chance: random.Random
    next_at: float = 0.0
    pending: tuple[str, float, Seen | None] | None = None
    terms: list[tuple[float, float]] = field(default_factory=list)

    def turn(self, store: Store, now: float) -> None:
        if self.pending is not None:
            kind, started, result = self.pending
            self.pending = None
            if kind == "read":
                self.state = self.state.observe(result, now)
            elif result is not None:
                self.state = self.state.wrote(result, started)
        else:
            step = self.state.step(now)
            if step is Step.LOST:
                self.state = Election(self.state.identity, TIMING)
            elif step is Step.WAIT or not self.state.read or self.chance.random() < 0.2:
                self.pending = ("read", now, store.seen)
            else:
                written = store.write(self.state.seen, self.state.identity)
                lost = self.chance.random() < 0.1
                self.pending = ("read", now, store.seen) if written is None or lost else ("write", now, written)
        pause = self.chance.choice([0.01, 0.5, 2.0, 2.0, 2.2, 4.0, 9.0, 30.0])
        self.next_at = now + pause * self.chance.random()
        self.terms.append((now, self.state.expires_at()))


@given(st.integers(0, 2**32), st.integers(2, 4))
def test_no_two_candidates_ever_hold_time_in_common(seed: int, number: int) -> None:
    chance, store = random.Random(seed), Store()
    # Monotonic clocks of machines have nothing to do with each other; here they differ by an offset each.
    actors = [Actor(Election(f"c{index}", TIMING), chance) for index in range(number)]
    offsets = [chance.uniform(0, 1e6) for _ in actors]
    now, leader_until, leader = 0.0, float("-inf"), -1
    for _ in range(400):
        index = min(range(number), key=lambda i: actors[i].next_at)
        now = max(now, actors[index].next_at)
        actor, offset = actors[index], offsets[index]
        actor.next_at += offset
        actor.turn(store, now + offset)
        actor.next_at -= offset
        until = actor.state.expires_at() - offset
        if until > now:
            assert leader == index or leader_until <= now, "two lead at once"
            leader, leader_until = index, max(leader_until if leader == index else 0.0, until)


@given(st.integers(0, 2**32))
def test_somebody_leads_within_twenty_seconds_of_a_crash(seed: int) -> None:
    chance, store = random.Random(seed), Store()
    crashed = Election("old", TIMING).observe(None, 0)
    written = store.write(None, "old")
    assert written is not None
    assert crashed.wrote(written, 0.0).leads
    state, now = Election("new", TIMING), chance.uniform(0, 2)
    crash_at = now
    while not state.leads:
        if state.step(now) in (Step.TAKE, Step.CREATE) and state.read:
            result = store.write(state.seen, "new")
            assert result is not None
            state = state.wrote(result, now)
        else:
            state = state.observe(store.seen, now)
        now += TIMING.retry_seconds * (1 + 0.2 * chance.random())
    assert now - crash_at <= 20.0
