"""Budgets over restarts, edits and plans that are late: nothing that was used is forgotten, and no limit is lost for a moment."""

from dataclasses import replace
from typing import Any

import pytest

from ergon.api.budget import EnergyBudgetSpec
from ergon.api.types import LabelSelector
from ergon.energy.accounts import JOULES_PER_KILOWATT_HOUR
from ergon.energy.budget import BudgetState, Needs
from ergon.energy.ledger import Booked
from ergon.engine.budget_book import BudgetBook
from ergon.engine.cache import BudgetRecord, Cache
from tests.engine.test_planner import put
from tests.engine.world import pool

JULY = 1_783_000_000.0
MONTHLY: dict[str, Any] = {"kilowattHours": 100, "window": "Month"}


def book(**limits: Any) -> tuple[BudgetBook, Cache]:
    """Of one budget, `site`."""
    cache = Cache()
    put(cache, pool(), "p1")
    if limits:
        set_budget(cache, 1, **limits)
    return BudgetBook(cache), cache


def set_budget(cache: Cache, generation: int, **limits: Any) -> None:
    spec = EnergyBudgetSpec.model_validate({"limits": limits, "shedBelowPriority": 500})
    cache.budgets["site"] = BudgetRecord("site", "u", generation, spec, None, {})


def used(joules: float, seconds: float = 10.0) -> list[Booked]:
    """By the pool's devices, all of it measured."""
    return [Booked("cpu", seconds, joules, 0.0, 0.0, joules, 0.0, 0.0, {}, 0.0, 1.0, joules / seconds)]


def judge(budgets: BudgetBook, joules: float, needed_watts: float = 500.0) -> None:
    budgets.planned({"site": Needs(needed_watts=needed_watts)})
    budgets.judge(10.0, used(joules), {}, JULY)


def used_joules(state: BudgetState) -> float:
    return sum(joules for _, joules, _ in state.energy.windows)


def test_what_a_budget_used_is_handed_on_by_an_operator_that_never_judged_it() -> None:
    first, _ = book(**MONTHLY)
    judge(first, 3 * JOULES_PER_KILOWATT_HOUR)
    kept = first.to_state()
    assert used_joules(kept["site"]) == 3 * JOULES_PER_KILOWATT_HOUR
    brief, _ = book(**MONTHLY)
    brief.restore(kept)
    assert brief.to_state() == kept
    after, _ = book(**MONTHLY)
    after.restore(brief.to_state())
    judge(after, JOULES_PER_KILOWATT_HOUR)
    assert used_joules(after.to_state()["site"]) == 4 * JOULES_PER_KILOWATT_HOUR


def test_a_budget_that_cannot_be_judged_keeps_what_it_used_until_it_can() -> None:
    first, _ = book(**MONTHLY)
    judge(first, 3 * JOULES_PER_KILOWATT_HOUR)
    after, cache = book(**MONTHLY, timeZone="Europe/Nowhere")
    after.restore(first.to_state())
    judge(after, JOULES_PER_KILOWATT_HOUR)
    assert after.refusal("site") is not None
    set_budget(cache, 2, **MONTHLY)
    judge(after, JOULES_PER_KILOWATT_HOUR)
    assert used_joules(after.to_state()["site"]) == 4 * JOULES_PER_KILOWATT_HOUR


def test_what_is_used_before_the_first_plan_counts() -> None:
    first, _ = book(**MONTHLY)
    judge(first, 3 * JOULES_PER_KILOWATT_HOUR)
    after, _ = book(**MONTHLY)
    after.restore(first.to_state())
    after.judge(10.0, used(5 * JOULES_PER_KILOWATT_HOUR, 8 * 3600.0), {}, JULY)  # all of a gap, and no plan yet
    assert after.verdict("site") is None
    assert after.limits() == first.limits(), "the last one holds"
    judge(after, JOULES_PER_KILOWATT_HOUR)
    assert used_joules(after.to_state()["site"]) == pytest.approx(9 * JOULES_PER_KILOWATT_HOUR)


def test_of_a_budget_that_was_deleted_nothing_is_handed_on() -> None:
    first, _ = book(**MONTHLY)
    judge(first, 3 * JOULES_PER_KILOWATT_HOUR)
    after, _ = book()
    after.restore(first.to_state())
    judge(after, 0.0)
    assert after.to_state() == {}


def shedding() -> BudgetBook:
    """A book whose budget has used most of its month, so that it leaves less than what is asked for."""
    budgets, _ = book(**MONTHLY)
    judge(budgets, 90 * JOULES_PER_KILOWATT_HOUR, needed_watts=5000.0)
    (left,) = budgets.limits().values()
    assert left is not None
    assert left < 5000.0
    return budgets


def test_a_limit_over_a_window_holds_from_the_first_plan_after_a_restart() -> None:
    before = shedding()
    after, cache = book(**MONTHLY)
    after.restore(before.to_state())
    assert after.limits() == before.limits()
    version = after.version
    judge(after, 0.0, needed_watts=5000.0)
    assert after.limits() == before.limits(), "as it was, so that nothing is planned anew"
    assert after.version == version
    set_budget(cache, 2, **MONTHLY)
    again, _ = book()
    again.restore(after.to_state())
    assert again.limits() == {}, "none of its name"


@pytest.mark.parametrize(
    ("limits", "watts"),
    [
        ({"kilowattHours": 400, "window": "Month"}, None),
        ({"kilowattHours": 50, "window": "Month"}, None),
        ({"watts": 1e6}, None),
        ({"watts": 1.0}, 1.0),
    ],
    ids=["more", "less", "other-unit", "tighter"],
)
def test_a_limit_that_is_edited_is_not_gone_until_it_is_judged(limits: dict[str, Any], watts: float | None) -> None:
    budgets = shedding()
    (before,) = budgets.limits().values()
    assert before is not None
    set_budget(budgets._cache, 2, **limits)
    assert budgets.limits() == {"site": watts or before}
    judge(budgets, 0.0, needed_watts=5000.0)
    assert budgets.limits() != {"site": before}


def test_a_limit_that_was_moved_to_another_scope_holds_by_its_own_figures_until_it_is_judged() -> None:
    budgets = shedding()
    record = budgets._cache.budgets["site"]
    assert record.spec is not None
    scope = LabelSelector(match_labels={"site": "b"})
    budgets._cache.budgets["site"] = replace(record, generation=2, spec=record.spec.model_copy(update={"pools": scope}))
    assert budgets.limits() == {}
