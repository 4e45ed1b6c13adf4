"""Learned operating points: they find the truth through noise and lies, in small steps, apart from interference."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.demand.counters import BatchCounters, Window
from ergon.demand.learning import LARGEST_FACTOR, LARGEST_STEP, LEAST_FACTOR, Learning, ServiceKey, points_for
from ergon.demand.service import Shape, declared_shape
from tests.demand.things import NER, OTHER, point, variant

KEY = ServiceKey(NER, "cpu", "Xeon")
POINTS = (point(1, 20.0), point(8, 80.0))
"""0.05 s for one, 0.1 s for eight: 3/70 + 1/140 s a request."""


def window(at: float, batch: int, seconds: float, executions: int = 10, rows_each: int = 1) -> Window:
    size = batch * rows_each
    busy, requests = seconds * executions, batch * executions
    batches = (BatchCounters(size, executions, busy),)
    return Window(at, 5, requests, 0, executions, requests * rows_each, busy, 5, batches, 0, seconds, 0, 0, True)


def taught(
    true_factor: float = 1.0, rounds: int = 200, seed: int = 0, outliers: float = 0.0, batches: tuple[int, ...] = (1, 8)
) -> Learning:
    """Windows with 10 % noise, some of them ten times too long."""
    chance, learning, shape = random.Random(seed), Learning(), declared_shape(POINTS, 1)
    assert shape is not None
    for step in range(rounds):
        batch = chance.choice(batches)
        seconds = shape.seconds(batch) * true_factor * max(0.1, chance.gauss(1, 0.1))
        seconds *= 10 if chance.random() < outliers else 1
        learning.learn(KEY, POINTS, 1, window(step * 5.0, batch, seconds), 0.0)
    return learning


def settled(learning: Learning, plans: int = 100) -> Learning:
    for _ in range(plans):
        learning.plan_passed()
    return learning


@pytest.mark.parametrize("true_factor", [0.4, 0.8, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("outliers", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_learning_finds_the_service_time_through_noise_and_outliers(true_factor: float, outliers: float, seed: int) -> None:
    learning = settled(taught(true_factor, seed=seed, outliers=outliers))
    for batch in (1, 8):
        assert learning.factor(KEY, batch) == pytest.approx(true_factor, rel=0.08)
        assert learning.confidence(KEY, batch) > 0.8


def test_a_slowly_changing_service_time_is_followed() -> None:
    learning, shape = taught(1.0), declared_shape(POINTS, 1)
    assert shape is not None
    for step in range(400):
        learning.learn(KEY, POINTS, 1, window(1000 + step * 5.0, 8, shape.seconds(8) * (1 + step / 400)), 0.0)
    assert settled(learning).factor(KEY, 8) == pytest.approx(1.9, rel=0.1)


def test_nothing_learned_changes_nothing() -> None:
    learning, whole = Learning(), variant(POINTS)
    assert learning.plan_passed() == []
    assert learning.corrected(NER, whole) is whole
    assert (learning.size(KEY), learning.factor(KEY, 8), learning.confidence(KEY, 8)) == (1.0, 1.0, 0.0)


@settings(max_examples=30)
@given(st.floats(0.02, 50), st.integers(1, 40))
def test_a_point_moves_at_most_5_percent_a_plan_and_stays_within_bounds(true_factor: float, plans: int) -> None:
    learning = taught(true_factor, rounds=60)
    before = 1.0
    for _ in range(plans):
        learning.plan_passed()
        now = learning.factor(KEY, 8)
        assert before / LARGEST_STEP - 1e-9 <= now <= before * LARGEST_STEP + 1e-9
        assert LEAST_FACTOR <= now <= LARGEST_FACTOR
        before = now


@pytest.mark.parametrize(("true_factor", "end"), [(0.1, 0.25), (8.0, 4.0)])
def test_what_is_out_of_all_proportion_is_a_finding(true_factor: float, end: float) -> None:
    learning = settled(taught(true_factor))
    findings = learning.plan_passed()
    assert learning.factor(KEY, 8) == pytest.approx(end)
    found = next(finding for finding in findings if finding.batch == 8)
    assert found.factor == pytest.approx(true_factor, rel=0.1)
    assert "variant cpu on Xeon" in found.message
    assert settled(taught(2.0)).plan_passed() == []


def test_a_corrected_variant_has_the_rates_and_latencies_that_are_seen() -> None:
    learning = settled(taught(2.0, rounds=400))
    seen = {p.batch: p for p in learning.corrected(NER, variant(POINTS)).points}
    assert seen[8].work_per_second == pytest.approx(40, rel=0.06)
    assert seen[8].latency_seconds == pytest.approx(0.2, rel=0.06)
    assert seen[1].work_per_second == pytest.approx(10, rel=0.06)


def test_points_of_a_class_stay_beside_those_learned_on_a_product() -> None:
    general = replace(point(8, 80.0), product=None, accelerator_class="cpu")
    learning = Learning()
    for step in range(100):
        learning.learn(KEY, (general,), 1, window(step * 5.0, 8, 0.2), 0.0)
    points = settled(learning).corrected(NER, variant([general])).points
    assert general in points
    (own,) = points_for(points, "Xeon", "cpu")
    assert own.work_per_second == pytest.approx(40, rel=0.05)
    assert points_for(points, "Epyc", "cpu") == (general,)


def test_interference_is_learned_apart_and_leaves_the_points_alone() -> None:
    learning, shape, chance = taught(1.0), declared_shape(POINTS, 1), random.Random(1)
    assert shape is not None
    before = learning.to_state()["services"]
    for step in range(300):
        others = chance.uniform(0.1, 0.6)
        seconds = shape.seconds(8) * (1 + 0.5 * others)
        learning.learn(KEY, POINTS, 1, window(2000 + step * 5.0, 8, seconds), others)
    assert learning.to_state()["services"] == before
    assert learning.interference("Xeon") == pytest.approx(0.5, abs=0.12)
    assert learning.interference("Epyc") == 0
    assert learning.size(KEY) == pytest.approx(1.0, abs=0.05)  # slower for the neighbours, not for what is asked


def test_longer_requests_are_more_work_at_once_and_again_1_when_the_points_have_followed() -> None:
    learning, shape = settled(taught(1.0, rounds=400)), declared_shape(POINTS, 1)
    assert shape is not None
    busy_share = []
    for step in range(500):
        learning.learn(KEY, POINTS, 1, window(3000 + step * 5.0, 8, shape.seconds(8) * 2), 0.0)
        if step % 12 == 11:
            learning.plan_passed()
            busy_share.append(learning.size(KEY) * learning.factor(KEY, 8))
    assert busy_share[0] > 1.7
    assert all(1.6 < share < 2.4 for share in busy_share)
    assert learning.size(KEY) == pytest.approx(1.0, abs=0.1)
    assert learning.factor(KEY, 8) == pytest.approx(2.0, rel=0.05)


def test_rows_of_one_request_are_one_request() -> None:
    learning, shape = Learning(), declared_shape(POINTS, 1)
    assert shape is not None
    for step in range(100):
        learning.learn(KEY, POINTS, 1, window(step * 5.0, 8, shape.seconds(8), rows_each=4), 0.0)
    assert settled(learning).factor(KEY, 8) == pytest.approx(1.0, abs=0.03)


def test_tokens_incomplete_windows_and_variants_without_points_teach_nothing() -> None:
    learning = Learning()
    tokens = (replace(point(8, 800.0), counts_tokens=True),)
    learning.learn(KEY, tokens, 1, window(5, 8, 9.0), 0.0)
    learning.learn(KEY, (), 1, window(5, 8, 9.0), 0.0)
    learning.learn(KEY, POINTS, 1, replace(window(5, 8, 9.0), complete=False), 0.0)
    assert learning.confidence(KEY, 8) == 0


def test_what_was_learned_survives_a_restart_and_is_in_force_before_anything_is_seen() -> None:
    learning = settled(taught(2.0))
    state = json.loads(json.dumps(learning.to_state()))
    again = Learning.from_state(state)
    assert again.to_state() == learning.to_state()
    assert again.corrected(NER, variant(POINTS)) == Learning.from_state(state).corrected(NER, variant(POINTS))
    assert again.factor(KEY, 8) == pytest.approx(learning.factor(KEY, 8), abs=1e-3)
    assert len(json.dumps(state["services"][0])) < 250


def test_what_was_learned_of_other_points_is_not_used() -> None:
    again = Learning.from_state(settled(taught(2.0)).to_state())
    other = (point(8, 500.0),)
    assert again.corrected(NER, variant(other)).points == other
    again.learn(KEY, other, 1, window(5, 8, 8 / 500), 0.0)
    assert again.factor(KEY, 8) == 1.0


BROKEN = [
    {"services": 3},
    {"services": [[]]},
    {"services": [["a", "b", "c", "d", "e", ["x"] * 7, {}]]},
    {"interference": {"x": [1]}},
    {"interference": []},
]


@pytest.mark.parametrize("state", BROKEN, ids=str)
def test_a_state_that_cannot_be_read_is_no_state(state: dict[str, object]) -> None:
    assert Learning.from_state(state).to_state() == Learning().to_state()


def test_a_forgotten_model_leaves_nothing() -> None:
    learning = taught()
    learning.forget(OTHER)
    assert learning.confidence(KEY, 8) > 0
    learning.forget(NER)
    assert learning.to_state()["services"] == []
    assert learning.corrected(NER, variant(POINTS)) == variant(POINTS)


def test_one_declared_point_is_a_line_too() -> None:
    assert declared_shape((point(8, 80.0),), 1) == Shape(0.05, 0.05 / 8)
    assert declared_shape((point(8, 80.0),), 4) == Shape(0.2, 0.2 / 8)
    assert declared_shape((), 1) is None
