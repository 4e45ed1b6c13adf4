"""The story of `ergon top` and `ergon explain`: read the cluster's statuses, print them."""

import asyncio
import json
import math
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from ergon.cli.cluster import patient_client
from ergon.cli.tables import TROUBLE, console, table
from ergon.cli.top_rows import (
    BudgetRow,
    ModelRow,
    PoolRow,
    budget_row,
    condition,
    model_row,
    ordered,
    percent,
    pool_row,
    share_of,
    shown,
)
from ergon.fleet.types import ModelKey
from ergon.kube.client import KubeClient
from ergon.kube.errors import Forbidden, KubeError, NotFound

Object = dict[str, Any]
API_VERSION = "ergon.dev/v1alpha1"
WIDTH = 140
_KINDS = {"models": "SpecializedModel", "pools": "AcceleratorPool", "budgets": "EnergyBudget"}
_VERDICTS = {"Chosen": 0, "Feasible": 1, "Rejected": 2}


def show_top(what: str, namespace: str, sort: str, limit: int, *, as_json: bool, context: str | None) -> int:
    """Print the tables; the exit code."""
    kinds = _KINDS if what == "all" else {what: _KINDS[what]}
    try:
        found = asyncio.run(_read(kinds, namespace, context))
    except KubeError as error:
        if isinstance(error, Forbidden) and error.code == 403 and "models" in kinds and not namespace:
            typer.echo("ergon: you may not read models of all namespaces; -n NAMESPACE shows those of one", err=True)
            return 1
        return _cannot(error)
    for name in (name for name in kinds if name not in found):
        hint = "; -n NAMESPACE shows those of one" if name == "models" and not namespace else ""
        typer.echo(f"ergon: note: you may not read {name}, so none is shown{hint}", err=True)
    models = ordered((model_row(obj) for obj in found.get("models", ())), sort)
    pools = sorted((pool_row(obj) for obj in found.get("pools", ())), key=lambda row: row.name)
    budgets = sorted((budget_row(obj) for obj in found.get("budgets", ())), key=lambda row: row.name)
    if as_json:
        rows = {
            "models": [asdict(row) for row in models],
            "pools": [asdict(row) for row in pools],
            "budgets": [asdict(row) for row in budgets],
        }
        typer.echo(json.dumps({name: [_plain(row) for row in rows[name]] for name in found}, indent=2))
        return 0
    with console(WIDTH) as out:
        if pools:
            out.print(_pools(pools), "")
        if "models" in found:
            _print_models(out, models, limit)
        if budgets:
            out.print(_budgets(budgets), "")
        if what != "all" and not (models or pools or budgets):
            out.print(f"there are no {what}")
    return 0


def show_explanation(name: str, context: str | None) -> int:
    """Print everything that is known of why a model is where it is; the exit code."""
    namespace, _, rest = name.rpartition("/")
    key = ModelKey(namespace or "default", rest)
    try:
        obj = asyncio.run(_get(key, context))
    except NotFound:
        typer.echo(f"ergon: there is no SpecializedModel {key}; kubectl get sm -A lists them", err=True)
        return 1
    except KubeError as error:
        return _cannot(error)
    with console(WIDTH) as out:
        _print_explanation(out, obj)
    return 0


def _cannot(error: KubeError) -> int:
    typer.echo(f"ergon: the cluster cannot be read: {' '.join(error.message.split())[:300]}", err=True)
    return 1


async def _read(kinds: dict[str, str], namespace: str, context: str | None) -> dict[str, list[Object]]:
    async with await patient_client(context) as client:
        return await list_kinds(client, kinds, namespace)


async def list_kinds(client: KubeClient, kinds: dict[str, str], namespace: str) -> dict[str, list[Object]]:
    """The objects of these kinds, without those kinds that the person may not read. Raises Forbidden where that is none."""
    within = {kind: namespace or None if kind == "SpecializedModel" else None for kind in kinds.values()}
    asked = (client.list_all(API_VERSION, kind, within[kind]) for kind in kinds.values())
    answers = dict(zip(kinds, await asyncio.gather(*asked, return_exceptions=True), strict=True))
    found = {name: answer for name, answer in answers.items() if not isinstance(answer, BaseException)}
    troubles = [answer for answer in answers.values() if isinstance(answer, BaseException)]
    for trouble in troubles:
        if not isinstance(trouble, Forbidden) or not found:
            raise trouble
    return found


async def _get(key: ModelKey, context: str | None) -> Object:
    async with await patient_client(context) as client:
        return await client.get(API_VERSION, "SpecializedModel", key.name, key.namespace)


def _pools(rows: list[PoolRow]) -> Table:
    figures = ("SERVERS", "MODELS", "BUSY", "WATTS")
    made = table("POOL", "ACCELERATOR", *figures, "FIGURES", right=figures)
    for row in rows:
        made.add_row(
            row.name,
            row.accelerator,
            row.servers,
            str(row.models),
            percent(row.busy_share),
            shown(row.watts),
            row.provenance,
        )
    return made


def _print_models(out: Console, rows: list[ModelRow], limit: int) -> None:
    figures = ("REPLICAS", "WORK/S", "FORECAST", "FREE", "WATTS", "SHARE", "J/REQUEST", "J/1K TOKENS")
    made = table("MODEL", "ON", "STATE", *figures, "TREND", "FIGURES", right=figures)
    watts = [row.watts for row in rows]
    cut = rows[:limit] if limit else rows
    for row in cut:
        made.add_row(
            row.name,
            row.places,
            row.ready,
            row.replicas,
            shown(row.observed),
            shown(row.forecast),
            percent(row.headroom),
            shown(row.watts),
            percent(share_of(row.watts, watts)),
            shown(row.joules_per_request),
            shown(row.joules_per_thousand_tokens),
            row.trend,
            row.provenance,
            style=None if row.ready in ("Ready", "Asleep", "ScaledToZero") else TROUBLE,
        )
    if rows:
        out.print(made)
    if len(rows) > len(cut):
        out.print(f"and {len(rows) - len(cut)} more; --limit 0 or -o json shows all")
    out.print()


def _budgets(rows: list[BudgetRow]) -> Table:
    figures = ("USED", "PROJECTED", "ALLOWED NOW")
    made = table("BUDGET", "LIMIT", *figures, "WITHIN", "FEASIBLE", "FIGURES", right=figures)
    for row in rows:
        made.add_row(
            row.name,
            row.limit,
            shown(row.used),
            shown(row.projected),
            shown(row.allowance),
            row.within,
            row.feasible,
            row.provenance,
            style=TROUBLE if "False" in (row.within, row.feasible) else None,
        )
    return made


def _print_explanation(out: Console, obj: Object) -> None:
    row, status, spec = model_row(obj), obj.get("status") or {}, obj["spec"]
    ready = condition(obj, "Ready")
    out.print(f"{row.name}: {spec['task']}, priority {spec.get('priority', 100)}", style="bold")
    said = f": {ready['message']}" if ready.get("message") else ""
    out.print(
        f"Ready {ready.get('status', 'Unknown')}, {ready.get('reason', 'the operator has said nothing yet')}{said}",
        style=None if ready.get("status") == "True" else TROUBLE,
    )
    for other in (c for c in status.get("conditions") or () if c["type"] != "Ready" and _wrong(c)):
        out.print(f"{other['type']} {other['status']}, {other['reason']}: {other.get('message', '')}", style=TROUBLE)
    out.print()
    alternatives = sorted(
        status.get("alternatives") or (), key=lambda a: (_VERDICTS.get(a["verdict"], 3), a["pool"], a["variant"])
    )
    reasons = {(a["pool"], a["variant"]): a for a in alternatives if a["verdict"] == "Chosen"}
    out.print("Why here", style="bold")
    for placement in status.get("placements") or ():
        chosen = reasons.get((placement["pool"], placement["variant"]))
        why = f"{chosen['reason']}, {chosen.get('message', '')}" if chosen else placement.get("message", "")
        out.print(f"  {placement['pool']}-{placement['server']} {placement['variant']}, {placement['state']}: {why}")
    if not status.get("placements"):
        out.print("  on no server")
    out.print("Why this many", style="bold")
    demand = status.get("demand") or {}
    out.print(f"  {row.replicas} replicas ready; {demand.get('message') or 'nothing is known of its demand yet'}")
    if demand:
        capacity = f", {shown(float(demand['capacity']))} can be served" if "capacity" in demand else ""
        out.print(
            f"  asked {shown(row.observed)} {row.unit}/s, {shown(row.forecast)} forecast ({demand.get('method', '')}){capacity}"
        )
    if "energy" in status:
        out.print("What it takes", style="bold")
        each = f", {shown(row.joules_per_request)} J a request" if not math.isnan(row.joules_per_request) else ""
        out.print(f"  {shown(row.watts)} W{each} ({row.provenance})")
    others = [a for a in alternatives if a["verdict"] != "Chosen"]
    if others:
        out.print("Why not there", style="bold")
        listed = table("  POOL", "VARIANT", "VERDICT", "REASON", "MESSAGE", wide="MESSAGE")
        for item in others:
            listed.add_row(f"  {item['pool']}", item["variant"], item["verdict"], item["reason"], item.get("message", ""))
        out.print(listed)


def _wrong(one: Object) -> bool:
    """Whether a condition says that something is not as it should be: Reconciling and Stalled when True, others when not."""
    return bool((one["status"] == "True") == (one["type"] in ("Reconciling", "Stalled")))


def _plain(row: Object) -> Object:
    """Without figures that are not known: JSON has no NaN."""
    return {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
