"""`ergon`, and `clairvoyant`: the operator's planner and moves, driven by a demand.

Every minute a plan is made from what stands: mended at once while anything is under way, else improved, at most ten moves a
stage, each before what it replaces goes. Every ten seconds a look: where requests wait or come too late, or more comes than the
plan counts on, replicas are added, and only added.
"""

from dataclasses import replace

from ergon.fleet.types import Fleet, ModelKey, Replica
from ergon.planning import Effort, Plan, plan
from ergon.planning.moves import moves, next_stage
from ergon.simulate.demand import DemandSource
from ergon.simulate.policies.base import Observed, Target

PLAN_SECONDS = 60.0
LOOK_SECONDS = 10.0
MOVES_AT_ONCE = 10


class Ergon:
    """Plans as the operator does."""

    alone = False
    interval_seconds = LOOK_SECONDS

    def __init__(
        self, name: str, fleet: Fleet, source: DemandSource, effort: Effort | None = None, improve_seconds: float = PLAN_SECONDS
    ) -> None:
        """Better places are sought every `improve_seconds`; in the plans between, what stands is mended."""
        self.name = name
        self._improve_seconds, self._improve_at = improve_seconds, 0.0
        self._fleet, self._source = fleet, source
        self._effort = effort or Effort.normal()
        self._placements: dict[ModelKey, tuple[Replica, ...]] = {}
        self._demand: dict[ModelKey, float] = {}
        self._current: tuple[Replica, ...] = ()
        self._plan: Plan | None = None
        self._next = 0.0

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
            improve = not observed.under_way and observed.now_seconds >= self._improve_at - 1e-6
            self._replan(improve=improve)
            if improve and moves(self._current, self._placements) == (0, 0):
                self._improve_at = observed.now_seconds + self._improve_seconds
            return self._target()
        return self._more(observed.now_seconds)

    def _replan(self, *, improve: bool) -> None:
        current = self._current = tuple(replica for replicas in self._placements.values() for replica in replicas)
        fleet = replace(self._fleet, demand=self._demand, current=current)
        self._plan = plan(fleet, effort=self._effort if improve else Effort.quick())
        self._placements = next_stage(fleet, self._plan, MOVES_AT_ONCE) if improve else self._plan.placements

    def _more(self, now: float) -> Target | None:
        """The fast path: what is short of replicas gets some now, and nothing else moves."""
        urgent = self._source.urgent(now)
        if not urgent:
            return None
        demand = {key: max(work, urgent.get(key, 0.0)) for key, work in self._demand.items()}
        current = tuple(replica for replicas in self._placements.values() for replica in replicas)
        made = plan(replace(self._fleet, demand=demand, current=current), effort=Effort.quick())
        grown = {}
        for key, stand in self._placements.items():
            held = {replica.server for replica in stand}
            grown[key] = (*stand, *(r for r in made.placements.get(key, ()) if key in urgent and r.server not in held))
        if grown == self._placements:
            return None
        self._placements, self._demand = grown, demand
        return self._target()

    def _target(self) -> Target:
        return Target(dict(self._placements))
