"""The parts of the bench: each measures one thing and says which bars it has."""

import argparse
import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path

from bench.common import Report, say
from bench.plan import thresholds as bars
from bench.plan.against import against
from bench.plan.baselines import BASELINES
from bench.plan.generator import instance
from bench.plan.measure import measured, median, worst
from bench.plan.optima import KINDS, optima
from bench.plan.replan import Replanned, after_doubling, after_loss
from bench.plan.shapes import SIZES, ZIPFS, Style
from bench.plan.steadiness import day
from bench.plan.table import Cell, cell, instances
from ergon.planning import Effort, plan

MEMORY_BOUND = (Style.TIGHT_MEMORY, Style.MANY_IDLE)
CHANGES_A_FLEET = 4


def run_optima(arguments: argparse.Namespace, report: Report) -> None:
    """Tiny fleets against exact optima."""
    for kind in KINDS:
        found = optima(kind, arguments.seed, arguments.optima)
        known = found.tried - found.unknown
        report.bar(f"{kind}: not optimal, of {known}", known - found.optimal, 0, "")
        report.bar(f"{kind}: slowest plan", worst(found.seconds), bars.OPTIMA_SECONDS, "s")
        report.figure(f"{kind}: worst gap", 100 * worst(found.gaps), "%")
        report.figure(f"{kind}: more shortfall than needed, or not valid", len(found.failures), f"of {known}")
        report.details[f"optima, {kind}"] = {"failures": found.failures, "far": found.far, "unknown": found.unknown}


def run_table(arguments: argparse.Namespace, report: Report) -> None:
    """Sizes x styles."""
    rows = []
    for size in arguments.sizes:
        for style in arguments.styles if size != "large" else (Style.MIXED,):
            seeds = list(range(arguments.seed, arguments.seed + (arguments.seeds if size != "large" else 1)))
            for effort in ("normal", "thorough") if size == "mid" else ("normal",):
                made = cell(size, style, effort, seeds)
                rows.append(made.row())
                _bars_of(made, report)
                say(f"{size} {style} {effort}: {median(made.seconds):.2f} s, {100 * median(made.gaps):.2f} % {made.failures[:1]}")
    report.details["table"] = rows


def _bars_of(made: Cell, report: Report) -> None:
    size, gap, seconds = SIZES[made.size], 100 * median(made.gaps), worst(made.seconds)
    name = f"{size.of_style(made.style)} {made.style}" + (f", {made.effort}" if made.size == "mid" else "")
    report.bar(f"{name}: failed, of {len(made.runs)}", len(made.failures), 0, "")
    report.figure(f"{name}: worst gap", 100 * worst(made.gaps), "%")
    limits = _limits(made)
    for title, value, limit, unit in (("median gap", gap, limits[0], "%"), ("slowest", seconds, limits[1], "s")):
        if limit is None:
            report.figure(f"{name}: {title}", value, unit)
        else:
            report.bar(f"{name}: {title}", value, limit, unit)


def _limits(made: Cell) -> tuple[float | None, float | None]:
    """The bars of a cell: median gap in percent, seconds."""
    if made.size == "tiny":
        return None, bars.OPTIMA_SECONDS
    if made.size == "small":
        return 100 * bars.SMALL_MEDIAN_GAP, bars.SMALL_SECONDS
    if made.size == "large":
        return None, bars.LARGE_SECONDS
    if made.style in MEMORY_BOUND:
        return (100 * bars.MEMORY_GAP, bars.MEMORY_SECONDS) if made.effort == "thorough" else (None, None)
    if made.effort == "thorough":
        return 100 * bars.MID_THOROUGH_GAP, bars.MID_THOROUGH_SECONDS
    return 100 * bars.MID_GAP, bars.MID_SECONDS


def run_replan(arguments: argparse.Namespace, report: Report) -> None:
    """One change at 1,000 x 20 x 500, from the plan that stands."""
    kinds: dict[str, Callable[..., Replanned | None]] = {"demand doubled": after_doubling, "server lost": after_loss}
    found: dict[str, list[Replanned]] = {kind: [] for kind in kinds}
    seed = arguments.seed
    while seed < arguments.seed + 20 and any(len(runs) < arguments.replans for runs in found.values()):
        zipf = ZIPFS[seed % 2]
        fleet = instance(SIZES["mid"], Style.MIXED, seed, zipf)
        stands = plan(fleet)
        for kind, change in kinds.items():
            for which in range(CHANGES_A_FLEET):
                one = change(fleet, stands, which, Effort.quick())
                if one is not None and len(found[kind]) < arguments.replans:
                    found[kind].append(one)
        seed += 1
    for kind, runs in found.items():
        seconds, beyond = [one.run.seconds for one in runs], [float(max(0, one.run.moves - one.allowed)) for one in runs]
        report.bar(f"{kind}, worst of {len(runs)}: seconds", worst(seconds), bars.REPLAN_SECONDS, "s")
        report.bar(f"{kind}, worst of {len(runs)}: moves beyond its own", worst(beyond), bars.REPLAN_MOVES, "")
        report.figure(f"{kind}, median: seconds", median(seconds), "s")
        report.figure(f"{kind}, median: moves beyond its own", median(beyond), "")
        report.figure(f"{kind}: not valid", sum(1 for one in runs if one.run.wrong), f"of {len(runs)}")
        report.figure(f"{kind}: short", sum(1 for one in runs if one.run.short), f"of {len(runs)}")
        report.details[f"replan, {kind}"] = [{"change": one.change, "allowed": one.allowed, **one.run.row()} for one in runs]


def run_against(arguments: argparse.Namespace, report: Report) -> None:
    """Simpler planners, at equal shortfall."""
    ratios: dict[str, list[float]] = {name: [] for name in BASELINES}
    best: list[float] = []
    rows, problems, above = [], [], 0
    for size in [size for size in arguments.sizes if size in ("small", "mid")]:
        for style in arguments.styles:
            seeds = range(arguments.seed, arguments.seed + (arguments.seeds if size == "small" else 1))
            for name, seed, zipf in instances(style, list(seeds)):
                mine = against(instance(SIZES[size], style, seed, zipf), Effort.normal())
                sound = [one for one in mine if not one.problem]
                problems += [f"{size} {name} {one.baseline}: {one.problem}" for one in mine if one.problem]
                above += sum(not one.bound_kept for one in sound)
                for one in sound:
                    ratios[one.baseline].append(one.ratio - 1)
                    rows.append({"instance": f"{size} {name}", "baseline": one.baseline, "ratio": one.ratio, "short": one.short})
                best += [max(one.ratio for one in sound) - 1] if sound else []
            say(f"{size} {style}: {100 * median(best):.1f} % beside the best of them, so far")
    report.bar("beside the best simpler planner, median", 100 * median(best), 100 * bars.BELOW_BASELINES, "%")
    report.bar("beside the best simpler planner, worst", 100 * worst(best), 0, "%")
    report.bar("bounds above a valid plan", above, 0, "")
    report.bar("short or not valid where a simpler one is not", len(problems), 0, "")
    for name, found in ratios.items():
        report.figure(f"beside {name}, median of {len(found)}", 100 * median(found), "%")
    report.details["against"] = {"runs": rows, "problems": problems}


def run_steadiness(arguments: argparse.Namespace, report: Report) -> None:
    """A simulated day."""
    steady, anew = day(arguments.seed, arguments.hours, arguments.step_minutes)
    for name, one in (("from what stands", steady), ("from nothing", anew)):
        report.figure(f"day, {name}: moves an hour", one.moves / arguments.hours, "")
        report.figure(f"day, {name}: model-seconds short", one.short_seconds, "s")
        report.figure(f"day, {name}: mean watts", sum(one.watts) / len(one.watts), "W")
        report.figure(f"day, {name}: plans not valid", len(one.wrong), f"of {len(one.watts)}")
        report.details[f"day, {name}"] = one.wrong[:5]


def run_profile(arguments: argparse.Namespace, report: Report) -> None:
    """Where the time of one plan of 1,000 x 20 x 500 goes: seconds in each function itself."""
    fleet = instance(SIZES["mid"], Style.MIXED, arguments.seed, 0.8)
    measured(fleet, Effort.normal())
    profile = cProfile.Profile()
    profile.runcall(plan, fleet, effort=Effort.normal())
    stats = pstats.Stats(profile).get_stats_profile()
    report.figure("one plan under the profiler", stats.total_tt, "s")
    slowest = sorted(stats.func_profiles.items(), key=lambda item: -item[1].tottime)[:15]
    for name, one in slowest:
        report.figure(f"in {Path(one.file_name).name} {name}, {one.ncalls} calls", one.tottime, "s")
