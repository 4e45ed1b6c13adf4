"""How good, how fast and how steady plans are, on fleets drawn by seed. No cluster is needed.

Parts: optima (tiny fleets against exact optima), table (sizes x styles), replan (one change), against (simpler planners),
steadiness (a simulated day), profile (where the time goes). One part alone goes to results/plan_<part>.json.
"""

import argparse
import sys
from collections.abc import Callable

from bench.common import Report, say
from bench.plan import parts
from bench.plan.shapes import Style

PARTS: dict[str, Callable[[argparse.Namespace, Report], None]] = {
    "optima": parts.run_optima,
    "table": parts.run_table,
    "replan": parts.run_replan,
    "against": parts.run_against,
    "steadiness": parts.run_steadiness,
    "profile": parts.run_profile,
}


def main() -> int:
    """Entry point."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cluster", help=argparse.SUPPRESS)
    options.add_argument("--seed", type=int, default=1, help="the first seed")
    options.add_argument("--seeds", type=int, default=3, help="seeds a size and style")
    options.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS), help="parts to run; none: all")
    options.add_argument("--sizes", nargs="*", default=["tiny", "small", "mid", "large"], help="sizes of the table")
    options.add_argument("--styles", nargs="*", type=Style, default=list(Style), help="styles of the table and of against")
    options.add_argument("--optima", type=int, default=1000, help="tiny fleets of each kind")
    options.add_argument("--replans", type=int, default=20, help="changes of each kind")
    options.add_argument("--hours", type=float, default=24.0, help="length of the simulated day")
    options.add_argument("--step-minutes", type=float, default=15.0, help="time between two plans of the day")
    arguments = options.parse_args()
    report = Report("plan" if len(arguments.only) != 1 else f"plan_{arguments.only[0]}")
    for name in arguments.only:
        say(name)
        PARTS[name](arguments, report)
    report.finish(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
