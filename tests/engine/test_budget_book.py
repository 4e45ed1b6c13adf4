"""Budgets over restarts, edits and plans that are late: nothing that was used is forgotten, and no limit is lost for a moment."""

from typing import Any

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.accounts import JOULES_PER_KILOWATT_HOUR
from ergon.energy.budget import BudgetState, Needs
from ergon.energy.ledger import Booked
from ergon.engine.budget_book import BudgetBook
from ergon.engine.cache import BudgetRecord, Cache
from ergon.reconcile.observed import Refusal
from tests.engine.test_planner import put
from tests.engine.world import pool

JULY = 1_783_000_000.0
MONTHLY = {"kilowattHours": 100, "window": "Month"}


def book(**limits: Any) -> tuple[BudgetBook, Cache]:
    """Of one budget, `site`."""
    cache = Cache()
    put(cache, pool(), "p1")
    if limits:
        set_budget(cache, 1, **limits)
    return BudgetBook(cache), cache


def set_budget(cache: Cache, generation: int, refusal: Refusal | None = None, **limits: Any) -> None:
    spec = EnergyBudgetSpec.model_validate({"limits": limits, "shedBelowPriority": 500})
    cache.budgets["site"] = BudgetRecord("site", "u", generation, spec, refusal, {})


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


def test_of_a_budget_that_was_deleted_nothing_is_handed_on() -> None:
    first, _ = book(**MONTHLY)
    judge(first, 3 * JOULES_PER_KILOWATT_HOUR)
    after, _ = book()
    after.restore(first.to_state())
    judge(after, 0.0)
    assert after.to_state() == {}
