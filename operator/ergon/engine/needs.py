"""What the scope of each energy budget asks for, by planning without limits: all of it, and what is served in any case; and who
is left out where a limit has no room but for that.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.budget import Needs
from ergon.energy.giving_way import Saving, Way
from ergon.energy.guard import PLANNED_SHARE
from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Variant, WattLimit
from ergon.planning import Alternative, Effort, Plan, plan
from ergon.planning.candidates import Reason, judge
from ergon.planning.priorities import with_capped_priorities
from ergon.reconcile.budgets import scope_of, scope_watts, shed_in

ROOM_TO_RETURN = 1.05
"""Times what is protected takes that a limit must leave before anybody that was shed comes back."""
LEAST_SAVING_WATTS = 0.05
"""Of a model whose shedding is worth telling."""


def needs_of(fleet: Fleet, budgets: Mapping[str, EnergyBudgetSpec]) -> dict[str, Needs]:
    """By budget. One plan for all that is asked, and one for each `shedBelowPriority` that leaves somebody out.

    Who is above it is a matter of the priority that counts, which pools cap: else any tenant could call itself protected.
    """
    if not budgets:
        return {}
    fleet = replace(with_capped_priorities(fleet), watt_limits=())
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


def outright(
    budgets: Mapping[str, EnergyBudgetSpec],
    limits: Mapping[str, float | None],
    needs: Mapping[str, Needs],
    before: Collection[str],
) -> frozenset[str]:
    """Budgets that have no more room than what is protected takes: all that may be shed is, whatever a plan thinks it takes.

    A plan counts by its profiles, and what is measured may be more: held to the least that it counts for what is protected, it
    would go on to place others there. `before`: those that were so at the last plan; they stay until there is some room.
    """
    found = set()
    for name, spec in budgets.items():
        watts = limits.get(name, spec.limits.watts)
        if watts is not None and spec.enforcement == "Enforce" and spec.shed_below_priority > 0:
            margin = ROOM_TO_RETURN if name in before else 1.0
            if watts * PLANNED_SHARE <= needs[name].protected_watts * margin:
                found.add(name)
    return frozenset(found)


def left_out(fleet: Fleet, budgets: Mapping[str, EnergyBudgetSpec], outright: Collection[str]) -> dict[ModelKey, str]:
    """The models that those budgets shed, each with the budget's name: those that can run nowhere but where the limit reaches.

    Of one that could run elsewhere, planning finds out.
    """
    found: dict[ModelKey, str] = {}
    fleet = with_capped_priorities(fleet) if outright else fleet
    for name in sorted(outright):
        spec, scope = budgets[name], scope_of(name, budgets[name])
        inside = [pool for pool in fleet.pools if _reaches(scope, pool)]
        outside = [pool for pool in fleet.pools if not _reaches(scope, pool)]
        for model in fleet.models:
            if model.priority >= spec.shed_below_priority or not model.wanted_replicas or not _inside(model, scope, fleet):
                continue
            if not outside or (_may_run(fleet, model, inside) and not _may_run(fleet, model, outside)):
                found.setdefault(model.key, name)
    return found


def _reaches(scope: WattLimit, pool: Pool) -> bool:
    return scope.pools is None or scope.pools.matches(pool.labels)


def _may_run(fleet: Fleet, model: Model, pools: Collection[Pool]) -> bool:
    """Whether any variant has a candidate among these pools."""
    return any(judge(fleet, model, variant, pool) is None for pool in pools for variant in model.variants)


def without(fleet: Fleet, models: Collection[ModelKey]) -> Fleet:
    """The fleet as if these models were not."""
    if not models:
        return fleet
    return replace(
        fleet,
        models=tuple(model for model in fleet.models if model.key not in models),
        current=tuple(replica for replica in fleet.current if replica.model not in models),
    )


def with_left_out(made: Plan, fleet: Fleet, shed: Mapping[ModelKey, str], budgets: Mapping[str, EnergyBudgetSpec]) -> Plan:
    """A plan that was made without some models, which says of them that they have no replica, and why."""
    if not shed:
        return made
    models = {model.key: model for model in fleet.models if model.key in shed}
    scopes = {name: scope_of(name, budgets[name]) for name in set(shed.values())}
    alternatives = {
        key: tuple(
            _against(fleet, model, variant, pool, shed[key], scopes[shed[key]])
            for pool in fleet.pools
            for variant in model.variants
            if pool.accelerator_class in variant.accelerators
        )
        for key, model in models.items()
    }
    demand = {key: fleet.demand.get(key, 0.0) for key in models}
    return replace(
        made,
        placements={**made.placements, **dict.fromkeys(models, ())},
        missing_replicas={**made.missing_replicas, **{key: model.wanted_replicas for key, model in models.items()}},
        unserved={**made.unserved, **{key: work for key, work in demand.items() if work > 0}},
        alternatives=_Over(alternatives, made.alternatives),
    )


def _against(fleet: Fleet, model: Model, variant: Variant, pool: Pool, budget: str, scope: WattLimit) -> Alternative:
    """Why a model that was left out is not on a pool: the budget, where its limit reaches, else what is against the pool."""
    rejection = None if _reaches(scope, pool) else judge(fleet, model, variant, pool)
    if rejection is not None:
        return Alternative(pool.name, variant.name, "Rejected", rejection.reason, rejection.message)
    return Alternative(pool.name, variant.name, "Rejected", Reason.WATT_LIMIT, f"budget {budget} has no watts but for others")


class _Over(Mapping[ModelKey, tuple[Alternative, ...]]):
    """Some alternatives laid over a plan's, which are made when they are looked at."""

    def __init__(
        self, over: Mapping[ModelKey, tuple[Alternative, ...]], under: Mapping[ModelKey, tuple[Alternative, ...]]
    ) -> None:
        self._over, self._under = over, under

    def __getitem__(self, key: ModelKey) -> tuple[Alternative, ...]:
        return self._over[key] if key in self._over else self._under[key]

    def __iter__(self) -> Iterator[ModelKey]:
        yield from self._over
        yield from (key for key in self._under if key not in self._over)

    def __len__(self) -> int:
        return len(self._over) + sum(key not in self._over for key in self._under)


def _servers_watts(scope: WattLimit, fleet: Fleet) -> float:
    """Of the servers that always run; a scope of namespaces holds none."""
    if scope.namespaces is not None:
        return 0.0
    watts = []
    for pool in fleet.pools:
        if _reaches(scope, pool):
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
    return tuple(
        Saving(Way.SHED, saved, (key,), models[key].priority)
        for key, saved in sorted(watts.items())
        if saved >= LEAST_SAVING_WATTS
    )


def _inside(model: Model, scope: WattLimit, fleet: Fleet) -> bool:
    return scope.namespaces is None or scope.namespaces.matches(fleet.namespace_labels(model.key.namespace))
