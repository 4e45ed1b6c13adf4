"""Quality over the share that escalates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.gateway.curve import SHARES, Sampled, quality

SAMPLES = st.lists(st.builds(Sampled, st.booleans(), st.booleans(), st.just(-float("inf")) | st.floats(0, 1)), min_size=1)


def test_the_answers_that_are_worth_least_escalate_first() -> None:
    samples = [Sampled(True, True), Sampled(False, True, 0.9), Sampled(True, False, 0.1), Sampled(False, False, 0.5)]
    assert [quality(samples, share) for share in (0, 0.25, 0.5, 0.75, 1)] == [0.5, 0.75, 0.75, 0.5, 0.5]


@given(SAMPLES)
def test_without_escalation_the_first_model_speaks_and_with_all_the_next_for_what_is_unsure(samples: list[Sampled]) -> None:
    assert quality(samples, 0) == sum(sample.first for sample in samples) / len(samples)
    unsure = [sample.escalated if sample.urgency >= 0 else sample.first for sample in samples]
    assert quality(samples, 1) == pytest.approx(sum(unsure) / len(samples))
    assert all(0 <= quality(samples, share) <= 1 for share in SHARES)
