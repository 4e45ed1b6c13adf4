"""What a budget says of itself beside the plan."""

import math
import random
from typing import Any

import pytest

from ergon.api.budget import EnergyBudgetSpec
from ergon.fleet.types import ModelKey, WattLimit
from ergon.planning import Effort, plan
from ergon.reconcile.budgets import BudgetView, budget_status, scope_watts
from ergon.reconcile.observed import Refusal
from tests.planning.fleets import random_fleet

SHED = (ModelKey("n", "a"),)


def spec(**fields: Any) -> EnergyBudgetSpec:
    return EnergyBudgetSpec.model_validate({"limits": {"watts": 1000}, **fields})


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (BudgetView(None, Refusal("InvalidSpec", "no"), 10), [("Accepted", False, "InvalidSpec")]),
        (
            BudgetView(spec(limits={"kilowattHours": 1, "window": "Day"}), None, 10),
            [("Accepted", False, "NotImplemented")],
        ),
        (BudgetView(spec(), None, None), [("Accepted", True, "Accepted")]),
        (
            BudgetView(spec(), None, 900),
            [("Accepted", True, "Accepted"), ("WithinBudget", True, "WithinLimit"), ("Feasible", True, "Feasible")],
        ),
        (
            BudgetView(spec(limits={"watts": 1000, "carbonGrams": 5, "window": "Day"}), None, 900),
            [("Accepted", True, "WattsOnly"), ("WithinBudget", True, "WithinLimit"), ("Feasible", True, "Feasible")],
        ),
        (
            BudgetView(spec(), None, 1100, over_watts=150),
            [("Accepted", True, "Accepted"), ("WithinBudget", False, "OverLimit"), ("Feasible", False, "ServersAlone")],
        ),
        (
            BudgetView(spec(), None, 900, shed=SHED),
            [("Accepted", True, "Accepted"), ("WithinBudget", True, "WithinLimit"), ("Feasible", False, "ModelsShed")],
        ),
        (
            BudgetView(spec(enforcement="Observe"), None, 1100),
            [("Accepted", True, "Accepted"), ("WithinBudget", False, "OverLimit")],
        ),
    ],
)
def test_the_conditions_of_a_budget(view: BudgetView, expected: list[tuple[str, bool, str]]) -> None:
    facts, _ = budget_status(view)
    assert [(fact.type, fact.status, fact.reason) for fact in facts] == expected


@pytest.mark.parametrize(("watts", "said"), [(0, 0), (0.01234, 0.0123), (1234.5, 1230), (1_234_567, 1_230_000)])
def test_figures_have_three_digits_so_that_no_status_is_written_for_less(watts: float, said: float) -> None:
    _, body = budget_status(BudgetView(spec(), None, watts))
    assert body == {"projected": said, "provenance": "assumed"}


def test_many_that_are_shed_are_counted() -> None:
    facts, _ = budget_status(BudgetView(spec(), None, 1, shed=tuple(ModelKey("n", f"m{i}") for i in range(8))))
    assert facts[-1].message == "no watts are left for n/m0, n/m1, n/m2, n/m3, n/m4 and 3 more"


@pytest.mark.parametrize("seed", range(30))
def test_what_a_plan_takes_in_a_scope_is_what_planning_held_to_the_limit(seed: int) -> None:
    fleet = random_fleet(random.Random(seed))
    made = plan(fleet, effort=Effort.quick())
    assert math.isclose(scope_watts(WattLimit("all", 1.0), fleet, made), made.watts, abs_tol=1e-9)
    for limit in fleet.watt_limits:
        if limit.name not in made.over_limit_watts:
            assert scope_watts(limit, fleet, made) <= 0.95 * limit.watts * (1 + 1e-9) + 1e-9
