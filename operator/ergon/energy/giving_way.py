"""In which order a fleet gives way to a budget: typed steps, each with what it saves."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from ergon.fleet.types import ModelKey


class Way(IntEnum):
    """What gives way, in this order; it comes back in reverse."""

    NOTHING = 0
    SPARE = 1
    VARIANT = 2
    BATCH = 3
    SHED = 4


WORDS = {
    Way.NOTHING: "nothing gives way",
    Way.SPARE: "spare capacity and idle servers go",
    Way.VARIANT: "models move to more efficient variants at or above minQuality",
    Way.BATCH: "batches grow within the latency target",
    Way.SHED: "models of lower priority are shed",
}


@dataclass(frozen=True, slots=True)
class Saving:
    """What one way saves, in watts at the wall. `models`: who gives way; `priority`: theirs, where it is shedding."""

    way: Way
    watts: float
    models: tuple[ModelKey, ...] = ()
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What gives way now: the savings taken in order, the watts they come to, and what is still missing."""

    savings: tuple[Saving, ...]
    watts: float
    missing_watts: float

    @property
    def way(self) -> Way:
        """How far it goes."""
        return max((saving.way for saving in self.savings), default=Way.NOTHING)

    @property
    def shed_priority(self) -> int | None:
        """The highest priority that is shed."""
        return max((s.priority for s in self.savings if s.way is Way.SHED and s.priority is not None), default=None)


def give_way(excess_watts: float, savings: Sequence[Saving], shed_below_priority: int) -> Given:
    """What has to give way for so many watts: spare and idle first, then variants, batches, and models below the priority
    that may be shed, the lowest first. Ties: the larger saving first. Never more than what it takes.
    """
    allowed = [s for s in savings if s.way is not Way.SHED or (s.priority is not None and s.priority < shed_below_priority)]
    taken: list[Saving] = []
    left = excess_watts
    for saving in sorted(allowed, key=lambda s: (s.way, s.priority or 0, -s.watts, s.models)):
        if left <= 0:
            break
        if saving.watts > 0 and saving.way is not Way.NOTHING:
            taken.append(saving)
            left -= saving.watts
    return Given(tuple(taken), sum(saving.watts for saving in taken), max(0.0, left))
