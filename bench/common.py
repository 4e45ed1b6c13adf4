"""What every bench shares: a cluster of its own, percentiles, and a report with bars."""

import argparse
import asyncio
import json
import math
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ergon.kube.errors import KubeError
from ergon.triton.errors import TritonError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


class BenchFailed(Exception):
    """What was to be measured did not come about; the text says what and where to look."""


@dataclass(frozen=True)
class Bar:
    """A figure that should be at most `limit`."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def reached(self) -> bool:
        """Whether the bar is kept."""
        return self.value <= self.limit


@dataclass
class Report:
    """The figures of one run, in the order they were found."""

    name: str
    figures: list[tuple[str, float, str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def figure(self, name: str, value: float, unit: str) -> None:
        """Note a figure."""
        self.figures.append((name, value, unit))

    def bar(self, name: str, value: float, limit: float, unit: str) -> None:
        """Note a figure that has a bar."""
        self.bars.append(Bar(name, value, limit, unit))

    def note(self, text: str) -> None:
        """Say something a reader of the figures must know."""
        self.notes.append(text)

    def finish(self, arguments: argparse.Namespace) -> None:
        """Print the table and write the JSON."""
        machine = machine_facts()
        table = Table(title=f"{self.name}, {machine['date']}, {machine['cores']} cores", title_justify="left")
        for column in ("figure", "value", "bar", ""):
            table.add_column(column, justify="right" if column in ("value", "bar") else "left")
        for bar in self.bars:
            verdict = "[green]reached[/]" if bar.reached else "[red]not reached[/]"
            table.add_row(bar.name, show(bar.value, bar.unit), show(bar.limit, bar.unit), verdict)
        for name, value, unit in self.figures:
            table.add_row(name, show(value, unit), "", "")
        console.print(table)
        for note in self.notes:
            console.print(f"  {note}")
        document = {
            "bench": self.name,
            "machine": machine,
            "arguments": vars(arguments),
            "bars": [
                {"name": b.name, "value": b.value, "limit": b.limit, "unit": b.unit, "reached": b.reached} for b in self.bars
            ],
            "figures": [{"name": name, "value": value, "unit": unit} for name, value, unit in self.figures],
            "notes": self.notes,
            "details": self.details,
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{self.name}.json").write_text(json.dumps(document, indent=2) + "\n")


def show(value: float, unit: str) -> str:
    """A figure for a person."""
    digits = 0 if value == int(value) and abs(value) < 1e9 else 3 if abs(value) < 10 else 1
    return f"{value:,.{digits}f} {unit}".strip()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("no values to take a percentile of")
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not {share:g}")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def machine_facts() -> dict[str, Any]:
    """What the figures depend on, as far as the machine tells."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    done = subprocess.run(("git", "rev-parse", "--short", "HEAD"), cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def say(text: str) -> None:
    """One line of progress."""
    console.print(f"[bold cyan]==>[/] {text}")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with what every bench takes; `doc` is the module's docstring."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--cluster", default="bench", help="name of the local cluster, which is made anew and taken down")
    made.add_argument("--keep", action="store_true", help="leave the cluster up at the end, to look around")
    made.add_argument("--seed", type=int, default=1, help="seed of everything that is drawn by chance")
    return made


def run_bench(
    module: str, arguments: argparse.Namespace, bench: Callable[[argparse.Namespace, Report], Coroutine[Any, Any, None]]
) -> int:
    """Run a bench inside a cluster of its own; the exit code. `module` is its name below `bench`.

    Outside a cluster it makes one and starts itself anew in the cluster's network, where pods and Services have addresses.
    """
    if os.environ.get("ERGON_CLUSTER") != arguments.cluster:
        return _in_own_cluster(module, arguments)
    random.seed(arguments.seed)
    report = Report(module)
    try:
        asyncio.run(bench(arguments, report))
    except (BenchFailed, KubeError, TritonError) as problem:
        console.print(f"[bold red]{module}:[/] {problem}")
        return 1
    report.finish(arguments)
    return 0


def _in_own_cluster(module: str, arguments: argparse.Namespace) -> int:
    ergon = [sys.executable, "-m", "ergon.local"]
    named = ["--name", arguments.cluster]
    subprocess.run([*ergon, "down", *named], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    if subprocess.run([*ergon, "up", *named], cwd=ROOT, check=False).returncode:
        return 1
    try:
        inside = [*ergon, "exec", *named, "--", sys.executable, "-m", f"bench.{module}", *sys.argv[1:]]
        return subprocess.run(inside, cwd=ROOT, check=False).returncode
    finally:
        if not arguments.keep:
            subprocess.run([*ergon, "down", *named], cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
