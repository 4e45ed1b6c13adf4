"""Four real models under a load that changes, on real Triton: do replicas, joules and a budget follow it?

Three phases of requests (quiet; busy; the mix turned over); then the operator is killed and started again, and a Triton is
killed; then a limit in watts. The second and third phase are also simulated, from the requests' times alone. Beside it a meter
of our own (bench/cpu_meter.py) counts the CPU seconds of the Triton processes times stated watts, and what it shows like a
GPU's counter is all that the operator sees of power.
"""

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from bench.cluster import MODEL, NAMESPACE, POOL, Watch, is_ready, pool, prepared
from bench.common import RESULTS, ROOT, BenchFailed, Report, console, parser, percentile, run_bench, say
from bench.cpu_meter import TRITON_ARGUMENT, Meter, Truth
from bench.model_files import sources
from bench.operator_process import Operator
from bench.real_requests import Asked, MeanOf, Traffic, request_body
from ergon.kube.client import KubeClient

Object = dict[str, Any]
BUDGET = ("ergon.dev/v1alpha1", "EnergyBudget")
GATEWAY = "http://ergon.ergon-gateway"
NAME = "phases"
IDLE_WATTS, CORE_WATTS = 10.0, 60.0
LOADING_WATTS = IDLE_WATTS + CORE_WATTS + 10.0
"""One model loads on one core; and 1.5 times this is what a meter is believed, which two busy cores must not exceed."""
MODELS = ("entities", "content-type", "language", "general")
PRIORITIES = {"entities": 200, "content-type": 150, "language": 100, "general": 50}
TARGETS_MS = {"entities": 200, "content-type": 150, "language": 100, "general": 5000}
RATES = {
    "quiet": {"entities": 4.0, "content-type": 4.0, "language": 4.0, "general": 0.03},
    "busy": {"entities": 45.0, "content-type": 15.0, "language": 25.0, "general": 0.15},
    "turned": {"entities": 6.0, "content-type": 40.0, "language": 25.0, "general": 0.3},
    "crashes": {"entities": 6.0, "content-type": 40.0, "language": 25.0, "general": 0.3},
    "limited": {"entities": 6.0, "content-type": 40.0, "language": 25.0, "general": 0.8},
}
OPERATOR = ("--plan-every=10", "--stabilise=30", "--improve-after=10")
ROW_SECONDS = 15.0
ACCOUNT_ERROR, UNEXPLAINED, SHARE_ERROR = 0.01, 0.03, 0.05
LIMIT_SECONDS = 90.0
SHEDDABLE = "general"
LIMIT_BITES = 0.6
"""So much of what may be shed is above the limit: shedding alone suffices, and nothing less does."""
SETTLE_SECONDS = 20.0
"""After the last request, until what it took is read and booked."""
FIDELITY = {"CPU seconds": 0.10, "p50": 0.15, "p95": 0.25}


@dataclass(frozen=True)
class Row:
    """One line of the table over time."""

    at: float
    phase: str
    rates: dict[str, float]
    replicas: dict[str, int]
    servers: int
    p95_ms: dict[str, float]
    watts: float


async def bench(arguments: argparse.Namespace, report: Report) -> None:
    """Measure and report."""
    for name in MODELS:
        shutil.copytree(ROOT / "examples" / "models" / name, sources() / "models" / name, dirs_exist_ok=True)
    chance = random.Random(arguments.seed)
    async with (
        prepared() as client,
        Watch(MODEL, {"Ready": is_ready}, NAMESPACE) as models,
        Watch(POOL, {}) as pools,
        Watch(BUDGET, {}) as budgets,
        Meter(IDLE_WATTS, CORE_WATTS, chance) as meter,
        Operator(NAME, gateway=True, more=OPERATOR) as operator,
        Traffic(GATEWAY, NAMESPACE, arguments.seed) as traffic,
    ):
        run = Run(arguments, report, client, models, pools, budgets, meter, operator, traffic)
        await run.prepare()
        for phase in ("quiet", "busy", "turned", "crashes"):
            await run.phase(phase)
        await run.accounts()
        await run.limit()
        run.finish()
        await run.fidelity()


class Run:
    """One run, part by part."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        report: Report,
        client: KubeClient,
        models: Watch,
        pools: Watch,
        budgets: Watch,
        meter: Meter,
        operator: Operator,
        traffic: Traffic,
    ) -> None:
        self._arguments, self._report, self._client = arguments, report, client
        self._models, self._pools, self._budgets = models, pools, budgets
        self._meter, self._operator, self._traffic = meter, operator, traffic
        self._rows: list[Row] = []
        self._mean = MeanOf(60.0)
        self._crashes: list[tuple[float, float]] = []
        self._began = time.monotonic()
        self._limited_at = math.inf
        self._books: dict[str, float] = {}
        self._truth = Truth()
        self._starts: dict[str, tuple[float, Truth]] = {}
        self._points: dict[str, list[Object]] = {}

    async def prepare(self) -> None:
        """The pool, the models, and their operating points as `ergon profile` measures them."""
        made = pool(NAME, servers=1, max_models=None)
        made["spec"]["servers"] = {"min": 1, "max": 3}
        made["spec"]["triton"]["args"] = [TRITON_ARGUMENT]
        made["spec"]["power"] = {"idleWatts": IDLE_WATTS, "busyWatts": LOADING_WATTS, "source": "Triton"}
        await self._client.create(made)
        for document in yaml.safe_load_all((ROOT / "examples" / "models.yaml").read_text()):
            if document["kind"] == "SpecializedModel" and document["metadata"]["name"] in MODELS:
                await self._client.create(_for_bench(document))
        say("waiting for the four models")
        await self._models.all_met("Ready", len(MODELS), 180)
        for name in MODELS:
            await self._first_answer(name)
        for name in MODELS:
            points = self._points[name] = await self._profile(name)
            patch = {"spec": {"variants": [{**self._variant(name), "profiles": points}]}}
            await self._client.patch_merge(*MODEL, name, NAMESPACE, patch)
            say(f"{name}: {', '.join(_point(point) for point in points)}")

    async def phase(self, name: str) -> None:
        """One phase of load, or of crashes under it."""
        seconds = self._arguments.phase_seconds
        say(f"{name}: {', '.join(f'{model} {rate:g}/s' for model, rate in RATES[name].items())} for {seconds:g} s")
        if name == "quiet":
            self._truth, self._books = await self._settled()
            self._traffic.start(list(MODELS))
        self._traffic.rates = RATES[name]
        ends_at = time.monotonic() + seconds
        self._starts[name] = (time.monotonic(), self._meter.now())
        if name == "crashes":
            await self._rows_until(name, time.monotonic() + 0.2 * seconds)
            await self._crash_operator()
            await self._rows_until(name, time.monotonic() + 0.2 * seconds)
            await self._crash_triton()
        await self._rows_until(name, ends_at)

    async def accounts(self) -> None:
        """The operator's books against the meter's truth since the first phase began."""
        truth, books = await self._settled()
        since = truth.since(self._truth)
        booked = {name: value - self._books.get(name, 0.0) for name, value in books.items()}
        devices = sum(booked.get(f"pool/{account}", 0.0) for account in ("models", "loading", "idle", "unexplained"))
        models = {name: booked.get(f"model/{name}", 0.0) for name in MODELS}
        cpu = self._cpu_seconds(since, self._starts["quiet"][0])
        shares = {
            name: (models[name] / sum(models.values())) / (cpu[name] / sum(cpu.values())) - 1
            for name in MODELS
            if cpu[name] > 0.01 * sum(cpu.values())
        }
        report = self._report
        report.bar("joules booked against the meter's truth", abs(devices / since.joules - 1), ACCOUNT_ERROR, "")
        report.bar("unexplained, of all", abs(booked.get("pool/unexplained", 0.0)) / devices, UNEXPLAINED, "")
        report.bar("a model's share of the joules against its CPU, worst", max(map(abs, shares.values())), SHARE_ERROR, "")
        report.bar("accounts that went back", sum(value < -1e-6 for key, value in booked.items() if "unexpl" not in key), 0, "")
        report.details["accounts"] = {"booked": booked, "truth": vars(since), "shares": shares}

    async def limit(self) -> None:
        """A limit in watts under load: how long until the mean of a minute is below it, and who gave way."""
        self._traffic.rates = RATES["limited"]
        before, since = self._meter.now(), time.monotonic()
        await self._rows_until("limited", since + 60.0)
        taken, seconds = self._meter.now().since(before), time.monotonic() - since
        now = taken.joules / seconds
        sheddable = CORE_WATTS * self._cpu_seconds(taken, since)[SHEDDABLE] / seconds
        limit = round(now - LIMIT_BITES * sheddable, 1)
        say(f"a limit of {limit:g} W where {now:.1f} W are taken, {sheddable:.1f} W of them by {SHEDDABLE}, which may be shed")
        spec = {"limits": {"watts": limit}, "shedBelowPriority": 100}
        began = self._limited_at = time.monotonic()
        await self._client.create({"apiVersion": BUDGET[0], "kind": BUDGET[1], "metadata": {"name": "site"}, "spec": spec})
        met: float | None = None
        while time.monotonic() < began + self._arguments.limit_seconds:
            await self._row("limited")
            if met is None and self._rows[-1].watts <= limit:
                met = time.monotonic() - began
            await asyncio.sleep(3.0)
        self._report.bar("limit lowered: until the mean of 60 s is under it", met or 1e9, LIMIT_SECONDS, "s")
        said = self._budgets.objects["site"].get("status") or {}
        self._report.details["budget"] = {
            "limit": limit,
            "before": now,
            "conditions": said.get("conditions"),
            "models": {name: _ready(self._models.objects[name]) for name in MODELS},
        }
        for name in MODELS:
            console.print(f"    {name}: {' '.join(map(str, _ready(self._models.objects[name])))}")
        for condition in said.get("conditions") or ():
            console.print(f"    {condition['type']} {condition['status']} {condition['reason']}: {condition['message']}")

    def finish(self) -> None:
        """The table, and what failed."""
        console.print(_table(self._rows))
        report = self._report
        ordinary = [a for a in self._traffic.asked if a.problem and not self._crashed(a) and not self._shed(a)]
        report.bar("requests failed by scaling", len(ordinary), 0, "")
        report.figure("requests", len(self._traffic.asked), "")
        crashed = sum(1 for a in self._traffic.asked if a.problem and self._crashed(a))
        report.figure("requests failed within 20 s of a Triton that was killed", crashed, "")
        report.figure("requests refused by the limit", sum(map(self._shed, self._traffic.asked)), "")
        report.details["failed"] = [vars_of(a) for a in ordinary[:20]]
        report.details["rows"] = [vars(row) for row in self._rows]
        if self._meter.problem:
            report.note(f"the meter: {self._meter.problem}")
        (RESULTS / f"{NAME}.trace.csv").write_text(
            "time_s,model\n"
            + "".join(
                f"{a.due - self._began:.4f},{NAMESPACE}/{a.model}\n" for a in sorted(self._traffic.asked, key=lambda a: a.due)
            )
        )

    async def fidelity(self) -> None:
        """What `ergon simulate` makes of the busy and the turned phase, from when requests came and the operating points."""
        (begin, before), (end, after) = self._starts["busy"], self._starts["crashes"]
        measured = self._cpu_seconds(after.since(before), begin, end)
        simulated = await self._simulated(begin - self._began, end - self._began)
        table = Table(title="Busy and turned: measured, simulated", title_justify="left")
        for column in ("model", "requests", "CPU s", "p50 ms", "p95 ms"):
            table.add_column(column, justify="left" if column == "model" else "right")
        worst = dict.fromkeys(FIDELITY, 0.0)
        for name in MODELS:
            answers = [a.latency_seconds for a in self._traffic.asked if a.model == name and begin <= a.due < end]
            found = simulated[f"{NAMESPACE}/{name}"]
            pairs = {
                "CPU seconds": (measured[name], found["executionJoules"] / CORE_WATTS),
                "p50": (percentile(answers, 0.5), found["p50Seconds"]),
                "p95": (percentile(answers, 0.95), found["p95Seconds"]),
            }
            for what, (seen, foretold) in pairs.items():
                worst[what] = max(worst[what], abs(foretold / seen - 1))
            cells = [
                f"{m:.1f}, {p:.1f}" if what == "CPU seconds" else f"{1e3 * m:.1f}, {1e3 * p:.1f}"
                for what, (m, p) in pairs.items()
            ]
            table.add_row(name, str(len(answers)), *cells)
            self._report.details.setdefault("fidelity", {})[name] = pairs
        console.print(table)
        for what, limit in FIDELITY.items():
            self._report.bar(f"simulated {what} against measured, worst model", worst[what], limit, "")

    # Parts

    async def _simulated(self, begin: float, end: float) -> dict[str, Object]:
        fleet = RESULTS / f"{NAME}.fleet.yaml"
        documents = [_as_file(self._pools.objects[NAME])] + [_as_file(self._models.objects[name]) for name in MODELS]
        fleet.write_text(yaml.safe_dump_all(documents))
        ergon = Path(sys.executable).parent / "ergon"
        command = [str(ergon), "simulate", f"--fleet={fleet}", f"--trace={RESULTS / f'{NAME}.trace.csv'}", "--mode=requests"]
        command += [f"--from={begin:.3f}", f"--until={end:.3f}", "--output=json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        output, problem = await process.communicate()
        if process.returncode:
            raise BenchFailed(f"ergon simulate: {problem.decode()[-300:]}")
        return {model["model"]: model for model in json.loads(output)["policies"][0]["models"]}

    async def _first_answer(self, name: str) -> None:
        for _ in range(100):
            if not (await self._traffic.one(name)).problem:
                self._traffic.asked.clear()
                return
            await asyncio.sleep(0.2)
        raise BenchFailed(f"{name} has no right answer: {self._traffic.asked[-1].problem}")

    def _variant(self, name: str) -> Object:
        variant: Object = {k: v for k, v in self._models.objects[name]["spec"]["variants"][0].items() if k != "profiles"}
        return variant

    async def _profile(self, name: str) -> list[Object]:
        """As a person does it; watts by the meter, over the time that the measuring took."""
        body, headers = request_body(name, 0)
        files = []
        if "Inference-Header-Content-Length" not in headers:
            files = [f"--request={_written(name, body)}"]
        ergon = Path(sys.executable).parent / "ergon"
        command = [
            str(ergon),
            "profile",
            f"{NAMESPACE}/{name}",
            f"--url={GATEWAY}",
            "--output=json",
            "--seconds=1",
            "--max-in-flight=2",
            *files,
        ]
        before, began = self._meter.now(), time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        output, problem = await process.communicate()
        if process.returncode:
            raise BenchFailed(f"ergon profile {name}: {problem.decode()[-300:]}")
        busy = self._meter.now().since(before).cpu_seconds / (time.monotonic() - began)
        points: list[Object] = json.loads(output)["profiles"]
        return [{**point, "watts": round(IDLE_WATTS + CORE_WATTS * max(busy, 0.5), 1)} for point in points]

    async def _crash_operator(self) -> None:
        say("the operator is killed, and started again 10 s later")
        await self._operator.kill()
        await asyncio.sleep(10)
        await self._operator.start()

    async def _crash_triton(self) -> None:
        pids = self._meter.pids()
        say(f"one Triton of {len(pids)} is killed")
        at = time.monotonic()
        self._crashes.append((at, at + 20))
        os.kill(pids[-1], signal.SIGKILL)

    def _crashed(self, asked: Asked) -> bool:
        return any(begin - 5 <= asked.done and asked.due <= end for begin, end in self._crashes)

    def _shed(self, asked: Asked) -> bool:
        return bool(asked.problem) and asked.due >= self._limited_at and asked.model == SHEDDABLE

    async def _rows_until(self, phase: str, ends_at: float) -> None:
        while (left := ends_at - time.monotonic()) > 0:
            await asyncio.sleep(min(ROW_SECONDS, left))
            await self._row(phase)

    async def _row(self, phase: str) -> None:
        now = time.monotonic()
        recent = [a for a in self._traffic.asked[-4000:] if a.due >= now - ROW_SECONDS]
        by_model = {name: [a for a in recent if a.model == name] for name in MODELS}
        servers = ((self._pools.objects[NAME].get("status") or {}).get("servers") or {}).get("ready", 0)
        self._rows.append(
            Row(
                now - self._began,
                phase,
                {name: len(asked) / ROW_SECONDS for name, asked in by_model.items()},
                {name: (self._models.objects[name].get("status") or {}).get("readyReplicas", 0) for name in MODELS},
                servers,
                {
                    name: 1000 * percentile([a.latency_seconds for a in asked], 0.95) if asked else 0.0
                    for name, asked in by_model.items()
                },
                await self._watts(),
            )
        )

    def _cpu_seconds(self, truth: Truth, begin: float, end: float = math.inf) -> dict[str, float]:
        """By model: of its own processes, and of Triton's own, of which each request has its part."""
        others = truth.cpu_seconds - sum(truth.model_cpu_seconds.values())
        asked = [a.model for a in self._traffic.asked if begin <= a.due < end]
        return {
            name: truth.model_cpu_seconds.get(f"{NAMESPACE}.{name}", 0.0) + others * asked.count(name) / max(1, len(asked))
            for name in MODELS
        }

    async def _watts(self) -> float:
        return self._mean.take(time.monotonic(), self._meter.now().joules) or 0.0

    async def _settled(self) -> tuple[Truth, dict[str, float]]:
        """The truth and the books at about the same time: without load, right after a booking, so that what is not booked yet is
        some seconds of idle watts, at the beginning as at the end.
        """
        self._traffic.rates = dict.fromkeys(MODELS, 0.0)
        await asyncio.sleep(SETTLE_SECONDS)
        before = await self._booked()
        for _ in range(300):  # a booking is made each 10 s
            await asyncio.sleep(0.1)
            if (books := await self._booked()) != before:
                return self._meter.now(), books
        raise BenchFailed("nothing was booked for half a minute")

    async def _booked(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for series, value in (await self._operator.metrics()).items():
            if series.startswith("ergon_pool_unexplained_joules{") and f'pool="{NAME}"' in series:
                found["pool/unexplained"] = value
            if series.startswith("ergon_pool_joules_total{") and f'pool="{NAME}"' in series:
                found[f"pool/{series.partition('account=')[2].split(chr(34))[1]}"] = value
            if series.startswith("ergon_model_joules_total{"):
                found[f"model/{series.partition('model=')[2].split(chr(34))[1]}"] = value
        return found


def _as_file(obj: Object) -> Object:
    """As it stands in a person's repository."""
    labels = {"metadata": {k: obj["metadata"][k] for k in ("name", "namespace", "labels") if k in obj["metadata"]}}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **labels, "spec": obj["spec"]}


def _written(name: str, body: bytes) -> Path:
    path = RESULTS / f"{NAME}.{name}.request.json"
    path.write_bytes(body)
    return path


def _for_bench(document: Object) -> Object:
    """An example model as this bench asks it: on the processor, without figures that were measured elsewhere."""
    name, spec = document["metadata"]["name"], document["spec"]
    variant = {**next(v for v in spec["variants"] if "cpu" in v["accelerators"]), "profiles": []}
    return {
        **document,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "task": spec["task"],
            "priority": PRIORITIES[name],
            "slo": {"latency": f"{TARGETS_MS[name]}ms", "percentile": 95},
            "pools": {"matchLabels": {"bench": NAME}},
            "variants": [variant],
        },
    }


def _point(point: Object) -> str:
    return f"{point['requestsPerSecond']:g}/s at {point['batch']} in flight, {point['latency']}, {point['watts']:g} W"


def _ready(obj: Object) -> tuple[Any, ...]:
    found: Object = next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == "Ready"), {})
    return found.get("status"), found.get("reason"), found.get("message")


def vars_of(asked: Asked) -> Object:
    """A request for the report."""
    return {"model": asked.model, "due": asked.due, "seconds": asked.latency_seconds, "problem": asked.problem}


def _table(rows: list[Row]) -> Table:
    table = Table(title="What was asked, and what followed", title_justify="left")
    table.add_column("s", justify="right")
    table.add_column("phase")
    for name in MODELS:
        table.add_column(f"{name}\n/s, replicas, p95 of {TARGETS_MS[name]} ms", justify="right")
    table.add_column("servers", justify="right")
    table.add_column("W, mean of 60 s", justify="right")
    for row in rows:
        cells = [f"{row.rates[name]:.1f}  {row.replicas[name]}  {row.p95_ms[name]:.0f}" for name in MODELS]
        table.add_row(f"{row.at:.0f}", row.phase, *cells, str(row.servers), f"{row.watts:.1f}")
    return table


def main() -> int:
    """Entry point."""
    options = parser(__doc__)
    options.add_argument("--phase-seconds", type=float, default=180.0, help="length of each of the three phases")
    options.add_argument("--limit-seconds", type=float, default=150.0, help="how long the limit is watched")
    return run_bench(NAME, options.parse_args(), bench)


if __name__ == "__main__":
    sys.exit(main())
