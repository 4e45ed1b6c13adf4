"""The truth about an energy budget, as a status: what of it is held, and what the plan takes of it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.giving_way import Way
from ergon.energy.verdict import BudgetReason, LimitKind, Verdict, figure, named
from ergon.fleet.types import Fleet, ModelKey, WattLimit
from ergon.planning.candidates import Reason
from ergon.planning.plan import Plan
from ergon.reconcile.figures import rounded
from ergon.reconcile.observed import Refusal
from ergon.reconcile.status import Fact


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget beside the plan and the ledger. `verdict`: what was decided of it, None before anything was booked.

    `over_watts`: above 0.95 x the limit, which the servers that always run take alone. `shed`: models in its scope that a
    watt limit leaves without a replica they should have.
    """

    spec: EnergyBudgetSpec | None
    refusal: Refusal | None
    verdict: Verdict | None = None
    over_watts: float = 0.0
    shed: tuple[ModelKey, ...] = ()


def scope_of(name: str, spec: EnergyBudgetSpec) -> WattLimit:
    """The scope of a budget as planning counts it, without a limit."""
    return WattLimit(name, math.inf, spec.pools, spec.namespaces)


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


def covers_models(spec: EnergyBudgetSpec, namespace_labels: dict[str, str], pools_labels: Iterable[dict[str, str]]) -> bool:
    """Whether a budget is enforced over models of a namespace on one of these pools."""
    inside = spec.namespaces is None or spec.namespaces.matches(namespace_labels)
    return (
        spec.enforcement == "Enforce"
        and inside
        and any(spec.pools is None or spec.pools.matches(labels) for labels in pools_labels)
    )


def gives_way(spec: EnergyBudgetSpec, verdict: Verdict) -> bool:
    """Whether a budget binds now: then a route that it covers may do with less, too."""
    if spec.enforcement != "Enforce" or verdict.watt_limit is None:
        return False
    return verdict.within_reason != BudgetReason.WITHIN_LIMIT or verdict.gives_way.way is not Way.NOTHING


def step_fits(verdict: Verdict, watts: float) -> bool:
    """Whether so many watts more fit into a budget's limit of watts now. Kilowatt-hours and grams say nothing of one moment."""
    limits = (limit for limit in verdict.limits if limit.kind is LimitKind.WATTS and limit.watts is not None)
    return all(limit.used + watts <= limit.limit for limit in limits)


def budget_status(view: BudgetView) -> tuple[list[Fact], dict[str, Any]]:
    """The conditions, and the rest of the status."""
    if view.spec is None:
        message = view.refusal.message if view.refusal is not None else ""
        return [Fact("Accepted", False, "InvalidSpec", message)], {}
    observed = view.spec.enforcement == "Observe"
    accepted = Fact("Accepted", True, "Accepted", "observed only: nothing gives way" if observed else "")
    if view.verdict is None:
        return [accepted], {}
    tightest = view.verdict.tightest
    body = {
        "used": rounded(tightest.used),
        "projected": rounded(tightest.projected),
        "allowance": rounded(tightest.allowance),
        "provenance": str(tightest.provenance),
    }
    return [accepted, _within(view, view.verdict), *([] if observed else [_feasible(view, view.verdict)])], body


def _within(view: BudgetView, verdict: Verdict) -> Fact:
    """Whether the limits are met, and who gives way for it."""
    reason, message = verdict.within_reason, verdict.within_message
    if view.shed:
        reason = BudgetReason.GIVING_WAY if verdict.within else reason
        message = f"{message}; no watts are left for {named(view.shed)}"
    return Fact("WithinBudget", verdict.within, str(reason), message)


def _feasible(view: BudgetView, verdict: Verdict) -> Fact:
    """Whether what is protected fits the limits."""
    if view.over_watts > 0:
        text = f"the servers that always run take {figure(view.over_watts)} W too much: lower servers.min or raise limits.watts"
        return Fact("Feasible", False, BudgetReason.SERVERS_ALONE, text)
    return Fact("Feasible", verdict.feasible, str(verdict.feasible_reason), verdict.feasible_message)
