"""Energy of a fleet of forty models by policy: a day simulated request by request, after two days to learn from.

python -m bench.energy                              the day that varies 3:1, seeds 0 to 4
python -m bench.energy --days flat 3:1 10:1         all shapes
python -m bench.energy --seeds 1 --scale 0.2        quickly, for a look

Each run is kept in bench/results/energy/ and not done again: ended and started anew, the bench goes on where it was (--again does
all of it). One seed takes some 25 minutes of a core: general, static, dedicated and cost are run some eight times each.
"""

import argparse
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path
from time import process_time

from bench.common import RESULTS, Report, console, say
from bench.energy import fleet, streams, thresholds
from bench.energy.kept import Kept
from ergon.planning import Effort
from ergon.simulate.run import Job, Simulation
from ergon.simulate.settings import Settings

POLICIES = ("ergon", "clairvoyant", "hpa", "dedicated", "static", "general-hpa", "general", "cost", "bound")
TOTALS = {"conv": 18.0, "code": 3.0, "text": 6.0}
"""Requests per second at scale 1: clairvoyant then keeps twenty servers and more."""
IMPROVE_SECONDS = 900.0
"""Ergon mends its plan every minute, and seeks better places every fifteen: two thirds of the planning's time, at every five."""
EFFORT = replace(Effort.normal(), pattern_rounds=0, caps=0, closings=50, rounds=40)
"""0.18 s a plan for the normal effort's 0.9, and no worse on this fleet: 5,215 W for 5,230 over eight hours of the day."""
ESCALATED = (0.05, 0.10, 0.20)
"""Of requests that a small model passes on to the general one: that much of `general` is charged to Ergon."""


def main() -> int:
    """Entry point."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cluster", help=argparse.SUPPRESS)
    options.add_argument("--seed", type=int, default=0, help="the first seed")
    options.add_argument("--seeds", type=int, default=5, help="how many")
    options.add_argument("--days", nargs="*", choices=list(streams.SWING), default=["3:1"], help="shapes of the day")
    options.add_argument("--policies", nargs="*", choices=POLICIES, default=list(POLICIES))
    options.add_argument("--scale", type=float, default=1.0, help="of all rates")
    options.add_argument("--hours", type=float, default=24.0, help="of the day that is measured, from midnight")
    options.add_argument("--mode", choices=("requests", "rate"), default="requests")
    options.add_argument("--watts-factor", type=float, default=1.0, help="on host and idle watts, which are assumed")
    options.add_argument("--no-scale-in", action="store_true", help="nodes that are not needed stay on")
    options.add_argument("--again", action="store_true", help="do all runs, also those that are kept")
    arguments = options.parse_args()
    report = Report("energy")
    report.note("encoders' arrivals are synthetic; L4, host and idle watts, prices (2026-11) and load times are assumed")
    for shape in arguments.days:
        found = [run(arguments, shape, seed) for seed in range(arguments.seed, arguments.seed + arguments.seeds)]
        judge(report, shape, found)
    report.finish(arguments)
    return 0


def run(arguments: argparse.Namespace, shape: str, seed: int) -> list[Kept]:
    """All policies on one day, those that are not kept yet simulated."""
    names = {policy: _file(arguments, shape, seed, policy) for policy in arguments.policies}
    kept = {} if arguments.again else {policy: Kept.read(path) for policy, path in names.items()}
    simulation: Simulation | None = None
    found = []
    for policy, path in names.items():
        figures = kept.get(policy)
        if figures is None:
            simulation = simulation or _simulation(arguments, shape, seed)
            began = process_time()
            figures = Kept.of(simulation.simulate(policy), process_time() - began)
            figures.write(path)
        found.append(figures)
        say(
            f"{shape}, seed {seed}, {policy}: {figures.kwh:.1f} kWh, in time {figures.within:.2%}, worst model "
            f"{figures.worst_model_within:.2%}, servers {sum(figures.servers.values()):.1f}, "
            f"{figures.cpu_seconds:.0f} s of CPU, the policy's own {figures.solver_seconds:.0f} s {figures.size}"
        )
    return found


def _file(arguments: argparse.Namespace, shape: str, seed: int, policy: str) -> Path:
    """Where a run is kept; the name says all that it depends on but the code."""
    what = [shape.replace(":", "-"), f"seed{seed}", f"scale{arguments.scale:g}", f"{arguments.hours:g}h", arguments.mode]
    what += [f"watts{arguments.watts_factor:g}"] * (arguments.watts_factor != 1) + ["stays-on"] * arguments.no_scale_in
    return RESULTS / "energy" / ("_".join([*what, policy]) + ".json")


def _simulation(arguments: argparse.Namespace, shape: str, seed: int) -> Simulation:
    built, kinds = fleet.build(arguments.watts_factor, scale_in=not arguments.no_scale_in)
    totals = {kind: rate * arguments.scale for kind, rate in TOTALS.items()}
    workload = streams.build(built.models, kinds, totals, shape, seed)
    begin = streams.LEARNT_DAYS * streams.DAY
    job = Job(
        built, workload, Settings(), arguments.mode, seed, begin, begin + arguments.hours * 3600,
        general=fleet.GENERAL, effort=EFFORT, improve_seconds=IMPROVE_SECONDS, clock=process_time,
    )  # fmt: skip
    return Simulation(job)


def judge(report: Report, shape: str, found: list[list[Kept]]) -> None:
    """Figures and bars of one shape of day; policies that miss their target are shown, not compared."""
    runs = {result.policy: [seed[place] for seed in found] for place, result in enumerate(found[0])}
    for policy, results in runs.items():
        kwh = [result.kwh for result in results]
        report.figure(f"{shape} {policy}, kWh (of {min(kwh):.1f} to {max(kwh):.1f})", statistics.mean(kwh), "kWh")
        report.figure(f"{shape} {policy}, least in time", min(result.within for result in results) * 100, "%")
        report.figure(f"{shape} {policy}, least of a model", min(r.worst_model_within for r in results) * 100, "%")
    report.details[shape] = {policy: [asdict(result) for result in results] for policy, results in runs.items()}
    if "ergon" not in runs:
        return
    ours = runs["ergon"]
    report.bar(f"{shape} ergon, requests too late", 1 - min(r.within for r in ours), 1 - thresholds.LEAST_WITHIN, "")
    report.bar(f"{shape} ergon, of a model", 1 - min(r.worst_model_within for r in ours), 1 - thresholds.LEAST_WITHIN_EACH, "")
    report.bar(f"{shape} ergon, of five minutes", 1 - min(r.worst_window for r in ours), 1 - thresholds.LEAST_WITHIN_WINDOW, "")
    planned = max(abs((r.planned_watts or r.mean_watts) / r.mean_watts - 1) for r in ours)
    report.bar(f"{shape} ergon, planned watts beside simulated", planned, thresholds.PLANNED_AGAINST_SIMULATED, "")
    for policy, limit in thresholds.AGAINST.items():
        if policy in runs:
            _against(report, shape, policy, limit, ours, runs[policy])
    ladder = [name for name in ("general", "dedicated", "static", "ergon", "clairvoyant", "bound") if name in runs]
    console.print(f"  {shape}, step by step: " + " -> ".join(
        f"{name} {statistics.mean(r.kwh for r in runs[name]):.1f} kWh" for name in ladder))  # fmt: skip


def _against(report: Report, shape: str, policy: str, limit: float, ours: list[Kept], theirs: list[Kept]) -> None:
    ratios = [mine.kwh / other.kwh - 1 for mine, other in zip(ours, theirs, strict=True)]
    if not all(other.in_time for other in theirs):
        report.note(f"{shape}: {policy} misses its target; against it {statistics.mean(ratios):+.1%}, which is no comparison")
        return
    bar = thresholds.FLAT_AGAINST_STATIC if (shape, policy) == ("flat", "static") else limit
    report.bar(f"{shape} ergon against {policy} ({min(ratios):+.1%} to {max(ratios):+.1%})", statistics.mean(ratios), bar, "")
    if policy.startswith("general"):
        for share in ESCALATED:
            charged = statistics.mean(ratio + share for ratio in ratios)
            report.bar(f"{shape} ergon against {policy}, {share:.0%} of requests escalated to it", charged, bar, "")


if __name__ == "__main__":
    sys.exit(main())
