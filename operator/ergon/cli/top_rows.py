"""Statuses of models, pools and budgets as rows that a person reads. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ergon.cli.plan_rows import number

Object = dict[str, Any]
RISES = 1.2
"""A forecast so far above what is asked now is a rise worth an arrow; the same downwards."""
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model. Figures are NaN where its status says nothing of them."""

    name: str
    ready: str
    places: str
    replicas: str
    unit: str
    observed: float
    forecast: float
    headroom: float
    watts: float
    joules_per_request: float
    joules_per_thousand_tokens: float
    provenance: str

    @property
    def trend(self) -> str:
        """Where the demand goes: the forecast beside what is asked now."""
        if not (self.observed > 0 and self.forecast > 0):
            return NOTHING
        if self.forecast >= RISES * self.observed:
            return "up"
        return "down" if self.forecast * RISES <= self.observed else "level"


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool; figures are NaN where its status says nothing of them."""

    name: str
    accelerator: str
    servers: str
    models: int
    busy_share: float
    watts: float
    provenance: str


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One limit of a budget. `within` and `feasible`: True, False, or Unknown."""

    name: str
    limit: str
    used: float
    projected: float
    allowance: float
    within: str
    feasible: str
    provenance: str


def model_row(obj: Object) -> ModelRow:
    """A SpecializedModel as a row."""
    status = obj.get("status") or {}
    demand, energy = status.get("demand") or {}, status.get("energy") or {}
    placements = status.get("placements") or ()
    return ModelRow(
        name=f"{obj['metadata']['namespace']}/{obj['metadata']['name']}",
        ready=condition(obj, "Ready").get("reason", NOTHING),
        places=_places((p["pool"], p["server"]) for p in placements) or NOTHING,
        replicas=f"{status.get('readyReplicas', 0)}/{status.get('replicas', 0)}",
        unit=demand.get("unit", "requests"),
        observed=_figure(demand, "observed"),
        forecast=_figure(demand, "forecast"),
        headroom=_figure(demand, "headroom"),
        watts=_figure(energy, "watts"),
        joules_per_request=_figure(energy, "joulesPerRequest"),
        joules_per_thousand_tokens=_figure(energy, "joulesPerThousandTokens"),
        provenance=energy.get("provenance", NOTHING),
    )


def ordered(rows: Iterable[ModelRow], by: str) -> list[ModelRow]:
    """By name, or by a figure, largest first; unknown figures come last."""

    def rank(row: ModelRow) -> tuple[bool, float, str]:
        figure = {"watts": row.watts, "joules": row.joules_per_request, "demand": row.observed}.get(by, math.nan)
        return math.isnan(figure), 0.0 if math.isnan(figure) else -figure, row.name

    return sorted(rows, key=rank)


def pool_row(obj: Object) -> PoolRow:
    """An AcceleratorPool as a row."""
    status = obj.get("status") or {}
    servers = status.get("servers") or {}
    accelerator = obj["spec"]["accelerator"]
    return PoolRow(
        name=obj["metadata"]["name"],
        accelerator=accelerator.get("product") or accelerator["class"],
        servers=f"{servers.get('ready', 0)}/{servers.get('desired', 0)}",
        models=status.get("models", 0),
        busy_share=_figure(status, "busyShare"),
        watts=_figure(status, "watts"),
        provenance=status.get("provenance", NOTHING),
    )


def budget_row(obj: Object) -> BudgetRow:
    """An EnergyBudget as a row."""
    status, limits = obj.get("status") or {}, obj["spec"].get("limits") or {}
    said = [
        f"{number(limits[name])} {unit}" + (f" a {limits['window'].lower()}" if name != "watts" and "window" in limits else "")
        for name, unit in (("watts", "W"), ("kilowattHours", "kWh"), ("carbonGrams", "g CO2"))
        if name in limits
    ]
    return BudgetRow(
        name=obj["metadata"]["name"],
        limit=", ".join(said),
        used=_figure(status, "used"),
        projected=_figure(status, "projected"),
        allowance=_figure(status, "allowance"),
        within=condition(obj, "WithinBudget").get("status", "Unknown"),
        feasible=condition(obj, "Feasible").get("status", "Unknown"),
        provenance=status.get("provenance", NOTHING),
    )


def condition(obj: Object, kind: str) -> Object:
    """A condition of an object; empty where it has none."""
    found: Object = next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == kind), {})
    return found


def shown(figure: float, unit: str = "") -> str:
    """A figure as it stands in a table; a dash where it is not known."""
    return NOTHING if math.isnan(figure) else number(figure) + unit


def percent(share: float) -> str:
    """A share as a percentage; a dash where it is not known."""
    return NOTHING if math.isnan(share) else f"{share:.0%}"


def share_of(figure: float, all_of: Sequence[float]) -> float:
    """Of the sum of all known figures; NaN where that is 0 or the figure is not known."""
    total = math.fsum(one for one in all_of if not math.isnan(one))
    return figure / total if total > 0 else math.nan


def _figure(part: Object, name: str) -> float:
    value = part.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _places(servers: Iterable[tuple[str, int]]) -> str:
    by_pool: dict[str, list[int]] = {}
    for pool, ordinal in servers:
        by_pool.setdefault(pool, []).append(ordinal)
    return "; ".join(f"{pool} {','.join(str(n) for n in sorted(mine))}" for pool, mine in sorted(by_pool.items()))
