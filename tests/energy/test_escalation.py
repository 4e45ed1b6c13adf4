"""A route gives way to a budget as far as its samples allow, and takes it back in the same steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.energy.escalation import STEP, Allowed, allowed_rate, quality_at
from ergon.energy.expected import expected_joules
from ergon.fleet.types import OperatingPoint
from tests.energy.world import pool, variant

SAMPLES = {0.0: 0.80, 0.1: 0.86, 0.2: 0.90, 0.3: 0.92, 1.0: 0.95}


def down(before: Allowed, *, least: float, wished: float | None = 0.3, samples: dict[float, float] | None = None) -> Allowed:
    return allowed_rate(before, 1.0, wished, "watts", SAMPLES if samples is None else samples, least)


def up(before: Allowed, wished: float | None = 0.3) -> Allowed:
    return allowed_rate(before, 1.0, wished, "", SAMPLES, 0.85)


def test_it_goes_down_by_steps_from_what_escalates_to_where_quality_ends() -> None:
    rates, allowed = [], Allowed(1.0)
    for _ in range(8):
        allowed = down(allowed, least=0.85)
        rates.append(allowed.rate)
    assert rates == pytest.approx([0.25, 0.2, 0.15, 0.1, 0.1, 0.1, 0.1, 0.1])  # at 0.05 it would be 0.83
    assert allowed.lowered_by == "watts"
    assert allowed.message == (
        "budget watts gives way: 10% may escalate at quality 0.86; at 5% it would be 0.83, below minQuality 0.85"
    )


def test_it_comes_back_in_the_same_steps_and_then_wholly() -> None:
    rates, allowed = [], Allowed(0.1, "watts", "")
    for _ in range(5):
        allowed = up(allowed)
        rates.append(allowed.rate)
    assert rates == pytest.approx([0.15, 0.2, 0.25, 1.0, 1.0])
    assert allowed.lowered_by == ""


def test_what_would_not_fit_does_not_come_back() -> None:
    lowered = Allowed(0.1, "watts", "")
    for _ in range(3):
        lowered = allowed_rate(lowered, 1.0, 0.3, "", SAMPLES, 0.85, full="watts")
        assert (lowered.rate, lowered.lowered_by) == (0.1, "watts")
    assert lowered.message == "10% may escalate, of 100%: 5 points more would not fit into budget watts"
    assert up(lowered).rate == pytest.approx(0.15)
    assert allowed_rate(Allowed(1.0), 1.0, 0.3, "", SAMPLES, 0.85, full="watts") == Allowed(1.0)  # nothing was lowered


def test_without_samples_it_stays_where_it_is() -> None:
    kept = down(Allowed(1.0), least=0.85, samples={})
    assert (kept.rate, kept.lowered_by) == (1.0, "")
    assert kept.message == "budget watts gives way; without samples of quality 100% may escalate as before"


@given(
    st.dictionaries(st.sampled_from([n * STEP for n in range(21)]), st.floats(0, 1), max_size=21),
    st.floats(0, 1),
    st.lists(st.tuples(st.booleans(), st.none() | st.floats(0, 1)), max_size=30),
    st.floats(0, 1),
)
def test_it_never_leaves_its_bounds_nor_lowers_below_the_least_quality(
    samples: dict[float, float], least: float, course: list[tuple[bool, float | None]], most: float
) -> None:
    allowed = Allowed(most)
    for tight, wished in course:
        before, allowed = allowed, allowed_rate(allowed, most, wished, "b" if tight else "", samples, least)
        assert 0 <= allowed.rate <= most
        if allowed.rate < before.rate:
            quality = quality_at(samples, allowed.rate)
            assert tight
            assert quality is not None
            assert quality >= least
        assert bool(allowed.lowered_by) == (allowed.rate < most)


def test_quality_lies_on_a_line_between_samples() -> None:
    assert quality_at(SAMPLES, 0.15) == pytest.approx(0.88)
    assert quality_at(SAMPLES, 0.1) == 0.86
    assert quality_at({0.1: 0.8}, 0.05) is None
    assert quality_at({}, 0.5) is None


def test_joules_are_expected_at_the_cheapest_place() -> None:
    slow = OperatingPoint(None, "gpu", 1, 100.0, watts=66.0)
    fast = OperatingPoint(None, "gpu", 8, 400.0, watts=72.0, awake_watts=32.0)
    assert expected_joules([(variant(slow), pool(pue=1.2))]) == pytest.approx(1.2 * 50 / 100)
    assert expected_joules([(variant(slow, fast), pool())]) == pytest.approx(40 / 400)
    assert expected_joules([(variant(), pool())]) is None
    tokens = OperatingPoint(None, "gpu", 1, 100.0, watts=66.0, counts_tokens=True)
    assert expected_joules([(variant(tokens), pool())]) == pytest.approx(0.5 * 100)
