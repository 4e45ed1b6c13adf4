"""One page about a simulation: HTML with plots in it, which needs no network and no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from ergon.simulate import svg
from ergon.simulate.results import JOULES_PER_KWH, Result
from ergon.simulate.settings import Settings
from ergon.simulate.svg import Line

LADDER = (
    ("general", "one general model"),
    ("split", "a model a task"),
    ("dedicated", "fitting hardware"),
    ("static", "packed together"),
    ("ergon", "scaled by demand"),
)
"""The steps of the waterfall, each with the policy that has taken it."""

_ACCOUNTS = ("execution", "awake", "idle", "host", "loading", "pue")
_MODES = {
    "requests": "Request mode: every request and batch is simulated. Latencies are of these requests.",
    "rate": "Rate mode: requests are a flow, queueing and batches are by formula. There are no latencies; a request counts as in "
    "time where the planner's rule for p95 holds.",
}
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin:1.8em 0 .3em}p{margin:.3em 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid #8884}
td:first-child,th:first-child{text-align:left}.bad{color:#b00020;font-weight:600}
svg{width:100%;height:auto;font:11px system-ui,sans-serif;fill:currentColor}
.legend{font-size:.85em}.legend span{margin-right:1.2em;white-space:nowrap}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em}
.mode{background:#0072b218;padding:.5em .8em;border-left:4px solid #0072b2}
small,.note{color:#666}details{margin:.4em 0}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}small,.note{color:#aaa}}
"""


@dataclass(frozen=True, slots=True)
class About:
    """What a page says of its run: what was simulated, a budget's watts over everything where there is one, and remarks."""

    title: str
    settings: Settings
    limit: tuple[str, float] | None = None
    remarks: tuple[str, ...] = ()


def page(results: Sequence[Result], about: About) -> str:
    """The whole page."""
    runs = [result for result in results if result.policy != "bound"]
    first = next((result for result in runs if result.policy == "ergon"), runs[0] if runs else results[0])
    parts = [
        f"<h1>{escape(about.title)}</h1>",
        f'<p class="mode">{escape(_MODES[first.mode])} {escape(_span(first))}, seed {first.seed}.</p>',
        "<h2>Energy by policy</h2>",
        _energy(results),
        _verdict(results),
        "<h2>What each policy did</h2>",
        _table(results),
    ]
    steps = _ladder(results)
    if len(steps) > 1:
        parts += ["<h2>Where the saving comes from</h2>", svg.waterfall(steps, "kWh")]
    parts += _demand(first)
    parts += _over_time(runs, first, about)
    parts += ["<h2>Models</h2>", _models(first)]
    parts += ["<h2>What was assumed</h2>", _assumed(about), *(f'<p class="note">{escape(line)}</p>' for line in about.remarks)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(about.title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _span(result: Result) -> str:
    hours = result.seconds / 3600
    length = f"{hours / 24:.1f} days" if hours > 48 else f"{hours:.1f} hours"
    return f"{result.requests:,} requests in {length}"


def _energy(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        values = [getattr(result.accounts, name) / JOULES_PER_KWH for name in _ACCOUNTS]
        note = "a bound" if result.policy == "bound" else "" if _kept(result) else "(misses its target)"
        rows.append((result.policy, values, note))
    labels = ["executing", "awake", "idle", "host", "loading", "site (PUE)"]
    return svg.bars(rows, labels, "kWh")


def _kept(result: Result) -> bool:
    worst = result.worst_model
    return result.within_share >= 0.99 and (worst is None or worst.within_share >= 0.97)


def _verdict(results: Sequence[Result]) -> str:
    """Ergon against each other policy, in one sentence."""
    ergon = next((result for result in results if result.policy == "ergon"), None)
    if ergon is None:
        return ""
    said = []
    for other in results:
        if other is ergon or not other.accounts.total:
            continue
        change = ergon.accounts.total / other.accounts.total - 1
        way = "below" if change < 0 else "above"
        missed = "" if _kept(other) else ", which misses its target and is no comparison"
        said.append(f"{abs(change) * 100:.0f} % {way} {other.policy}{missed}")
    return f"<p>Ergon takes {escape('; '.join(said))}.</p>" if said else ""


def _table(results: Sequence[Result]) -> str:
    head = (
        "policy",
        "kWh",
        "J/request",
        "mean W",
        "in time",
        "worst model",
        "worst 5 min",
        "refused",
        "loads",
        "server starts",
        "size",
    )
    rows = []
    for result in results:
        worst = result.worst_model
        cells = [
            escape(result.policy),
            f"{result.accounts.kwh:,.2f}",
            f"{result.joules_per_request:,.1f}",
            f"{result.mean_watts:,.0f}",
            _share(result.within_share, 0.99),
            _share(worst.within_share, 0.97) + f" <small>{escape(worst.name)}</small>" if worst else "-",
            _share(result.worst_window, 0.90),
            f"{result.refused:,}",
            f"{result.loads:,}",
            f"{result.boots:,}",
            escape(result.size),
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    notes = "".join(f'<p class="note">{escape(r.policy)}: {escape(note)}</p>' for r in results for note in r.notes)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(rows)}</table>{notes}"


def _share(share: float, least: float) -> str:
    text = f"{share * 100:.2f} %"
    return text if share >= least else f'<span class="bad">{text}</span>'


def _ladder(results: Sequence[Result]) -> list[tuple[str, float]]:
    found = {result.policy: result for result in results}
    return [(f"{what} ({name})", found[name].accounts.kwh) for name, what in LADDER if name in found]


def _demand(first: Result) -> list[str]:
    series = first.series
    drawn = svg.lines(series.seconds, [Line("requests a second", series.requests_per_s)], "1/s")
    work = svg.lines(series.seconds, [Line("work, as a share of each model's own mean", series.work_share)], "x mean")
    return ["<h2>Demand</h2>", drawn, work]


def _over_time(runs: Sequence[Result], first: Result, about: About) -> list[str]:
    series = first.series
    watts = [Line(result.policy, result.series.watts) for result in runs if len(result.series.seconds) == len(series.seconds)]
    parts = ["<h2>Watts at the wall</h2>", svg.lines(series.seconds, watts, "W", about.limit)]
    for result in (first, *(run for run in runs if run is not first and run.series.replicas.any())):
        body = svg.stacked(result.series.seconds, result.series.replicas, result.pools, "replicas")
        body += svg.stacked(result.series.seconds, result.series.servers, result.pools, "servers on")
        if not np.isnan(result.series.planned_watts).all() and result.policy != "static":
            body += svg.lines(
                result.series.seconds,
                [Line("simulated", result.series.watts), Line("planned", result.series.planned_watts, dashed=True)],
                "W",
            )
        if not np.isnan(result.series.latency_share).all():
            late = np.minimum(result.series.latency_share, 3.0)
            body += svg.lines(
                result.series.seconds,
                [Line("p95 of latency, as a share of its target (shown up to 3)", late)],
                "",
                ("target", 1.0),
            )
        heading = f"Replicas by pool, and latency against the target: {escape(result.policy)}"
        if result is first:
            parts += [f"<h2>{heading}</h2>", body]
        else:
            parts.append(f"<details><summary>{heading}</summary>{body}</details>")
    return parts


def _models(result: Result) -> str:
    head = ("model", "requests", "in time", "p50", "p95", "p99", "target", "refused", "executing, kWh")
    rows = []
    for model in sorted(result.models, key=lambda m: (m.within_share, -m.requests)):
        if not model.requests:
            continue
        times = (model.p50_seconds, model.p95_seconds, model.p99_seconds, model.target_seconds)
        cells = [
            escape(model.name),
            f"{model.requests:,}",
            _share(model.within_share, 0.97),
            *("-" if seconds is None else _seconds(seconds) for seconds in times),
            f"{model.refused:,}",
            f"{model.joules / JOULES_PER_KWH:,.3f}",
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        f"<p>Under {escape(result.policy)}, those with most misses first.</p>"
        f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(rows)}</table>"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.3g} ms" if seconds < 1 else f"{seconds:,.3g} s"


def _assumed(about: About) -> str:
    s = about.settings
    said = (
        f"A replica is fetched at {s.fetch_bytes_per_second / 1e9:g} GB/s and loaded in {s.load_seconds:g} s and at "
        f"{s.load_bytes_per_second / 1e9:g} GB/s; a server takes its pool's bootDelay to come, or {s.server_start_seconds:g} s "
        f"on a node that is up; one that goes draws idle and host watts for offDelay. The gateway chooses by {s.balance}. A "
        "request that is refused or never answered counts as late. Watts come from the fleet's operating points, interpolated "
        "between them."
    )
    return f"<p>{escape(said)}</p>"
