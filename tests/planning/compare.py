"""How far a plan is from the exact optimum."""

from dataclasses import dataclass

from ergon.fleet.types import Fleet
from ergon.planning import Plan
from tests.planning import law
from tests.planning.exact import CLOSE, exact
from tests.planning.judge import tiers


@dataclass(frozen=True)
class Compared:
    """`failure`: what is wrong, empty for nothing. `gap`: watts above the optimum's, as a share. `known`: the solver ended."""

    failure: str
    gap: float
    known: bool

    @property
    def optimal(self) -> bool:
        """Whether nothing better exists, as far as a solver can tell."""
        return self.known and not self.failure and self.gap <= CLOSE


def compared(fleet: Fleet, made: Plan, seconds: float) -> Compared:
    """Compare a valid plan with the optimum; a solver that found nothing in its time leaves it unknown."""
    best = exact(fleet, seconds)
    if best is None or not best.proven:
        return Compared("", 0.0, known=False)
    for (priority, missing, unserved), (_, least, least_unserved) in zip(tiers(fleet, made), best.tiers, strict=True):
        slack = CLOSE * max(1e-6, *(law.demand_of(fleet, model.key) for model in fleet.models))
        if missing > least or (missing == least and unserved > least_unserved + slack):
            said = f"{missing} replicas missing and {unserved:g} unserved, {least} and {least_unserved:g} are possible"
            return Compared(f"priority {priority}: {said}", 0.0, known=True)
        if missing < least or unserved < least_unserved - slack:
            return Compared("", 0.0, known=False)  # the solver's tolerance, not a plan better than the best
    if made.lower_bound_watts > best.watts * (1 + CLOSE) + CLOSE:
        return Compared(f"bound {made.lower_bound_watts:g} W is above a plan of {best.watts:g} W", 0.0, known=True)
    gap = (made.watts - best.watts) / max(best.watts, 1e-9)
    return Compared("", gap, known=gap >= -CLOSE)  # a valid plan below what the solver calls the optimum: the solver is wrong
