"""One plan, measured: seconds on the wall and of the processor, gap, moves, and whether it is valid."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.planning import law
from tests.planning.judge import broken_constraints, tiers, violations

from ergon.fleet.types import Fleet, Replica
from ergon.planning import Effort, Plan, plan

EXPLAINED_UP_TO = 2000
"""Models up to which a plan is judged with all its explanations; beyond, only what it places."""


@dataclass(frozen=True)
class Measured:
    """A plan and what it took."""

    plan: Plan
    seconds: float
    cpu_seconds: float
    gap: float
    moves: int
    short: bool
    wrong: tuple[str, ...]

    def row(self) -> dict[str, float | int | bool | list[str]]:
        """As JSON."""
        return {
            "seconds": round(self.seconds, 4),
            "cpu_seconds": round(self.cpu_seconds, 4),
            "gap": round(self.gap, 6),
            "moves": self.moves,
            "watts": round(self.plan.watts, 3),
            "bound_watts": round(self.plan.lower_bound_watts, 3),
            "short": self.short,
            "wrong": list(self.wrong[:3]),
            "notes": list(self.plan.notes[:3]),
        }


def measured(fleet: Fleet, effort: Effort, before: Plan | None = None) -> Measured:
    """Plan a fleet and judge the plan; `before`: the last plan, for planning again."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = plan(fleet, effort=effort, before=before)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    judge = violations if len(fleet.models) <= EXPLAINED_UP_TO else broken_constraints
    short = any(missing or unserved > 0 for _, missing, unserved in tiers(fleet, made))
    return Measured(made, wall, cpu, gap_of(fleet, made), moves(fleet.current, made), short, tuple(judge(fleet, made)))


def gap_of(fleet: Fleet, made: Plan) -> float:
    """How far the watts that could be saved at all are from the bound; 0 where nothing could."""
    sunk = sum(law.sunk_watts(pool) for pool in fleet.pools)
    room = made.lower_bound_watts - sunk
    above = made.watts - made.lower_bound_watts
    return above / room if room > 1e-9 * max(1.0, sunk) else above / max(1.0, made.lower_bound_watts)


def replicas(made: Plan) -> tuple[Replica, ...]:
    """Every replica of a plan."""
    return tuple(replica for placed in made.placements.values() for replica in placed)


def moves(before: Iterable[Replica], made: Plan) -> int:
    """Loads and unloads that lead from what stands to the plan."""
    return len(set(before) ^ set(replicas(made)))


def median(values: Sequence[float]) -> float:
    """The median, 0 of nothing."""
    return statistics.median(values) if values else 0.0


def worst(values: Sequence[float]) -> float:
    """The largest, 0 of nothing."""
    return max(values, default=0.0)
