"""Up at once, down after a quiet while, asleep when idle; never below what the spec says."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.demand.scaling import Direction, Limits, Scaling, Signals, Trigger
from tests.demand.things import model

CALM = Signals(observed=10.0, requests_per_second=10.0, pending=0, pending_before=0)
ALWAYS_ON = Limits()
MAY_SLEEP = Limits(min_replicas=0, can_wake=True, idle_after_seconds=600)


def test_a_rise_is_followed_at_once_and_a_fall_after_the_stabilisation_window() -> None:
    scaling = Scaling(0)
    demands = {}
    for now in range(0, 900, 60):
        forecast = 100.0 if now in (60, 120) else 10.0
        demands[now] = scaling.decide(now, forecast, CALM, ALWAYS_ON).work_per_second
    assert [demands[now] for now in (0, 60, 120, 180, 360)] == [10, 100, 100, 100, 100]
    assert demands[420] == 10  # 300 s after the last time that more was recommended


def test_every_decision_is_one_sentence() -> None:
    scaling = Scaling(0)
    said = [
        scaling.decide(now, forecast, CALM, ALWAYS_ON).reason
        for now, forecast in ((0, 10), (60, 12.34), (120, 5), (500, 5), (560, 5))
    ]
    assert said == [
        "up from 0 to 10 work/s: the forecast has risen",
        "up from 10 to 12 work/s: the forecast has risen",
        "steady at 12 work/s: 5 would do, but it was more a short while ago",
        "down from 12 to 5 work/s: nothing higher was needed for a while",
        "steady at 5 work/s",
    ]


URGENT = {
    "shortfall": (Signals(observed=50.0, unserved=20.0), Trigger.SHORTFALL, 50.0),
    "the line grows": (Signals(observed=40.0, requests_per_second=40.0, pending=90, pending_before=20), Trigger.QUEUE, 50.0),
    "waits grow": (Signals(observed=40.0, queue_seconds=3.0, queue_seconds_before=1.0), Trigger.QUEUE, 50.0),
    "late": (Signals(observed=40.0, latency_seconds=0.5, latency_target_seconds=0.2), Trigger.LATENCY, 50.0),
}


@pytest.mark.parametrize(("seen", "trigger", "demand"), URGENT.values(), ids=URGENT)
def test_what_is_urgent_adds_at_once(seen: Signals, trigger: Trigger, demand: float) -> None:
    scaling = Scaling(0)
    scaling.decide(0, 20.0, CALM, ALWAYS_ON)
    found = scaling.look(8, seen, ALWAYS_ON)
    assert found is not None
    assert (found.trigger, found.urgent, found.direction) == (trigger, True, Direction.UP)
    assert found.work_per_second == pytest.approx(demand)
    assert found.reason.startswith("up from 20 to 50 work/s: ")
    # The plan that follows does not take it back.
    assert scaling.decide(60, 20.0, CALM, ALWAYS_ON).work_per_second == pytest.approx(demand)


QUIET = {
    "nothing": CALM,
    "a line that does not grow": Signals(observed=40.0, requests_per_second=40.0, pending=50, pending_before=50),
    "a short line": Signals(observed=40.0, requests_per_second=40.0, pending=3, pending_before=0),
    "waits that fall": Signals(observed=40.0, queue_seconds=2.0, queue_seconds_before=3.0),
    "in time": Signals(observed=40.0, latency_seconds=0.1, latency_target_seconds=0.2),
    "no target": Signals(observed=40.0, latency_seconds=9.0),
    "no traffic": Signals(unserved=5.0),
}


@pytest.mark.parametrize("seen", QUIET.values(), ids=QUIET)
def test_what_is_not_urgent_waits_for_the_plan(seen: Signals) -> None:
    scaling = Scaling(0)
    scaling.decide(0, 50.0, CALM, ALWAYS_ON)
    assert scaling.look(5, seen, ALWAYS_ON) is None


def test_a_growing_line_is_given_more_step_by_step_but_not_without_end() -> None:
    scaling = Scaling(0)
    scaling.decide(0, 40.0, CALM, ALWAYS_ON)
    demands = [40.0]
    for now in range(5, 120, 5):
        seen = Signals(observed=40.0, requests_per_second=40.0, pending=100 * now, pending_before=50 * now)
        found = scaling.look(now, seen, ALWAYS_ON)
        demands.append(found.work_per_second if found is not None else demands[-1])
    assert demands == sorted(demands)
    assert demands[8] >= 80  # twice as much within 40 s
    assert demands[-1] == pytest.approx(160)


BURSTY = Signals(observed=80.0, places=100.0, requests_per_second=80.0, latency_seconds=0.5, latency_target_seconds=0.2)


def test_a_burst_within_the_places_that_are_kept_for_bursts_adds_nothing() -> None:
    scaling = Scaling(0)
    scaling.decide(0, 40.0, CALM, ALWAYS_ON)
    assert all(scaling.look(now, BURSTY, ALWAYS_ON) is None for now in range(5, 120, 5))
    assert scaling.decide(120, 40.0, BURSTY, ALWAYS_ON).work_per_second == pytest.approx(40.0)


def test_what_comes_late_for_longer_than_a_burst_or_beyond_all_places_adds_at_once() -> None:
    lasting, beyond = Scaling(0), Scaling(0)
    for scaling in (lasting, beyond):
        scaling.decide(0, 40.0, CALM, ALWAYS_ON)
    found = [lasting.look(now, BURSTY, ALWAYS_ON) is not None for now in range(5, 140, 5)]
    assert found.index(True) == 24  # 120 s after it began at 5 s
    more = beyond.look(5, replace(BURSTY, observed=101.0), ALWAYS_ON)
    assert more is not None
    assert more.trigger is Trigger.LATENCY
    assert more.work_per_second == pytest.approx(101.0 * 1.25)


def test_what_the_plan_cannot_serve_is_no_burst() -> None:
    scaling = Scaling(0)
    scaling.decide(0, 40.0, CALM, ALWAYS_ON)
    found = scaling.look(5, replace(BURSTY, unserved=20.0), ALWAYS_ON)
    assert found is not None
    assert (found.trigger, found.work_per_second) == (Trigger.SHORTFALL, pytest.approx(80.0))


def test_a_burst_that_follows_a_quiet_while_is_a_new_one() -> None:
    scaling = Scaling(0)
    scaling.decide(0, 40.0, CALM, ALWAYS_ON)
    for now in (5, 100):
        assert scaling.look(now, BURSTY, ALWAYS_ON) is None
    assert scaling.look(110, CALM, ALWAYS_ON) is None
    assert scaling.look(200, BURSTY, ALWAYS_ON) is None


def test_an_idle_model_sleeps_and_wakes_when_asked() -> None:
    scaling = Scaling(0)
    scaling.asked(100)
    assert not scaling.decide(690, 0.0, Signals(), MAY_SLEEP).asleep
    asleep = scaling.decide(700, 0.0, Signals(), MAY_SLEEP)
    assert (asleep.asleep, asleep.least_replicas, asleep.work_per_second) == (True, 0, 0)
    assert asleep.reason == "asleep: no request for 10 min, and the gateway wakes it"
    assert scaling.look(705, Signals(), MAY_SLEEP) is None
    scaling.wake(710)
    awake = scaling.look(710, Signals(), MAY_SLEEP)
    assert awake is not None
    assert (awake.least_replicas, awake.urgent, awake.trigger) == (1, True, Trigger.WAKE)
    assert not scaling.decide(720, 0.0, Signals(), MAY_SLEEP).asleep
    assert scaling.decide(1320, 0.0, Signals(), MAY_SLEEP).asleep


def test_a_wake_just_before_a_plan_is_in_the_plan() -> None:
    scaling = Scaling(0)
    assert scaling.decide(1000, 0.0, Signals(), MAY_SLEEP).asleep
    scaling.wake(1059)
    awake = scaling.decide(1060, 0.0, Signals(), MAY_SLEEP)
    assert (awake.asleep, awake.urgent, awake.least_replicas) == (False, True, 1)


@pytest.mark.parametrize("limits", [Limits(0, can_wake=False), Limits(1, can_wake=True), Limits(3)])
def test_nobody_sleeps_who_may_not_or_whom_nobody_would_wake(limits: Limits) -> None:
    found = Scaling(0).decide(10_000, 0.0, Signals(), limits)
    assert (found.asleep, found.least_replicas) == (False, max(1, limits.min_replicas))


@pytest.mark.parametrize(("replicas", "words"), [(0, "0 replicas"), (1, "1 replica"), (5, "5 replicas")])
def test_a_fixed_count_overrules(replicas: int, words: str) -> None:
    limits = Limits(2, None, replicas, can_wake=True)
    scaling = Scaling(0)
    found = scaling.decide(10_000, 7.0, Signals(), limits)
    assert (found.least_replicas, found.direction, found.work_per_second) == (replicas, Direction.FIXED, 7.0)
    assert found.reason == f"{words}: spec.replicas says so"
    assert scaling.look(10_005, Signals(observed=50.0, unserved=20.0), limits) is None


def test_limits_are_those_of_the_spec() -> None:
    said = Limits.of(model(min_replicas=0, max_replicas=9, idle_after_seconds=120.0), can_wake=True)
    assert said == Limits(0, 9, None, 120.0, True)
    assert said.least == 1


SIGNALS = st.builds(
    Signals,
    observed=st.floats(0, 1000),
    requests_per_second=st.floats(0, 1000),
    unserved=st.floats(0, 100),
    pending=st.none() | st.integers(0, 5000),
    pending_before=st.none() | st.integers(0, 5000),
    queue_seconds=st.none() | st.floats(0, 30),
    queue_seconds_before=st.none() | st.floats(0, 30),
    latency_seconds=st.none() | st.floats(0, 5),
    latency_target_seconds=st.none() | st.floats(0.01, 5),
)
LIMITS = st.builds(Limits, st.integers(0, 5), st.none(), st.none(), st.floats(0, 500), st.booleans())
STEPS = st.lists(st.tuples(st.floats(0.5, 120), st.booleans(), st.booleans(), st.floats(0, 1000), SIGNALS), max_size=30)


@settings(max_examples=100)
@given(STEPS, LIMITS)
def test_never_below_what_the_spec_says_and_the_fast_path_only_adds(
    steps: list[tuple[float, bool, bool, float, Signals]], limits: Limits
) -> None:
    scaling, now, planned = Scaling(0), 0.0, 0.0
    for seconds, plans, wakes, forecast, seen in steps:
        now += seconds
        if wakes:
            scaling.wake(now)
        found = scaling.decide(now, forecast, seen, limits) if plans else scaling.look(now, seen, limits)
        if found is None:
            continue
        assert found.least_replicas >= limits.min_replicas
        assert found.asleep == (found.least_replicas == 0)
        assert not found.asleep or (limits.can_wake and limits.min_replicas == 0)
        assert found.work_per_second >= (0 if found.asleep or not plans else forecast * 0.99)
        if not plans:
            assert found.urgent
            assert found.work_per_second >= planned
        planned = found.work_per_second


@pytest.mark.parametrize("seed", range(5))
def test_noisy_constant_traffic_does_not_flap(seed: int) -> None:
    chance, scaling, changes, last = random.Random(seed), Scaling(0), 0, 0.0
    for now in range(0, 86_400, 60):
        demand = scaling.decide(now, chance.gauss(100, 3), CALM, ALWAYS_ON).work_per_second
        changes += now > 600 and demand < 0.95 * last
        last = demand
    assert changes <= 48  # steps of 5 % down, at most two an hour
