"""Results of `ergon simulate`, as a table and as JSON. Pure but for printing."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ergon.planning.arrays import Floats
from ergon.simulate.results import ModelResult, Result
from ergon.simulate.settings import Settings

Json = dict[str, Any]


def print_results(results: Sequence[Result]) -> None:
    """A row a policy."""
    console = Console(highlight=False, width=None if Console().is_terminal else 150)
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = (
        "POLICY",
        "KWH",
        "J/REQUEST",
        "MEAN W",
        "IN TIME",
        "WORST MODEL",
        "WORST 5 MIN",
        "REFUSED",
        "LOADS",
        "STARTS",
        "SIZE",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("POLICY", "WORST MODEL", "SIZE") else "right", no_wrap=True)
    for result in results:
        worst = result.worst_model
        table.add_row(
            result.policy,
            f"{result.accounts.kwh:,.2f}",
            f"{result.joules_per_request:,.1f}",
            f"{result.mean_watts:,.0f}",
            _share(result.within_share, 0.99),
            f"{_share(worst.within_share, 0.97)} {worst.name}" if worst is not None else "-",
            _share(result.worst_window, 0.90),
            f"{result.refused:,}",
            f"{result.loads:,}",
            f"{result.boots:,}",
            result.size,
        )
    console.print(table)
    console.print()
    for line in _words(results):
        console.print(line)


def _words(results: Sequence[Result]) -> list[str]:
    first = results[0]
    said = [f"{first.requests:,} requests in {first.seconds / 3600:,.1f} hours, seed {first.seed}"]
    if first.mode == "rate":
        said.append(
            "rate mode: requests are a flow and queueing is by formula; in time where the rule for p95 holds; no latencies"
        )
    else:
        said.append("request mode: every request is simulated; one that is refused or never answered counts as late")
    said += [f"{result.policy}: {note}" for result in results for note in result.notes]
    return said


def _share(share: float, least: float) -> str:
    text = f"{share * 100:.2f}%"
    return text if share >= least else f"[red]{text}[/]"


def results_to_json(results: Sequence[Result], settings: Settings) -> Json:
    """All of it; series are per step."""
    return {
        "mode": results[0].mode,
        "seed": results[0].seed,
        "assumed": asdict(settings),
        "policies": [_result(r) for r in results],
    }


def _result(result: Result) -> Json:
    series = result.series
    worst = result.worst_model
    return {
        "policy": result.policy,
        "size": result.size,
        "seconds": result.seconds,
        "requests": result.requests,
        "withinTarget": result.within_share,
        "worstModel": {"model": worst.name, "withinTarget": worst.within_share} if worst is not None else None,
        "worstFiveMinutes": result.worst_window,
        "refused": result.refused,
        "kilowattHours": result.accounts.kwh,
        "joulesPerRequest": result.joules_per_request,
        "meanWatts": result.mean_watts,
        "joules": {**asdict(result.accounts), "total": result.accounts.total},
        "poolJoules": dict(zip(result.pools, result.pool_joules, strict=True)),
        "loads": result.loads,
        "unloads": result.unloads,
        "serverStarts": result.boots,
        "policySeconds": round(result.solver_seconds, 2),
        "models": [_model(model) for model in result.models],
        "series": {
            "seconds": series.seconds.tolist(),
            "requestsPerSecond": _numbers(series.requests_per_s),
            "watts": _numbers(series.watts),
            "plannedWatts": _numbers(series.planned_watts),
            "latencyShareOfTarget": _numbers(series.latency_share),
            "servers": {pool: series.servers[:, p].astype(int).tolist() for p, pool in enumerate(result.pools)},
            "replicas": {pool: series.replicas[:, p].astype(int).tolist() for p, pool in enumerate(result.pools)},
        },
        "notes": list(result.notes),
    }


def _model(model: ModelResult) -> Json:
    said: Json = {
        "model": model.name,
        "requests": model.requests,
        "withinTarget": model.within_share,
        "refused": model.refused,
        "executionJoules": model.joules,
    }
    if model.p95_seconds is not None:
        said |= {"p50Seconds": model.p50_seconds, "p95Seconds": model.p95_seconds, "p99Seconds": model.p99_seconds}
    return said | {"targetSeconds": model.target_seconds}


def _numbers(values: Floats) -> list[float | None]:
    return [None if math.isnan(value) else round(float(value), 4) for value in values]
