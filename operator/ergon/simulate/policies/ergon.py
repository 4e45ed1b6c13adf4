"""`ergon`, and `clairvoyant`: the operator's planner and moves, driven by a demand.

Every minute what stands is mended, and what nothing needs goes; now and then better places are sought, at most ten moves a stage,
each before what it replaces goes. Every ten seconds a look: where requests wait or come too late, or more comes than the plan
counts on, replicas are added, and only added.
"""

from dataclasses import replace

from ergon.fleet.types import Fleet, ModelKey, Replica
from ergon.planning import Effort, Plan
from ergon.reconcile import rearranging
from ergon.simulate.demand import DemandSource
from ergon.simulate.policies.base import Observed, Target

PLAN_SECONDS = 60.0
LOOK_SECONDS = 10.0


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
        self._plan: Plan | None = None
        self._next = 0.0

    @property
    def planned_watts(self) -> float | None:
        """Of the last plan."""
        return self._plan.watts if self._plan is not None else None

    def start(self, now_seconds: float) -> Target:
        """A plan for the demand at the start, standing."""
        self._demand = self._source.forecast(now_seconds)
        self._fleet = replace(self._fleet, peaks=self._source.peaks(now_seconds))
        nothing = replace(self._fleet, demand=self._demand, current=())
        self._take(rearranging.improve(nothing, None, self._effort).plan)
        self._next = now_seconds + PLAN_SECONDS
        return self._target()

    def decide(self, observed: Observed) -> Target | None:
        """A plan each minute, and more replicas where it is urgent."""
        self._source.observe(observed)
        now = observed.now_seconds
        if now < self._next - 1e-6:
            return self._more(now)
        self._next = now + PLAN_SECONDS
        self._demand = self._source.forecast(now)
        self._fleet = replace(self._fleet, peaks=self._source.peaks(now))
        current = self._current()
        leaving = tuple(sorted(observed.present - set(current), key=lambda replica: (replica.model, replica.server)))
        fleet = replace(self._fleet, demand=self._demand, current=current, leaving=leaving)
        if now < self._improve_at - 1e-6:
            self._take(rearranging.mend(fleet, self._plan, observed.moving))
            return self._target()
        way = rearranging.improve(fleet, self._plan, self._effort, observed.moving)
        self._take(way.plan)
        if not way.moving:
            self._improve_at = now + self._improve_seconds
        return self._target()

    def _take(self, made: Plan) -> None:
        self._plan, self._placements = made, dict(made.placements)

    def _current(self) -> tuple[Replica, ...]:
        return tuple(replica for replicas in self._placements.values() for replica in replicas)

    def _more(self, now: float) -> Target | None:
        """The fast path: what is short of replicas gets some now, and nothing else moves."""
        urgent = self._source.urgent(now)
        if not urgent:
            return None
        demand = {key: max(work, urgent.get(key, 0.0)) for key, work in self._demand.items()}
        made = rearranging.grow(replace(self._fleet, demand=demand, current=self._current()), None)
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
