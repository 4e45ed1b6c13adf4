"""`ergon`, and `clairvoyant`: the operator's planner and moves, driven by a demand.

Every minute a plan is made from what stands: mended at once while anything is under way, else improved, at most ten moves a
stage, each before what it replaces goes. Every ten seconds a look: where requests wait or come too late, or more comes than the
plan counts on, replicas are added, and only added.
"""

from dataclasses import replace

import numpy as np

from ergon.fleet.types import Fleet, ModelKey, Replica
from ergon.planning import Effort, Plan, plan
from ergon.planning.moves import next_stage
from ergon.simulate.demand import DemandSource
from ergon.simulate.policies.base import Observed, Target

PLAN_SECONDS = 60.0
LOOK_SECONDS = 10.0
MOVES_AT_ONCE = 10
MORE = 1.25
"""A model whose requests wait is planned for so much more than it asks."""

LATE_SHARE = 0.05


class Ergon:
    """Plans as the operator does."""

    alone = False
    interval_seconds = LOOK_SECONDS

    def __init__(self, name: str, fleet: Fleet, source: DemandSource, effort: Effort | None = None) -> None:
        self.name = name
        self._fleet, self._source = fleet, source
        self._effort = effort or Effort.normal()
        self._keys = [model.key for model in fleet.models]
        self._placements: dict[ModelKey, tuple[Replica, ...]] = {}
        self._demand: dict[ModelKey, float] = {}
        self._plan: Plan | None = None
        self._next = 0.0
        self._waited = np.zeros(len(self._keys))

    @property
    def planned_watts(self) -> float | None:
        """Of the last plan."""
        return self._plan.watts if self._plan is not None else None

    def start(self, now_seconds: float) -> Target:
        """A plan for the demand at the start, standing."""
        self._demand = self._source.forecast(now_seconds)
        self._plan = plan(replace(self._fleet, demand=self._demand, current=()), effort=self._effort)
        self._placements = self._plan.placements
        self._next = now_seconds + PLAN_SECONDS
        return self._target()

    def decide(self, observed: Observed) -> Target | None:
        """A plan each minute, and more replicas where it is urgent."""
        self._source.observe(observed)
        if observed.now_seconds >= self._next - 1e-6:
            self._next = observed.now_seconds + PLAN_SECONDS
            self._demand = self._source.forecast(observed.now_seconds)
            self._replan(improve=not observed.under_way)
            return self._target()
        return self._more(observed)

    def _replan(self, *, improve: bool) -> None:
        current = tuple(replica for replicas in self._placements.values() for replica in replicas)
        fleet = replace(self._fleet, demand=self._demand, current=current)
        self._plan = plan(fleet, effort=self._effort if improve else Effort.quick())
        self._placements = next_stage(fleet, self._plan, MOVES_AT_ONCE) if improve else self._plan.placements

    def _more(self, observed: Observed) -> Target | None:
        """The fast path: what is short of replicas gets some now."""
        asked = observed.work / max(observed.interval_seconds, 1e-9)
        waits = (observed.waiting > self._waited) & (observed.waiting > 2 * np.maximum(observed.requests, 1.0))
        late = observed.late > LATE_SHARE * np.maximum(observed.requests, 20.0)
        self._waited = observed.waiting
        urgent = waits | late
        if not urgent.any():
            return None
        demand = dict(self._demand)
        for m in np.flatnonzero(urgent):
            key = self._keys[m]
            demand[key] = max(demand.get(key, 0.0), float(asked[m])) * MORE
        current = tuple(replica for replicas in self._placements.values() for replica in replicas)
        made = plan(replace(self._fleet, demand=demand, current=current), effort=Effort.quick())
        grown = {
            key: (*stand, *(r for r in made.placements.get(key, ()) if r.server not in {old.server for old in stand}))
            for key, stand in self._placements.items()
        }
        if grown == self._placements:
            return None
        self._placements = grown
        self._demand = demand
        return self._target()

    def _target(self) -> Target:
        return Target(dict(self._placements))
