"""Conditions keep the time of their last change, and say only what is in the closed sets."""

import pytest

from ergon.api.conditions import (
    BUDGET_REASONS,
    MESSAGE_CHARACTERS,
    MODEL_REASONS,
    POOL_REASONS,
    Judged,
    ModelAccepted,
    ModelLoaded,
    ModelReady,
    known,
    merge,
)
from ergon.api.types import Condition

READY = Judged("Ready", True, ModelReady.READY, "2 replicas ready")
LOADING = Judged("Ready", False, ModelReady.NOT_LOADED, "loading")


def test_the_time_stays_while_the_status_does() -> None:
    first = merge([], [READY], generation=1, now="t1")
    second = merge(first, [Judged("Ready", True, ModelReady.PARTIALLY_READY, "1 of 2")], generation=2, now="t2")
    assert second[0]["lastTransitionTime"] == "t1"
    assert (second[0]["reason"], second[0]["observedGeneration"]) == ("PartiallyReady", 2)


def test_the_time_moves_with_the_status() -> None:
    first = merge([], [READY], generation=1, now="t1")
    assert merge(first, [LOADING], generation=1, now="t2")[0]["lastTransitionTime"] == "t2"


def test_merging_the_same_again_changes_nothing() -> None:
    first = merge([], [READY], generation=1, now="t1")
    assert merge(first, [READY], generation=1, now="t9") == first


def test_what_is_over_goes() -> None:
    stalled = Judged("Stalled", True, ModelLoaded.ACCESS_DENIED, "no")
    first = merge([], [LOADING, stalled], generation=1, now="t1")
    assert [c["type"] for c in merge(first, [READY], generation=1, now="t2")] == ["Ready"]


def test_a_damaged_previous_condition_is_replaced() -> None:
    assert merge([{}, {"type": "Ready", "status": "True"}], [READY], generation=1, now="t1")[0]["lastTransitionTime"] == "t1"


@pytest.mark.parametrize(("status", "word"), [(True, "True"), (False, "False"), (None, "Unknown")])
def test_what_is_written_fits_the_schema(status: bool | None, word: str) -> None:
    judged = Judged("Accepted", status, ModelAccepted.INVALID_SPEC, "x" * 5000)
    written = merge([], [judged], generation=3, now="2026-01-01T00:00:00Z")[0]
    condition = Condition.model_validate(written)
    assert condition.status == word
    assert len(condition.message) == MESSAGE_CHARACTERS


def test_reasons_are_closed_sets_of_camel_case_words() -> None:
    for reasons in (MODEL_REASONS, POOL_REASONS, BUDGET_REASONS):
        for condition, enums in reasons.items():
            for enum in enums:
                for reason in enum:
                    assert reason.value.isalnum()
                    assert reason.value[0].isupper()
                    assert known(reasons, condition, reason.value)
    assert not known(MODEL_REASONS, "Ready", "Whatever")
    assert not known(POOL_REASONS, "Loaded", "Loaded")
