"""What a budget says of itself beside the plan."""

import math
import random
from typing import Any

import pytest

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.budget import Budget, Needs
from ergon.energy.scope import ScopeUse
from ergon.energy.verdict import Verdict
from ergon.fleet.types import ModelKey, WattLimit
from ergon.planning import Effort, plan
from ergon.reconcile.budgets import BudgetView, budget_status, covers_models, gives_way, scope_watts, step_fits
from ergon.reconcile.observed import Refusal
from tests.planning.fleets import random_fleet

SHED = (ModelKey("n", "a"),)


def spec(**fields: Any) -> EnergyBudgetSpec:
    return EnergyBudgetSpec.model_validate({"limits": {"watts": 1000}, **fields})


def verdict(watts: float, needed: float | None = None, protected: float = 0.0, **fields: Any) -> Verdict:
    """What a budget of 1,000 W says after a minute at so many watts."""
    budget = Budget("site", spec(**fields))
    needs = Needs(needed_watts=needed or watts, protected_watts=protected, planned_watts=watts)
    for second in range(7):
        found = budget.observe(10.0, ScopeUse(10.0, watts * 10, 0.0, 0.0, watts), needs, 1.7e9 + 10 * second)
    return found


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (BudgetView(None, Refusal("InvalidSpec", "no")), [("Accepted", False, "InvalidSpec")]),
        (BudgetView(spec(), None), [("Accepted", True, "Accepted")]),
        (
            BudgetView(spec(), None, verdict(900)),
            [("Accepted", True, "Accepted"), ("WithinBudget", True, "WithinLimit"), ("Feasible", True, "Feasible")],
        ),
        (
            BudgetView(spec(), None, verdict(1100, protected=1100), over_watts=150),
            [("Accepted", True, "Accepted"), ("WithinBudget", False, "OverLimit"), ("Feasible", False, "ServersAlone")],
        ),
        (
            BudgetView(spec(), None, verdict(1100, protected=1100)),
            [("Accepted", True, "Accepted"), ("WithinBudget", False, "OverLimit"), ("Feasible", False, "ProtectedDemand")],
        ),
        (
            BudgetView(spec(), None, verdict(900), shed=SHED),
            [("Accepted", True, "Accepted"), ("WithinBudget", True, "GivingWay"), ("Feasible", True, "Feasible")],
        ),
        (
            BudgetView(spec(enforcement="Observe"), None, verdict(1100, enforcement="Observe")),
            [("Accepted", True, "Accepted"), ("WithinBudget", False, "OverLimit")],
        ),
    ],
)
def test_the_conditions_of_a_budget(view: BudgetView, expected: list[tuple[str, bool, str]]) -> None:
    facts, _ = budget_status(view)
    assert [(fact.type, fact.status, fact.reason) for fact in facts] == expected


@pytest.mark.parametrize(("watts", "said"), [(0.01234, 0.0123), (1234.5, 1230), (1_234_567, 1_230_000)])
def test_figures_have_three_digits_so_that_no_status_is_written_for_less(watts: float, said: float) -> None:
    _, body = budget_status(BudgetView(spec(), None, verdict(watts)))
    assert body["used"] == said
    assert body["provenance"] == "derived"


def test_who_is_shed_is_named_and_many_are_counted() -> None:
    facts, _ = budget_status(BudgetView(spec(), None, verdict(900), shed=tuple(ModelKey("n", f"m{i}") for i in range(8))))
    assert facts[1].message.endswith("no watts are left for n/m0, n/m1, n/m2, n/m3, n/m4 and 3 more")


@pytest.mark.parametrize("seed", range(30))
def test_what_a_plan_takes_in_a_scope_is_what_planning_held_to_the_limit(seed: int) -> None:
    fleet = random_fleet(random.Random(seed))
    made = plan(fleet, effort=Effort.quick())
    assert math.isclose(scope_watts(WattLimit("all", 1.0), fleet, made), made.watts, abs_tol=1e-9)
    for limit in fleet.watt_limits:
        if limit.name not in made.over_limit_watts:
            assert scope_watts(limit, fleet, made) <= 0.95 * limit.watts * (1 + 1e-9) + 1e-9


def test_a_route_gives_way_to_an_enforced_budget_that_is_over_its_limit() -> None:
    assert gives_way(spec(), verdict(1100))
    assert not gives_way(spec(), verdict(900))
    assert not gives_way(spec(enforcement="Observe"), verdict(1100, enforcement="Observe"))


def test_a_step_fits_where_the_minute_has_room_for_it() -> None:
    assert step_fits(verdict(900), 50)
    assert not step_fits(verdict(980), 50)
    window = {"kilowattHours": 1000, "window": "Day"}
    assert step_fits(verdict(980, limits=window), 50)  # of a day's energy, one moment's watts say nothing


def test_a_budget_covers_models_by_namespace_and_by_where_they_are_placed() -> None:
    scoped = spec(namespaces={"matchLabels": {"team": "a"}}, pools={"matchLabels": {"tier": "x"}})
    assert covers_models(scoped, {"team": "a"}, [{"tier": "y"}, {"tier": "x"}])
    assert not covers_models(scoped, {"team": "b"}, [{"tier": "x"}])
    assert not covers_models(scoped, {"team": "a"}, [{"tier": "y"}])
    assert not covers_models(scoped, {"team": "a"}, [])  # placed nowhere
    assert covers_models(spec(), {}, [{}])
    assert not covers_models(spec(enforcement="Observe"), {}, [{}])
