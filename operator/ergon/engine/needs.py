"""What the scope of each energy budget asks for, by planning without limits: all of it, and what is served in any case."""

import math
from collections.abc import Mapping
from dataclasses import replace

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.budget import Needs
from ergon.energy.giving_way import Saving, Way
from ergon.energy.guard import PLANNED_SHARE
from ergon.fleet.types import Fleet, Model, ModelKey, WattLimit
from ergon.planning import Effort, Plan, plan
from ergon.reconcile.budgets import scope_of, scope_watts, shed_in


def needs_of(fleet: Fleet, budgets: Mapping[str, EnergyBudgetSpec]) -> dict[str, Needs]:
    """By budget. One plan for all that is asked, and one for each `shedBelowPriority` that leaves somebody out."""
    if not budgets:
        return {}
    fleet = replace(fleet, watt_limits=())
    effort = Effort.quick()
    everything = plan(fleet, effort=effort)
    protected: dict[int, Plan] = {}
    found = {}
    for name, spec in budgets.items():
        below = spec.shed_below_priority
        if below not in protected:
            kept = tuple(model for model in fleet.models if model.priority >= below)
            same = len(kept) == len(fleet.models)
            protected[below] = everything if same else plan(replace(fleet, models=kept), effort=effort)
        scope = scope_of(name, spec)
        needed = scope_watts(scope, fleet, everything)
        found[name] = Needs(
            needed_watts=needed,
            protected_watts=min(scope_watts(scope, fleet, protected[below]), needed),
            servers_watts=_servers_watts(scope, fleet),
            savings=_savings(scope, fleet, everything, below),
        )
    return found


def with_plan(needs: Needs, spec: EnergyBudgetSpec, name: str, fleet: Fleet, made: Plan) -> Needs:
    """The same beside what the plan in force takes. Whom it sheds stands alone among the savings: a person is told who."""
    scope = scope_of(name, spec)
    shed = set(shed_in(scope, fleet, made))
    savings = tuple(saving for saving in needs.savings if shed.intersection(saving.models)) or needs.savings
    return replace(needs, planned_watts=scope_watts(scope, fleet, made), savings=savings)


def held_to(
    budgets: Mapping[str, EnergyBudgetSpec], limits: Mapping[str, float | None], needs: Mapping[str, Needs]
) -> tuple[WattLimit, ...]:
    """The limits that a plan is made under: what each budget leaves now, or its watts before it was first judged.

    Never less than what is protected takes, which is served all the same, and said.
    """
    held = []
    for name, spec in budgets.items():
        watts = limits.get(name, spec.limits.watts)
        if watts is not None and spec.enforcement == "Enforce":
            least = needs[name].protected_watts / PLANNED_SHARE * (1 + 1e-6)
            held.append(WattLimit(name, max(watts, least), spec.pools, spec.namespaces))
    return tuple(held)


def _servers_watts(scope: WattLimit, fleet: Fleet) -> float:
    """Of the servers that always run; a scope of namespaces holds none."""
    if scope.namespaces is not None:
        return 0.0
    watts = []
    for pool in fleet.pools:
        if scope.pools is None or scope.pools.matches(pool.labels):
            servers = pool.servers_min if pool.scale_in else pool.servers_max
            nodes = -(-servers // pool.servers_per_node)
            watts.append(pool.pue * (pool.idle_watts * servers + pool.host_watts * nodes))
    return math.fsum(watts)


def _savings(scope: WattLimit, fleet: Fleet, everything: Plan, below: int) -> tuple[Saving, ...]:
    """What models of a lower priority take by executing, each: what shedding it saves at least."""
    models = {model.key: model for model in fleet.models if model.priority < below and _inside(model, scope, fleet)}
    watts: dict[ModelKey, float] = dict.fromkeys(models, 0.0)
    for replica, load in everything.loads.items():
        if replica.model in models:
            watts[replica.model] += load.watts
    return tuple(Saving(Way.SHED, saved, (key,), models[key].priority) for key, saved in sorted(watts.items()))


def _inside(model: Model, scope: WattLimit, fleet: Fleet) -> bool:
    return scope.namespaces is None or scope.namespaces.matches(fleet.namespace_labels(model.key.namespace))
