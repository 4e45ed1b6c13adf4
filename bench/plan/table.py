"""Sizes x styles: seconds, gap to the bound, and which instances fail."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.planning.compare import compared
from tests.planning.judge import tiers

from bench.plan.baselines import best_fit_consolidated
from bench.plan.generator import instance
from bench.plan.measure import Measured, measured, median, worst
from bench.plan.shapes import SIZES, ZIPFS, Style
from ergon.fleet.types import Fleet
from ergon.planning import Effort

EXACT_SECONDS = 20.0


@dataclass
class Cell:
    """All instances of one size and style, planned with one effort."""

    size: str
    style: Style
    effort: str
    runs: list[Measured] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def gaps(self) -> list[float]:
        """Gaps of the instances."""
        return [run.gap for run in self.runs]

    @property
    def seconds(self) -> list[float]:
        """Wall seconds of the instances."""
        return [run.seconds for run in self.runs]

    def row(self) -> dict[str, object]:
        """As JSON."""
        return {
            "size": self.size,
            "style": str(self.style),
            "effort": self.effort,
            "median_seconds": round(median(self.seconds), 4),
            "worst_seconds": round(worst(self.seconds), 4),
            "median_cpu_seconds": round(median([run.cpu_seconds for run in self.runs]), 4),
            "median_gap": round(median(self.gaps), 6),
            "worst_gap": round(worst(self.gaps), 6),
            "short": sum(run.short for run in self.runs),
            "failures": self.failures,
            "runs": [run.row() for run in self.runs],
        }


EFFORTS = {"quick": Effort.quick, "normal": Effort.normal, "thorough": Effort.thorough}


def cell(size: str, style: Style, effort: str, seeds: list[int]) -> Cell:
    """Plan the seeds x Zipf instances of a size and a style."""
    made = Cell(size, style, effort)
    for name, seed, zipf in instances(style, seeds):
        fleet = instance(SIZES[size], style, seed, zipf)
        run = measured(fleet, EFFORTS[effort]())
        made.runs.append(run)
        if run.wrong:
            made.failures.append(f"{name}: {run.wrong[0]}")
        elif wrong := _more_is_served(size, fleet, run):
            made.failures.append(f"{name}: {wrong}")
    return made


def _more_is_served(size: str, fleet: Fleet, run: Measured) -> str:
    """What shows that the plan's shortfall is not the least: an exact optimum of a tiny fleet, a simple planner's on others."""
    if size == "tiny":
        return compared(fleet, run.plan, EXACT_SECONDS).failure
    if not run.short or size == "large":  # a simple planner takes minutes there
        return ""
    ours = [(missing, unserved) for _, missing, unserved in tiers(fleet, run.plan)]
    theirs = [(missing, unserved) for _, missing, unserved in tiers(fleet, best_fit_consolidated(fleet))]
    for (missing, unserved), (least, least_unserved) in zip(ours, theirs, strict=True):
        if (missing, unserved) > (least, least_unserved * (1 + 1e-6)):
            return f"{missing} missing and {unserved:g} unserved, best fit leaves {least} and {least_unserved:g}"
        if (missing, unserved) < (least, least_unserved):
            return ""
    return ""


def instances(style: Style, seeds: list[int]) -> Iterator[tuple[str, int, float]]:
    """Names, seeds and Zipf exponents."""
    return ((f"{style} {seed} {zipf}", seed, zipf) for seed in seeds for zipf in ZIPFS)
