"""Plans of tiny fleets against exact optima: how many are optimal, and how far the worst is off."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.planning.compare import Compared, compared
from tests.planning.fleets import SOLVABLE, random_fleet

from bench.plan.generator import instance
from bench.plan.measure import measured
from bench.plan.shapes import SIZES, ZIPFS, Style
from ergon.fleet.types import Fleet
from ergon.planning import Effort

SOLVER_SECONDS = 30.0
FAR = 0.03


@dataclass
class Optima:
    """Tiny fleets of one kind: how their plans compare. `failures` and those `far` off name the seed."""

    tried: int = 0
    optimal: int = 0
    unknown: int = 0
    gaps: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    far: list[str] = field(default_factory=list)

    def add(self, name: str, fleet: Fleet) -> None:
        """Plan and compare one fleet."""
        self.tried += 1
        run = measured(fleet, Effort.normal())
        self.seconds.append(run.seconds)
        if run.wrong:
            self.failures.append(f"{name}: {run.wrong[0]}")
            return
        found: Compared = compared(fleet, run.plan, SOLVER_SECONDS)
        if found.failure:
            self.failures.append(f"{name}: {found.failure}")
        elif not found.known:
            self.unknown += 1
        else:
            self.optimal += found.optimal
            self.gaps.append(found.gap)
            if found.gap > FAR:
                self.far.append(f"{name}: {found.gap:.1%} above the optimum")


def by_chance(first: int, count: int) -> Iterator[tuple[str, Fleet]]:
    """Fleets with every field of the contract in them."""
    return ((f"chance {seed}", random_fleet(random.Random(seed), SOLVABLE)) for seed in range(first, first + count))


def generated(first: int, count: int) -> Iterator[tuple[str, Fleet]]:
    """The bench's own tiny fleets, every style in turn."""
    styles = list(Style)
    for seed in range(first, first + count):
        style, zipf = styles[seed % len(styles)], ZIPFS[seed // len(styles) % len(ZIPFS)]
        yield f"{style} {seed} {zipf}", instance(SIZES["tiny"], style, seed, zipf)


KINDS = {"every field, by chance": by_chance, "8 x 3 x 6, every style": generated}


def optima(kind: str, first: int, count: int) -> Optima:
    """Plan and compare `count` fleets of a kind."""
    found = Optima()
    for name, fleet in KINDS[kind](first, count):
        found.add(name, fleet)
    return found
