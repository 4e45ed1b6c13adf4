"""What `ergon simulate` does: read, simulate with a bar of progress, print, and write the page."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ergon.cli.choices import Balance, ModeName, Output, PolicyName
from ergon.cli.plan_files import Unreadable, read_paths
from ergon.cli.simulate_files import trace_files
from ergon.cli.simulate_output import print_results, results_to_json
from ergon.fleet.demand import model_key
from ergon.fleet.documents import read_fleet
from ergon.fleet.types import Fleet, Model
from ergon.simulate.policies.homes import NoHome
from ergon.simulate.report import About, page
from ergon.simulate.results import Result
from ergon.simulate.run import Job, Mode, Simulation, asked_models
from ergon.simulate.settings import Settings
from ergon.simulate.sizing import NoSize
from ergon.simulate.traces import BadTrace, Chunk, ModelNames, TraceFile, Warnings, read_chunks, read_header
from ergon.simulate.workload import Workload, drawn_from_rates, read_rates, read_requests

DONE, BAD_INPUT = 0, 1
_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)?$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    fleet: tuple[str, ...]
    traces: tuple[str, ...]
    policies: tuple[PolicyName, ...]
    general: str | None
    mode: ModeName | None
    seed: int
    start: str | None
    until: str | None
    output: Output
    report: str | None
    balance: Balance
    fetch_rate: float
    load_rate: float
    step_seconds: float
    operator_namespace: str
    default_namespace: str


class BadInput(Exception):
    """What was asked for cannot be simulated; the message is one line for a person."""


def answer(request: Request) -> int:
    """Simulate and print; the exit code. What is wrong goes to stderr, one line each."""
    try:
        fleet, broken = _fleet(request)
        job, warnings = _job(request, fleet)
        results = _run(request, job)
        if request.report is not None:
            _write(request.report, page(results, _about(request, fleet, warnings)))
    except (BadInput, BadTrace, NoHome, NoSize, Unreadable, ArithmeticError) as error:
        typer.echo(f"ergon: {error}", err=True)
        return BAD_INPUT
    for line in warnings.sentences():
        typer.echo(f"ergon: warning: {line}", err=True)
    if request.output is Output.JSON:
        typer.echo(json.dumps(results_to_json(results, job.settings), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print_results(results)
    return BAD_INPUT if broken else DONE


def _fleet(request: Request) -> tuple[Fleet, bool]:
    """The fleet, and whether a part of it could not be understood (which is told)."""
    files = read_paths(list(request.fleet))
    reading = read_fleet(
        files.documents, operator_namespace=request.operator_namespace, default_namespace=request.default_namespace
    )
    problems = (*files.problems, *reading.problems)
    for problem in problems:
        typer.echo(f"ergon: {problem}", err=True)
    if not reading.fleet.pools or not reading.fleet.models:
        raise BadInput(
            f"{', '.join(request.fleet)}: no AcceleratorPool or no SpecializedModel is there; give the files of a fleet"
        )
    return reading.fleet, bool(problems)


def _job(request: Request, fleet: Fleet) -> tuple[Job, Warnings]:
    models = asked_models(fleet)
    warnings = Warnings()
    files = [trace_files(name) for name in request.traces]
    mode: Mode = "requests"
    if request.mode is ModeName.RATE or (request.mode is None and all(read_header(file).holds_rates for file in files)):
        mode = "rate"
    workload = _workload(request, mode, models, files, warnings)
    steps = workload.steps
    begin = _time("--from", request.start, steps.start_seconds)
    end = _time("--until", request.until, steps.end_seconds)
    if end <= begin:
        raise BadInput(f"nothing lies between {begin:g} s and {end:g} s; the trace is from {steps.start_seconds:g} s to "
                       f"{steps.end_seconds:g} s")  # fmt: skip
    general = None
    if request.general is not None:
        general = model_key(request.general)
        if general is None or all(model.key != general for model in models):
            raise BadInput(f"--general {request.general}: there is no such model; give namespace/name of one in the fleet")
    elif any(policy in (PolicyName.GENERAL, PolicyName.GENERAL_HPA) for policy in request.policies):
        raise BadInput("--policy general needs --general namespace/name: the one model that serves every task")
    job = Job(fleet, workload, _settings(request), mode, request.seed, begin, end, general=general, clock=process_time)
    return job, warnings


def _settings(request: Request) -> Settings:
    return Settings(
        fetch_bytes_per_second=request.fetch_rate * 1e9,
        load_bytes_per_second=request.load_rate * 1e9,
        balance="least-requests" if request.balance is Balance.LEAST_REQUESTS else "round-robin",
        step_seconds=request.step_seconds,
    )


def _workload(request: Request, mode: Mode, models: tuple[Model, ...], files: list[TraceFile], warnings: Warnings) -> Workload:
    names = ModelNames([str(model.key) for model in models])
    first = [True]

    def read() -> Iterator[Chunk]:
        told = warnings if first[0] else Warnings()  # a long trace is read again for every run, and told of once
        first[0] = False
        return read_chunks(files, names, told)

    if any(read_header(file).holds_rates for file in files):
        rates = read_rates(models, read, request.step_seconds)
        return rates if mode == "rate" else drawn_from_rates(rates, request.seed)
    return read_requests(models, read, request.step_seconds)


def _time(option: str, text: str | None, default: float) -> float:
    if text is None:
        return default
    found = _TIME.match(text)
    if found is None:
        raise BadInput(f"{option}: {text[:40]!r} is no time; write seconds of the trace, or such as 90m, 6h, 2d")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def _run(request: Request, job: Job) -> list[Result]:
    console = Console(stderr=True)
    if not console.is_terminal:
        return _simulated(request, job, lambda what, share: None)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=1.0)
        return _simulated(request, job, lambda what, share: bar.update(task, description=what, completed=share))


def _simulated(request: Request, job: Job, progress: Callable[[str, float], None]) -> list[Result]:
    simulation = Simulation(replace(job, progress=progress))
    return [simulation.simulate(policy.value) for policy in request.policies]


def _about(request: Request, fleet: Fleet, warnings: Warnings) -> About:
    whole = [limit for limit in fleet.watt_limits if limit.pools is None and limit.namespaces is None]
    tightest = min(whole, key=lambda limit: limit.watts, default=None)
    return About(
        title=f"{_names(request.fleet)} over {_names(request.traces)}",
        settings=_settings(request),
        limit=(f"budget {tightest.name}", tightest.watts) if tightest is not None else None,
        remarks=tuple(warnings.sentences()),
    )


def _names(paths: tuple[str, ...]) -> str:
    return ", ".join(Path(path).name or path for path in paths)


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise BadInput(f"--report {path}: cannot be written ({error.strerror})") from None
