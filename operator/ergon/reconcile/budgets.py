"""The truth about an energy budget, as a status: what of it is held, and what the plan takes of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ergon.api.budget import EnergyBudgetSpec
from ergon.fleet.types import Fleet, ModelKey, WattLimit
from ergon.planning.candidates import Reason
from ergon.planning.plan import Plan
from ergon.reconcile.observed import Refusal
from ergon.reconcile.status import Fact

SHOWN_MODELS = 5
_DIGITS = 3


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget beside the plan. `planned_watts`: what the plan takes in its scope, None before the first plan.

    `over_watts`: above 0.95 x the limit, which the servers that always run take alone. `shed`: models in its scope that a
    watt limit leaves without a replica they should have.
    """

    spec: EnergyBudgetSpec | None
    refusal: Refusal | None
    planned_watts: float | None
    over_watts: float = 0.0
    shed: tuple[ModelKey, ...] = ()


def scope_of(name: str, spec: EnergyBudgetSpec) -> WattLimit | None:
    """What a budget's watts are counted over, enforced or not; None where it limits no watts."""
    return WattLimit(name, spec.limits.watts, spec.pools, spec.namespaces) if spec.limits.watts is not None else None


def scope_watts(scope: WattLimit, fleet: Fleet, plan: Plan) -> float:
    """What a plan takes in a scope (planning.md, rule 7): the pools' power, or what the namespaces' models add by executing."""
    pools = {pool.name for pool in fleet.pools if scope.pools is None or scope.pools.matches(pool.labels)}
    if scope.namespaces is None:
        return math.fsum(watts for pool, watts in plan.pool_watts.items() if pool in pools)
    inside = {key.namespace for key in plan.placements if scope.namespaces.matches(fleet.namespace_labels(key.namespace))}
    return math.fsum(
        load.watts for replica, load in plan.loads.items() if replica.server.pool in pools and replica.model.namespace in inside
    )


def shed_in(scope: WattLimit, fleet: Fleet, plan: Plan) -> tuple[ModelKey, ...]:
    """Models whose namespace is in a scope and that a watt limit keeps from a replica they should have."""
    return tuple(
        key
        for key in sorted(plan.missing_replicas)
        if (scope.namespaces is None or scope.namespaces.matches(fleet.namespace_labels(key.namespace)))
        and any(alternative.reason == Reason.WATT_LIMIT for alternative in plan.alternatives.get(key, ()))
    )


def budget_status(view: BudgetView) -> tuple[list[Fact], dict[str, Any]]:
    """The conditions, and the rest of the status."""
    if view.spec is None:
        message = view.refusal.message if view.refusal is not None else ""
        return [Fact("Accepted", False, "InvalidSpec", message)], {}
    accepted = _accepted(view.spec)
    limit = view.spec.limits.watts
    if limit is None or view.planned_watts is None:
        return [accepted], {}
    within = view.planned_watts <= limit
    shown = f"the plan takes {_figure(view.planned_watts)} W of {_figure(limit)} W"
    facts = [accepted, Fact("WithinBudget", within, "WithinLimit" if within else "OverLimit", shown)]
    if view.spec.enforcement == "Enforce":
        facts.append(_feasible(view))
    body = {"projected": float(_figure(view.planned_watts).replace(",", "")), "provenance": "assumed"}
    return facts, body


def _accepted(spec: EnergyBudgetSpec) -> Fact:
    rest = [
        name
        for name, value in (("kilowattHours", spec.limits.kilowatt_hours), ("carbonGrams", spec.limits.carbon_grams))
        if value is not None
    ]
    if spec.limits.watts is None:
        held = f"limits.{' and limits.'.join(rest)} limit nothing yet; only limits.watts is held, by planning"
        return Fact("Accepted", False, "NotImplemented", held)
    if rest:
        return Fact(
            "Accepted", True, "WattsOnly", f"limits.watts is planned for; limits.{' and limits.'.join(rest)} are not held yet"
        )
    if spec.enforcement == "Observe":
        return Fact("Accepted", True, "Accepted", "observed only: nothing gives way")
    return Fact("Accepted", True, "Accepted", "watts are those of the profiles; plans stay below 0.95 of the limit")


def _feasible(view: BudgetView) -> Fact:
    if view.over_watts > 0:
        return Fact(
            "Feasible",
            False,
            "ServersAlone",
            f"the servers that always run take {_figure(view.over_watts)} W too much: lower servers.min or raise limits.watts",
        )
    if view.shed:
        return Fact("Feasible", False, "ModelsShed", f"no watts are left for {_named(view.shed)}")
    return Fact("Feasible", True, "Feasible")


def _named(keys: Sequence[ModelKey]) -> str:
    shown = ", ".join(str(key) for key in keys[:SHOWN_MODELS])
    return shown + (f" and {len(keys) - SHOWN_MODELS} more" if len(keys) > SHOWN_MODELS else "")


def _figure(watts: float) -> str:
    """Three digits: a status is not rewritten for less."""
    if watts <= 0:
        return "0"
    places = _DIGITS - 1 - math.floor(math.log10(watts))
    rounded = round(watts, places)
    return f"{rounded:,.{max(0, places)}f}"
