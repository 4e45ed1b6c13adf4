"""An account of joules, and what a figure rests on."""

import math
from collections.abc import Iterable
from enum import StrEnum

JOULES_PER_KILOWATT_HOUR = 3.6e6

ASSUMED_BEYOND = 0.05
"""A figure of which more than this share was assumed is called assumed: one gap in a month does not make it so."""


class Provenance(StrEnum):
    """What a figure rests on: a meter, the split of a metered device by busy time, or a profile alone."""

    MEASURED = "measured"
    DERIVED = "derived"
    ASSUMED = "assumed"


def weakest(provenances: Iterable[Provenance]) -> Provenance:
    """What a sum of figures rests on: the weakest of them; of none, ASSUMED."""
    order = tuple(Provenance)
    return max(provenances, key=order.index, default=Provenance.ASSUMED)


class Account:
    """Joules summed without loss over millions of additions (Neumaier's compensated sum), and how many were assumed."""

    __slots__ = ("_lost", "_sum", "assumed_joules")

    def __init__(self, joules: float = 0.0, assumed_joules: float = 0.0) -> None:
        self._sum = joules
        self._lost = 0.0
        self.assumed_joules = assumed_joules

    @property
    def joules(self) -> float:
        """The sum."""
        return self._sum + self._lost

    @property
    def assumed_share(self) -> float:
        """Of the sum, 0 to 1."""
        total = abs(self.joules)
        return min(1.0, self.assumed_joules / total) if total > 0 else 0.0

    def add(self, joules: float, assumed_joules: float = 0.0) -> None:
        """Book joules, of which some were assumed."""
        total = self._sum + joules
        if abs(self._sum) >= abs(joules):
            self._lost += (self._sum - total) + joules
        else:
            self._lost += (joules - total) + self._sum
        self._sum = total
        self.assumed_joules += assumed_joules

    def provenance(self, otherwise: Provenance = Provenance.DERIVED) -> Provenance:
        """ASSUMED where more than a twentieth was, else what the rest is."""
        return Provenance.ASSUMED if self.assumed_share > ASSUMED_BEYOND else otherwise


def is_figure(value: float | None) -> bool:
    """Whether a value that came from outside can be a figure at all: finite and not negative."""
    return value is not None and math.isfinite(value) and value >= 0
