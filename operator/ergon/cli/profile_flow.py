"""The story of `ergon profile`: find the model and a server that holds it, measure, print what to paste."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ergon.cli.cluster import patient_client
from ergon.cli.profile_sweep import CLIENT_BUSY_SHARE, Effort, Step, brings_nothing, in_flight_steps, measure, worth_pasting
from ergon.fleet.types import ModelKey, ServerKey
from ergon.kube.builders import server_set_name
from ergon.kube.client import KubeClient
from ergon.kube.errors import Forbidden, KubeError, NotFound
from ergon.triton.errors import TritonError
from ergon.triton.inference import ModelClient, example_request

Object = dict[str, Any]


class CannotProfile(Exception):
    """The model cannot be measured. The text is one line for a person: what is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for; see the options of `ergon profile`."""

    model: str
    url: str
    server: str
    request_path: Path | None
    most: int
    window_seconds: float
    tokens: float
    watts: float
    as_json: bool
    context: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured where. `neighbours`: other models on that server; `unknown`: what may not be read, in sentences."""

    key: ModelKey
    url: str
    server: ServerKey
    variant: str
    accelerator: str
    product: str
    percentile: int
    neighbours: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def answer(request: Request) -> int:
    """Measure and print; the exit code."""
    try:
        target, steps, made_up = asyncio.run(_profile(request))
    except (CannotProfile, TritonError) as error:
        typer.echo(f"ergon: {error}", err=True)
        return 1
    except KubeError as error:
        typer.echo(f"ergon: the cluster cannot be read: {' '.join(error.message.split())[:300]}", err=True)
        return 1
    points = worth_pasting(steps)
    if not points:
        typer.echo(f"ergon: {steps[0].problem if steps else 'nothing was answered'}", err=True)
        return 1
    if request.as_json:
        typer.echo(json.dumps({"profiles": [_point(target, step, request) for step in points]}, indent=2))
    else:
        typer.echo("\n".join(_yaml(target, points, request, made_up)))
    for remark in remarks(target, steps, made_up):
        typer.echo(f"note: {remark}", err=True)
    return 0


async def _profile(request: Request) -> tuple[Target, list[Step], bool]:
    key, body = _key(request.model), _read_request(request.request_path)
    async with await patient_client(request.context) as client:
        target = await find_target(client, key, request)
    async with ModelClient(target.url, target.key.served_name, connections=request.most) as model:
        sent = body or example_request(await model.metadata())
        await model.ask(sent)  # a request that is refused is told at once
        return target, await _sweep(model, sent, target, request), body is None


def _read_request(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        body = path.read_bytes()
        wrong = "" if isinstance(json.loads(body), dict) else "it is not a JSON object"
    except (OSError, ValueError) as error:
        wrong = str(error)
    if wrong:
        raise CannotProfile(f"--request {path} cannot be used: {wrong}; write a KServe v2 inference request as JSON")
    return body


async def find_target(client: KubeClient, key: ModelKey, request: Request) -> Target:
    """The model, one of its ready servers, and the address to ask it at. Raises CannotProfile."""
    try:
        model = await client.get("ergon.dev/v1alpha1", "SpecializedModel", key.name, key.namespace)
    except NotFound:
        raise CannotProfile(f"there is no SpecializedModel {key}; kubectl get sm -A lists them") from None
    ready = [p for p in (model.get("status") or {}).get("placements") or () if p["state"] == "Ready"]
    if request.server:
        ready = [p for p in ready if f"{p['pool']}-{p['server']}" == request.server]
    if not ready:
        where = f" on {request.server}" if request.server else ""
        raise CannotProfile(f"{key} is not Ready{where}; kubectl describe sm {key.name} -n {key.namespace} says why")
    placement = ready[0]
    server = ServerKey(placement["pool"], placement["server"])
    if request.url and len((model.get("status") or {}).get("placements") or ()) > 1 and not _inside():
        raise CannotProfile(
            f"{key} has several replicas, and {request.url} reaches them all: kubectl scale sm/{key.name} --replicas=1 first"
        )
    url = await _server_url(client, key, server) if _inside() and (request.server or not request.url) else request.url
    if not url:
        raise CannotProfile(
            "say with --url where the model is asked, or run it where servers are reached: "
            f"kubectl -n ergon-system exec deploy/ergon -- ergon profile {key}"
        )
    accelerator, unsure = await _accelerator(client, server.pool, model, placement["variant"])
    neighbours, unseen = await _neighbours(client, key, server)
    return Target(
        key=key,
        url=url,
        server=server,
        variant=placement["variant"],
        accelerator=accelerator["class"],
        product=accelerator.get("product", ""),
        percentile=model["spec"].get("slo", {}).get("percentile", 95),
        neighbours=neighbours,
        unknown=(*unsure, *unseen),
    )


def _key(text: str) -> ModelKey:
    namespace, slash, name = text.rpartition("/")
    if not name or "/" in namespace or (slash and not namespace):
        raise CannotProfile(f"{text!r} names no model: write namespace/name")
    return ModelKey(namespace or "default", name)


def _inside() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


async def _server_url(client: KubeClient, key: ModelKey, server: ServerKey) -> str:
    """The server's own address, from the model's EndpointSlices."""
    slices = await client.list_all(
        "discovery.k8s.io/v1", "EndpointSlice", key.namespace, label_selector=f"ergon.dev/model={key.name}"
    )
    for endpoint in (e for s in slices for e in s.get("endpoints") or ()):
        pod = (endpoint.get("targetRef") or {}).get("name", "")
        if pod == f"{server_set_name(server.pool)}-{server.ordinal}" and endpoint["addresses"]:
            address = endpoint["addresses"][0]
            return f"http://[{address}]:8000" if ":" in address else f"http://{address}:8000"
    raise CannotProfile(f"server {server} is in no EndpointSlice of {key}: it serves nobody just now; try again")


async def _accelerator(client: KubeClient, pool: str, model: Object, variant: str) -> tuple[Object, tuple[str, ...]]:
    """The pool's accelerator; for who may not read pools the class that the variant is for, and what is not sure of it."""
    try:
        found: Object = (await client.get("ergon.dev/v1alpha1", "AcceleratorPool", pool))["spec"]["accelerator"]
    except Forbidden:
        classes = [c for v in model["spec"]["variants"] if v["name"] == variant for c in v["accelerators"]]
        if len(classes) == 1:
            return {"class": classes[0]}, (f"you may not read pool {pool}, so its product is not known",)
        which = " or ".join(classes)
        said = f"you may not read pool {pool}, so its accelerator is not known: ask whether it is {which}, and correct the points"
        return {"class": classes[0]}, (said,)
    return found, ()


async def _neighbours(client: KubeClient, key: ModelKey, server: ServerKey) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Other models on the server, of those that the person may read; and that there may be others."""
    unseen: tuple[str, ...] = ()
    try:
        models = await client.list_all("ergon.dev/v1alpha1", "SpecializedModel")
    except Forbidden:
        models = await client.list_all("ergon.dev/v1alpha1", "SpecializedModel", key.namespace)
        unseen = (f"you may read models of {key.namespace} only: whether others are on {server} is not known",)
    found = []
    for model in models:
        other = ModelKey(model["metadata"]["namespace"], model["metadata"]["name"])
        placements = (model.get("status") or {}).get("placements") or ()
        if other != key and any((p["pool"], p["server"]) == (server.pool, server.ordinal) for p in placements):
            found.append(str(other))
    return tuple(sorted(found)), unseen


async def _sweep(model: ModelClient, body: bytes, target: Target, request: Request) -> list[Step]:
    effort = Effort(window_seconds=request.window_seconds, warm_seconds=request.window_seconds)
    steps: list[Step] = []
    with _progress() as say:
        for in_flight in in_flight_steps(request.most):
            say(f"{target.key} on {target.server}: {in_flight} in flight")
            steps.append(await measure(lambda: model.ask(body), in_flight, target.percentile, effort))
            if steps[-1].broken or brings_nothing(steps):
                break
    return steps


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What is being measured, on a terminal; nothing where there is none."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)


def _point(target: Target, step: Step, request: Request) -> Object:
    """One entry of `profiles`, and beside it how sure it is."""
    where = {"product": target.product} if target.product else {"accelerator": target.accelerator}
    rate = (
        {"tokensPerSecond": step.requests_per_second * request.tokens}
        if request.tokens
        else {"requestsPerSecond": step.requests_per_second}
    )
    measured = {name: float(f"{value:.4g}") for name, value in rate.items()}
    watts = {"watts": request.watts} if request.watts else {}
    return {**where, "batch": step.in_flight, **measured, "latency": duration(step.latency_seconds), **watts}


def duration(seconds: float) -> str:
    """Seconds as Ergon's API writes durations, in four digits."""
    return f"{seconds * 1000:.4g}ms" if seconds < 9.999 else f"{min(seconds, 9999):.4g}s"


def _yaml(target: Target, points: list[Step], request: Request, made_up: bool) -> Iterator[str]:
    by = "a made-up request" if made_up else request.request_path
    yield f"# {target.key}, variant {target.variant}, on server {target.server}, {datetime.now(UTC):%Y-%m-%d}, by {by};"
    yield f"# latency at percentile {target.percentile}; ±: half a 95 % interval of the throughput"
    if not request.watts:
        yield "# watts were not measured: without them the pool's busyWatts count"
    yield "profiles:"
    for step in points:
        fields = ", ".join(f"{name}: {_scalar(value)}" for name, value in _point(target, step, request).items())
        yield f"  - {{{fields}}}   # ±{step.uncertainty:.1%} over {step.windows} windows, {step.requests:,} requests"


def _scalar(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def remarks(target: Target, steps: list[Step], made_up: bool) -> Iterator[str]:
    """What a person should know of the figures."""
    yield from target.unknown
    if target.neighbours:
        shown = ", ".join(target.neighbours[:5]) + (" and more" if len(target.neighbours) > 5 else "")
        are = "is" if len(target.neighbours) == 1 else "are"
        yield f"{shown} {are} on {target.server} too: what they are asked meanwhile takes from this"
    if made_up:
        yield "the request was made up from the model's inputs; --request FILE measures with one of yours"
    busy = [step for step in steps if step.client_share > CLIENT_BUSY_SHARE]
    if busy:
        yield f"from {busy[0].in_flight} in flight on this client took a whole core: the server may be faster than measured"
    unsure = [step for step in worth_pasting(steps) if step.uncertainty > 2 * Effort().uncertainty]
    if unsure:
        yield f"with {unsure[0].in_flight} in flight the throughput swings: something else may use this machine"
    for step in steps:
        if step.failed:
            asked = step.requests + step.failed
            yield f"with {step.in_flight} in flight {step.failed} of {asked} requests failed: {step.problem}"
            break
