"""What `ergon plan` does: read, plan, print, and say by the exit code how it went."""

import json
import math
from dataclasses import dataclass, replace
from time import perf_counter

import typer
import yaml

from ergon.cli.choices import PlanOutput
from ergon.cli.plan_diff import Difference, difference, difference_to_json
from ergon.cli.plan_files import Unreadable, read_paths, read_value
from ergon.cli.plan_json import current_from_json, plan_to_json
from ergon.cli.plan_table import print_explanations, print_plan
from ergon.fleet.demand import read_demand
from ergon.fleet.documents import Reading, read_fleet
from ergon.fleet.types import Fleet, Model, ModelKey, Replica
from ergon.planning import Plan, Weights, plan

DONE, BAD_INPUT, SHORTFALL = 0, 1, 3
_NO_DEMAND = "no --demand: every model counts as without requests, so only minReplicas are planned"


@dataclass(frozen=True)
class Request:
    """What was asked for. Without `paths` the cluster is read. `weights` are for watts, price and grams."""

    paths: tuple[str, ...]
    demand_path: str | None
    current_path: str | None
    base_path: str | None
    output: PlanOutput
    explained: tuple[str, ...]
    limit: int
    weights: tuple[float, float, float]
    operator_namespace: str
    default_namespace: str
    context: str | None


@dataclass(frozen=True)
class Planned:
    """A fleet, its plan, and the seconds that the planning took."""

    fleet: Fleet
    plan: Plan
    seconds: float


class BadInput(Exception):
    """What was asked for cannot be planned at all; each line is for a person."""


def answer(request: Request) -> int:
    """Plan what was asked for and print it; the exit code. What is wrong goes to stderr, one line each."""
    try:
        weights = _weights(request.weights)
        reading = _read(request)
        base = _read_files(request, (request.base_path,)) if request.base_path is not None else None
        _complain(reading)
        if base is not None:
            _complain(base, "base: ")
        demand = _demand(request, reading, base)
        current = _current(request, base or reading)
        wanted = _explained(request, reading)
    except (BadInput, Unreadable) as error:
        for line in str(error).splitlines():
            typer.echo(f"ergon: {line}", err=True)
        return BAD_INPUT

    before = _plan(base.fleet, demand, current, weights) if base is not None else None
    if before is not None:
        current = _replicas(before.plan)
    after = _plan(reading.fleet, demand, current, weights)
    change = difference(before.fleet, before.plan, after.fleet, after.plan) if before is not None else None
    _print(request, after, change, wanted, _notes(request, after))
    if reading.problems:
        return BAD_INPUT
    return SHORTFALL if after.plan.short else DONE


def _weights(given: tuple[float, float, float]) -> Weights:
    for name, weight in zip(("energy", "price", "grams"), given, strict=True):
        if not math.isfinite(weight) or weight < 0:
            raise BadInput(f"--weight-{name}: {weight} is no weight; write 0 or more")
    if not any(given):
        raise BadInput("--weight-energy, --weight-price and --weight-grams are all 0; nothing would be compared")
    return Weights(*given)


def _read(request: Request) -> Reading:
    if request.paths:
        reading, where = _read_files(request, request.paths), ", ".join(request.paths)
    else:
        reading, where = _read_cluster(request), "the cluster"
    if not (reading.fleet.pools or reading.fleet.models or reading.problems):
        raise BadInput(f"{where}: no AcceleratorPool and no SpecializedModel is there; give -f the files of the fleet")
    return reading


def _read_files(request: Request, paths: tuple[str, ...]) -> Reading:
    files = read_paths(list(paths))
    found = read_fleet(
        files.documents, operator_namespace=request.operator_namespace, default_namespace=request.default_namespace
    )
    return replace(found, problems=(*files.problems, *found.problems))


def _read_cluster(request: Request) -> Reading:
    # Here, since a Kubernetes client takes longer to load than most plans to make.
    from ergon.cli.plan_live import asleep, read_cluster

    documents = read_cluster(request.context)
    found = read_fleet(documents, operator_namespace=request.operator_namespace, strict=False)
    sleeping = asleep(documents)
    models = tuple(model if model.key in sleeping else _awake(model) for model in found.fleet.models)
    return replace(found, fleet=replace(found.fleet, models=models))


def _awake(model: Model) -> Model:
    """As the operator plans a model that does not sleep: with a replica, also where minReplicas is 0."""
    return replace(model, min_replicas=max(1, model.min_replicas))


def _complain(reading: Reading, prefix: str = "") -> None:
    for problem in reading.problems:
        typer.echo(f"ergon: {prefix}{problem}", err=True)


def _demand(request: Request, reading: Reading, base: Reading | None) -> dict[ModelKey, float]:
    if request.demand_path is None:
        return {}
    readings = [reading, *([base] if base is not None else [])]
    known = {model.key for one in readings for model in one.fleet.models} | {key for one in readings for key in one.broken}
    demand, problems = read_demand(read_value(request.demand_path), known)
    if problems:
        raise BadInput("\n".join(f"{request.demand_path}: {problem}" for problem in problems))
    return demand


def _current(request: Request, reading: Reading) -> tuple[Replica, ...]:
    """The plan that stands: the one given, else what statuses say."""
    if request.current_path is None:
        return reading.fleet.current
    try:
        return current_from_json(read_value(request.current_path))
    except ValueError as error:
        raise BadInput(f"{request.current_path}: {error}") from None


def _explained(request: Request, reading: Reading) -> list[Model]:
    """The models to explain, by namespace/name or, where only one has it, by name."""
    found = []
    for name in request.explained:
        matching = [model for model in reading.fleet.models if name in (str(model.key), model.key.name)]
        if len(matching) != 1:
            known = f"{len(matching)} models have that name; give namespace/name" if matching else "there is no such model"
            raise BadInput(f"--explain {name}: {known}")
        found += matching
    return found


def _plan(fleet: Fleet, demand: dict[ModelKey, float], current: tuple[Replica, ...], weights: Weights) -> Planned:
    variants = {model.key: {variant.name for variant in model.variants} for model in fleet.models}
    pools = {pool.name for pool in fleet.pools}
    standing = tuple(r for r in current if r.variant in variants.get(r.model, ()) and r.server.pool in pools)
    wanted = {key: work for key, work in demand.items() if key in variants}
    asked = replace(fleet, demand=wanted, current=standing)
    start = perf_counter()
    made = plan(asked, weights=weights)
    return Planned(asked, made, perf_counter() - start)


def _notes(request: Request, planned: Planned) -> list[str]:
    """What a person should know: of how the plan was made, and of what it was made from."""
    notes = list(planned.plan.notes)
    if request.demand_path is None and planned.fleet.models:
        notes.append(_NO_DEMAND)
    blind = sorted(
        pool.name
        for pool in planned.fleet.pools
        if planned.plan.servers.get(pool.name) and not (pool.host_watts or pool.idle_watts or pool.busy_watts)
    )
    if blind:
        notes.append(
            f"no spec.power in {', '.join(blind)}: what runs there counts as hardly any watts, and the plan is blind to it"
        )
    return notes


def _replicas(made: Plan) -> tuple[Replica, ...]:
    return tuple(replica for replicas in made.placements.values() for replica in replicas)


def _print(request: Request, planned: Planned, change: Difference | None, wanted: list[Model], notes: list[str]) -> None:
    if request.output is not PlanOutput.TABLE:
        for note in notes:
            typer.echo(f"ergon: note: {note}", err=True)
        content = plan_to_json(planned.fleet, planned.plan, planned.seconds)
        if change is not None:
            content["diff"] = difference_to_json(change)
        _print_value(content, request.output)
    elif wanted:
        print_explanations(planned.fleet, planned.plan, wanted)
    else:
        print_plan(planned.fleet, planned.plan, planned.seconds, limit=request.limit, notes=notes, change=change)


def _print_value(content: dict[str, object], output: PlanOutput) -> None:
    if output is PlanOutput.JSON:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=130), nl=False)
