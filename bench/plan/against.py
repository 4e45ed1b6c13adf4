"""Watts against simpler planners, at equal shortfall: ours plans for exactly what theirs came to serve."""

from dataclasses import dataclass, replace

from tests.planning.judge import broken_constraints, tiers

from bench.plan.baselines import BASELINES
from bench.plan.measure import measured
from ergon.fleet.types import Fleet, Model, ModelKey
from ergon.planning import Effort, Plan

SMALL_DIFFERENCE = 1e-6


@dataclass(frozen=True)
class Against:
    """One instance against one simpler planner. `problem`: why there is no comparison, or what is wrong with it."""

    baseline: str
    ratio: float
    short: bool
    bound_kept: bool
    problem: str


def against(fleet: Fleet, effort: Effort) -> list[Against]:
    """Every simpler planner on one fleet: our watts over theirs for the same served work."""
    return [_against(fleet, name, planner(fleet), effort) for name, planner in BASELINES.items()]


def _against(fleet: Fleet, name: str, theirs: Plan, effort: Effort) -> Against:
    if wrong := broken_constraints(fleet, theirs):
        return Against(name, 0.0, short=False, bound_kept=True, problem=f"not valid: {wrong[0]}")
    short = any(missing or unserved > 0 for _, missing, unserved in tiers(fleet, theirs))
    same = served_by(fleet, theirs) if short else fleet
    ours = measured(same, effort)
    if ours.wrong:
        return Against(name, 0.0, short, bound_kept=True, problem=f"ours is not valid: {ours.wrong[0]}")
    if ours.short:
        return Against(name, 0.0, short, bound_kept=True, problem="ours is short where theirs is not")
    kept = ours.plan.lower_bound_watts <= theirs.watts * (1 + SMALL_DIFFERENCE)
    return Against(name, ours.plan.watts / theirs.watts if theirs.watts else 1.0, short, kept, "")


def served_by(fleet: Fleet, made: Plan) -> Fleet:
    """The fleet asking only for what a plan serves, and for the replicas it has."""
    demand = {key: sum(made.loads[replica].work_per_second for replica in placed) for key, placed in made.placements.items()}
    kept = {key: min(fleet.demand.get(key, 0.0), work) for key, work in demand.items()}
    return replace(fleet, demand=kept, models=tuple(_with_least(model, made.missing_replicas) for model in fleet.models))


def _with_least(model: Model, missing: dict[ModelKey, int]) -> Model:
    if model.key not in missing:
        return model
    least = model.fixed_replicas if model.fixed_replicas is not None else model.min_replicas
    fixed = None if model.fixed_replicas is None else least - missing[model.key]
    return replace(model, min_replicas=least - missing[model.key], fixed_replicas=fixed)
