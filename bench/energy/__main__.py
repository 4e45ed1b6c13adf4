"""Energy of a fleet of forty models by policy: a day simulated request by request, after two days to learn from.

python -m bench.energy                              the day that varies 3:1, seeds 0 to 4
python -m bench.energy --days flat 3:1 10:1         all shapes
python -m bench.energy --seeds 1 --scale 0.2        quickly, for a look
"""

import argparse
import statistics
import sys
from pathlib import Path
from time import process_time

from bench.common import RESULTS, Report, console, say
from bench.energy import fleet, streams, thresholds
from ergon.simulate.report import About, page
from ergon.simulate.results import Result
from ergon.simulate.run import Job, Simulation
from ergon.simulate.settings import Settings

POLICIES = ("ergon", "clairvoyant", "static", "hpa", "dedicated", "cost", "general-hpa", "general", "bound")
TOTALS = {"conv": 18.0, "code": 3.0, "text": 6.0}
"""Requests per second at scale 1: clairvoyant then keeps twenty servers and more."""
IMPROVE_SECONDS = 300.0
"""Ergon mends its plan every minute, and seeks better places every five: a fresh plan takes a quarter of a second of CPU."""


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
    arguments = options.parse_args()
    report = Report("energy")
    report.note("encoders' arrivals are synthetic; L4, host and idle watts, prices (2026-11) and load times are assumed")
    for shape in arguments.days:
        found = [run(arguments, shape, seed) for seed in range(arguments.seed, arguments.seed + arguments.seeds)]
        judge(report, shape, found)
    report.finish(arguments)
    return 0


def run(arguments: argparse.Namespace, shape: str, seed: int) -> list[Result]:
    """All policies on one day; the page is written beside the figures."""
    built, kinds = fleet.build(arguments.watts_factor, scale_in=not arguments.no_scale_in)
    totals = {kind: rate * arguments.scale for kind, rate in TOTALS.items()}
    workload = streams.build(built.models, kinds, totals, shape, seed)
    begin = streams.LEARNT_DAYS * streams.DAY
    job = Job(
        built, workload, Settings(), arguments.mode, seed, begin, begin + arguments.hours * 3600,
        general=fleet.GENERAL, improve_seconds=IMPROVE_SECONDS, clock=process_time,
    )  # fmt: skip
    simulation = Simulation(job)
    results = []
    for policy in arguments.policies:
        began = process_time()
        result = simulation.simulate(policy)
        results.append(result)
        worst = result.worst_model
        say(
            f"{shape}, seed {seed}, {policy}: {result.accounts.kwh:.1f} kWh, in time {result.within_share:.2%}, worst "
            f"{worst.within_share if worst else 1:.2%}, servers {result.series.servers.sum(axis=1).mean():.1f}, "
            f"{process_time() - began:.0f} s of CPU, the policy's own {result.solver_seconds:.0f} s {result.size}"
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = f"energy_{shape.replace(':', '-')}_{seed}.html"
    about = About(f"Forty models, day {shape}", job.settings, remarks=("Encoders' arrivals are synthetic.",))
    Path(RESULTS / name).write_text(page(results, about))
    return results


def judge(report: Report, shape: str, found: list[list[Result]]) -> None:
    """Figures and bars of one shape of day; policies that miss their target are shown, not compared."""
    runs = {result.policy: [seed[place] for seed in found] for place, result in enumerate(found[0])}
    for policy, results in runs.items():
        kwh = [result.accounts.kwh for result in results]
        report.figure(f"{shape} {policy}, kWh (of {min(kwh):.1f} to {max(kwh):.1f})", statistics.mean(kwh), "kWh")
        report.figure(f"{shape} {policy}, least in time", min(result.within_share for result in results) * 100, "%")
        report.figure(f"{shape} {policy}, least of a model", min(_worst(result) for result in results) * 100, "%")
    report.details[shape] = {
        policy: [
            {
                "kwh": r.accounts.kwh, "within": r.within_share, "worst_model": _worst(r), "worst_window": r.worst_window,
                "refused": r.refused, "loads": r.loads, "boots": r.boots, "size": r.size, "seed": r.seed,
                "servers": r.series.servers.sum(axis=1).mean(),
            }
            for r in results
        ]
        for policy, results in runs.items()
    }  # fmt: skip
    if "ergon" not in runs:
        return
    ours = runs["ergon"]
    report.bar(f"{shape} ergon, requests too late", 1 - min(r.within_share for r in ours), 1 - thresholds.LEAST_WITHIN, "")
    report.bar(f"{shape} ergon, of a model", 1 - min(map(_worst, ours)), 1 - thresholds.LEAST_WITHIN_EACH, "")
    report.bar(f"{shape} ergon, of five minutes", 1 - min(r.worst_window for r in ours), 1 - thresholds.LEAST_WITHIN_WINDOW, "")
    planned = max(abs(_planned(r) / r.mean_watts - 1) for r in ours)
    report.bar(f"{shape} ergon, planned watts beside simulated", planned, thresholds.PLANNED_AGAINST_SIMULATED, "")
    for policy, limit in thresholds.AGAINST.items():
        if policy not in runs:
            continue
        ratios = [mine.accounts.kwh / other.accounts.kwh - 1 for mine, other in zip(ours, runs[policy], strict=True)]
        if any(not _kept(other) for other in runs[policy]):
            report.note(f"{shape}: {policy} misses its target; against it {statistics.mean(ratios):+.1%}, which is no comparison")
            continue
        bar = thresholds.FLAT_AGAINST_STATIC if (shape, policy) == ("flat", "static") else limit
        report.bar(f"{shape} ergon against {policy} ({min(ratios):+.1%} to {max(ratios):+.1%})", statistics.mean(ratios), bar, "")
    ladder = [name for name in ("general", "dedicated", "static", "ergon") if name in runs]
    console.print(f"  {shape}, step by step: " + " -> ".join(
        f"{name} {statistics.mean(r.accounts.kwh for r in runs[name]):.1f} kWh" for name in ladder))  # fmt: skip


def _worst(result: Result) -> float:
    worst = result.worst_model
    return worst.within_share if worst is not None else 1.0


def _planned(result: Result) -> float:
    planned = result.series.planned_watts
    known = planned[planned == planned]  # NaN is not itself
    return float(known.mean()) if len(known) else result.mean_watts


def _kept(result: Result) -> bool:
    return result.within_share >= thresholds.LEAST_WITHIN and _worst(result) >= thresholds.LEAST_WITHIN_EACH


if __name__ == "__main__":
    sys.exit(main())
