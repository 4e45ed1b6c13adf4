"""The watt guard acts in 20 s, overshoots little, gives back slowly, and does not swing."""

import itertools
import random

import pytest

from ergon.energy.guard import GuardState, Step, WattGuard

LIMIT = 1000.0


def feed(guard: WattGuard, watts: float, seconds: float, tick: float = 5.0, **more: float) -> list[tuple[float, Step]]:
    """The steps it takes, each with its time."""
    steps = []
    for number in range(round(seconds / tick)):
        step = guard.observe(tick, watts, LIMIT, **more)
        if step is not Step.NONE:
            steps.append(((number + 1) * tick, step))
    return steps


@pytest.mark.parametrize("tick", [1.0, 2.0, 5.0, 10.0])
def test_it_acts_when_two_means_of_ten_seconds_lie_above(tick: float) -> None:
    guard = WattGuard()
    assert feed(guard, 1200.0, 20.0, tick) == [(20.0, Step.TIGHTEN)]
    assert guard.share == pytest.approx(0.95 / 1.2)


def test_one_mean_above_is_no_reason() -> None:
    guard = WattGuard()
    for _ in range(10):
        assert feed(guard, 1200.0, 10.0) + feed(guard, 800.0, 10.0) == []


def test_it_starts_from_what_the_plan_really_takes() -> None:
    """A plan that uses half of the limit and draws 1.2 of it: less of the limit alone would change nothing."""
    guard = WattGuard()
    feed(guard, 1200.0, 20.0, planned_watts=500.0)
    assert guard.share * 0.95 * LIMIT == pytest.approx(500 * 0.95 / 1.2)


def test_it_takes_nothing_from_protected_demand() -> None:
    guard = WattGuard()
    steps = feed(guard, 1500.0, 3600.0, least_watts=900.0)
    assert guard.share == pytest.approx(900 / 950)
    assert len(steps) == 1


def test_it_gives_back_after_five_minutes_one_step_in_two_minutes() -> None:
    guard = WattGuard.from_state(GuardState(share=0.5))
    steps = feed(guard, 600.0, 900.0)
    assert steps[0] == (300.0, Step.GIVE_BACK)
    assert len(steps) == 4
    assert [after - before for (before, _), (after, _) in itertools.pairwise(steps)] == [120.0] * (len(steps) - 1)
    assert guard.share == 1.0


def test_between_the_two_marks_nothing_happens() -> None:
    guard = WattGuard.from_state(GuardState(share=0.8))
    assert feed(guard, 930.0, 7200.0) == []


def test_a_limit_is_met_by_the_mean_of_a_minute() -> None:
    guard = WattGuard()
    feed(guard, 900.0, 60.0)
    feed(guard, 1100.0, 30.0)
    assert guard.holds(LIMIT)
    feed(guard, 1100.0, 5.0)
    assert not guard.holds(LIMIT)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("noise", "least_mean"), [(0.02, 0.90), (0.05, 0.85)])
def test_noise_near_the_limit_does_not_make_it_swing(noise: float, least_mean: float, seed: int) -> None:
    """A load that would draw 1.25 of the limit, planned 8 % too low, 15 s late, with noise that lasts half a minute: at most four
    steps in any hour, most of the limit used, and the mean of a minute above it for at most 1 % of the time.
    """
    chance, guard, drift = random.Random(seed), WattGuard(), 0.0
    late, steps, over, total, ticks = [1.0] * 4, list[float](), 0, 0.0, 3 * 3600 // 5
    for tick in range(ticks):
        drift = 0.85 * drift + chance.gauss(0, noise * (1 - 0.85**2) ** 0.5)
        late.append(guard.share)
        watts = 1.08 * 0.95 * LIMIT * late.pop(0) * (1 + drift)
        if guard.observe(5.0, watts, LIMIT, planned_watts=0.95 * LIMIT * guard.share) is not Step.NONE:
            steps.append(tick * 5.0)
        total += watts
        over += tick > 12 and not guard.holds(LIMIT)
    assert max(sum(start <= at < start + 3600 for at in steps) for start in range(0, 7201, 60)) <= 4
    assert total / ticks >= least_mean * LIMIT
    assert over <= 0.01 * ticks


def test_a_restart_keeps_what_was_taken() -> None:
    guard = WattGuard()
    feed(guard, 1200.0, 20.0)
    restored = WattGuard.from_state(GuardState.model_validate_json(guard.to_state().model_dump_json()))
    assert restored.share == guard.share
    assert feed(restored, 700.0, 290.0) == []
