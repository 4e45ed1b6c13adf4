"""A plan as tables of at most 100 columns: pools, models, totals; what changes; and why a model is where it is."""

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ergon.cli.plan_diff import Change, Difference
from ergon.cli.plan_rows import model_rows, number, places, pool_rows, trouble_of
from ergon.cli.tables import TROUBLE, console, table
from ergon.fleet.types import Fleet, Model
from ergon.planning import Alternative, Plan

_TEXTS = 3
"""So many columns of the models' table are texts, the others figures."""
_SHORTEST = 10
_VERDICTS = ("Chosen", "Feasible", "Rejected")


def print_plan(fleet: Fleet, plan: Plan, seconds: float, *, limit: int, notes: Iterable[str], change: Difference | None) -> None:
    """Pools, at most `limit` models (0: all), totals, what changes, and what a person should know."""
    with console() as out:
        if change is not None:
            _print_change(out, change, limit)
        if fleet.pools:
            out.print(_pools(fleet, plan), "")
        if fleet.models:
            _print_models(out, fleet, plan, limit)
        _print_totals(out, plan, seconds)
        for name, watts in sorted(plan.over_limit_watts.items()):
            text = f"over limit: EnergyBudget {name} cannot be held, by {number(watts)} W above 95 % of its limit"
            out.print(text, style=TROUBLE)
        for note in notes:
            out.print(f"note: {note}", style="dim")


def print_explanations(fleet: Fleet, plan: Plan, models: Iterable[Model]) -> None:
    """Every alternative of the models."""
    with console() as out:
        for model in models:
            replicas = plan.placements.get(model.key, ())
            where = f"on {places(replicas)}" if replicas else "on no server"
            out.print(f"{model.key}: {number(fleet.demand.get(model.key, 0.0))} work/s, {where}", style="bold")
            trouble = trouble_of(fleet, plan, model.key)
            if trouble:
                out.print(trouble, style=TROUBLE)
            listed = table("POOL", "VARIANT", "VERDICT", "REASON", "MESSAGE", wide="MESSAGE")
            for item in sorted(plan.alternatives.get(model.key, ()), key=_telling):
                listed.add_row(item.pool, item.variant, item.verdict, str(item.reason), item.message)
            out.print(listed, "")


def _telling(item: Alternative) -> tuple[int, str, str]:
    return _VERDICTS.index(item.verdict), item.pool, item.variant


def _pools(fleet: Fleet, plan: Plan) -> Table:
    figures = ("SERVERS ON", "REPLICAS", "BUSY", "MEMORY", "WATTS", "PRICE/H", "G CO2/H")
    made = table("POOL", *figures, right=figures)
    for row in pool_rows(fleet, plan):
        made.add_row(
            row.name,
            f"{row.servers} of {row.servers_max}",
            str(row.replicas),
            _percent(row.busy_share) if row.servers else "-",
            _percent(row.memory_share) if row.servers else "-",
            number(row.watts),
            number(row.price_per_hour),
            number(row.grams_per_hour),
        )
    return made


def _print_models(console: Console, fleet: Fleet, plan: Plan, limit: int) -> None:
    """A line a model, and below it why; rich's tables have no cell that spans columns."""
    rows = model_rows(fleet, plan)
    shown = rows[:limit] if limit else rows
    cells = [
        (
            row.model,
            row.places or "-",
            row.variants or "-",
            str(row.replicas),
            number(row.work_per_second),
            _percent(row.busy_share) if row.replicas else "-",
            number(row.watts),
        )
        for row in shown
    ]
    header = ("MODEL, AND WHY THERE", "ON", "VARIANT", "REPLICAS", "WORK/S", "BUSY", "WATTS")
    first, *lines = _aligned([header, *cells], console.width)
    console.print(first, style="bold")
    for line, row in zip(lines, shown, strict=True):
        console.print(line, style=TROUBLE if row.in_trouble else None, no_wrap=True)
        console.print(Padding(Text(row.why, style=TROUBLE if row.in_trouble else "dim"), (0, 0, 0, 4)))
    if len(rows) > len(shown):
        short = sum(row.in_trouble for row in rows[len(shown) :])
        trouble = f", {short} of them in trouble" if short else ""
        console.print(f"and {len(rows) - len(shown)} more{trouble}; --limit 0 or -o json shows all")
    console.print()


def _aligned(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """Rows as lines of at most `width`: text to the left, figures to the right; of overlong texts the longest is cut."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths[:_TEXTS]) > _SHORTEST:
        widths[widths.index(max(widths[:_TEXTS]))] -= 1
    return [
        "  ".join(
            f"{_cut(cell, size):<{size}}" if place < _TEXTS else f"{cell:>{size}}"
            for place, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _print_totals(console: Console, plan: Plan, seconds: float) -> None:
    console.print(
        f"{number(plan.watts)} W, {number(plan.price_per_hour)} an hour, {number(plan.grams_per_hour)} g CO2 an hour; "
        f"planned in {seconds:.2f} s"
    )
    console.print(f"no plan that serves as much takes less than {number(plan.lower_bound_watts)} W; gap {plan.gap:.2%}")
    if plan.short:
        unserved = sum(1 for work in plan.unserved.values() if work > 0)
        missing = sum(plan.missing_replicas.values())
        said = [f"demand of {unserved} models is not all served"] if unserved else []
        said += [f"{missing} replicas are missing"] if missing else []
        console.print(" and ".join(said), style=TROUBLE)


def _print_change(console: Console, change: Difference, limit: int) -> None:
    console.print("Against the base:", style="bold")
    moves = [("load", replica) for replica in change.loads]
    moves += [("unload", replica) for replica in change.unloads]
    moves += [("reload", replica) for replica in change.reloads]
    moves.sort(key=lambda move: (move[1].model, move[0], move[1].server))
    for what, replica in moves[:limit] if limit else moves:
        console.print(f"  {what:<6} {replica.model} {replica.variant} on {replica.server}")
    if limit and len(moves) > limit:
        console.print(f"  and {len(moves) - limit} more moves; --limit 0 or -o json shows all")
    if not moves:
        console.print("  no replica moves")
    for name, pool in change.pools.items():
        if any(number(one.before) != number(one.after) for one in (pool.watts, pool.servers)):
            console.print(f"  pool {name}: {_arrow(pool.watts)} W, {_arrow(pool.servers)} servers")
    for key, unserved in change.unserved.items():
        console.print(f"  {key}: {_arrow(unserved)} work/s not served", style=_worse(unserved))
    for key, missing in change.missing_replicas.items():
        console.print(f"  {key}: {_arrow(missing)} replicas missing", style=_worse(missing))
    console.print(
        f"  in all: {len(change.loads)} loads, {len(change.unloads)} unloads, {len(change.reloads)} reloads; "
        f"{_arrow(change.watts)} W, {_arrow(change.price_per_hour)} an hour, {_arrow(change.grams_per_hour)} g CO2 an hour"
    )
    console.print()


def _worse(change: Change) -> str | None:
    return TROUBLE if change.after > change.before else None


def _arrow(change: Change) -> str:
    return f"{number(change.before)} -> {number(change.after)}"


def _percent(share: float) -> str:
    return f"{share:.0%}"
