"""A simulated day of small changes of demand: how much planning moves, from what stands and from nothing each time."""

import math
import random
from dataclasses import dataclass, field, replace

from tests.planning.judge import broken_constraints

from bench.plan.generator import instance
from bench.plan.measure import moves, replicas
from bench.plan.shapes import Size, Style
from ergon.fleet.types import Fleet, ModelKey, Replica
from ergon.planning import Effort, Plan, plan
from ergon.reconcile.rearranging import mend

FLEET = Size(500, 12, 250)
CHANGED = 0.2
"""Share of the models whose demand changes in a step."""
STEP = 0.04
"""Standard deviation of one change, as a share; demand drifts back to its mean."""
SWING = 0.15
"""How far the day's peak is above its mean, as a share."""


@dataclass
class Day:
    """What a way of planning came to."""

    moves: int = 0
    short_seconds: float = 0.0
    watts: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    standing: tuple[Replica, ...] = ()

    def add(self, fleet: Fleet, made: Plan, seconds: float, *, first: bool) -> None:
        """One more plan, in force for so long."""
        if not first:
            self.moves += moves(self.standing, made)
            short = sum(1 for work in made.unserved.values() if work > 0) + sum(made.missing_replicas.values())
            self.short_seconds += seconds * short
        self.wrong += broken_constraints(fleet, made)[:1]
        self.watts.append(made.watts)
        self.standing = replicas(made)


def day(seed: int, hours: float, step_minutes: float) -> tuple[Day, Day]:
    """Both ways over the same demands: from what stands, as the operator mends it, and from nothing."""
    fleet = instance(FLEET, Style.MIXED, seed, 0.8)
    chance = random.Random(seed)
    steady, anew = Day(), Day()
    stands: Plan | None = None
    drift = dict.fromkeys(fleet.demand, 0.0)
    for step in range(int(hours * 60 / step_minutes) + 1):
        asked = replace(fleet, demand=_demand(fleet, drift, step * step_minutes / 60))
        stands = mend(replace(asked, current=steady.standing), stands) if stands is not None else plan(asked)
        steady.add(asked, stands, 60 * step_minutes, first=step == 0)
        anew.add(asked, plan(asked, effort=Effort.normal()), 60 * step_minutes, first=step == 0)
        for key in chance.sample(sorted(drift), math.ceil(CHANGED * len(drift))):
            drift[key] = 0.9 * drift[key] + chance.gauss(0.0, STEP)
    return steady, anew


def _demand(fleet: Fleet, drift: dict[ModelKey, float], hour: float) -> dict[ModelKey, float]:
    """Demand at an hour: the mean, the day's swing, the drift. At most the generated demand, which the fleet can serve."""
    swing = (1 - SWING * math.cos(2 * math.pi * hour / 24)) / (1 + SWING)
    return {key: work * swing * min(1.0, math.exp(drift[key] - 0.1)) for key, work in fleet.demand.items()}
