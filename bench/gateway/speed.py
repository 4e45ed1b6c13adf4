"""How fast the gateway is: the CPU it takes for a request, and the time it adds, beside going straight and beside Traefik.

A back-end in Go answers at once. The gateway (or Traefik) has one core for itself; the load generator (vegeta) and the back-end
have the other. Saturation: as many requests as 32 or 256 connections carry, and the CPU seconds that the process took for them.
Added time: requests at a constant rate over at most 32 connections, each one's time counted from when it was due; straight to the
back-end and through the gateway in turn, at a quarter and at half of what saturates the gateway.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.cluster import NAMESPACE, prepared
from bench.common import RESULTS, BenchFailed, Report, parser, run_bench, say
from bench.gateway import tools
from bench.operator_process import usage_of
from ergon.kube.client import KubeClient

ADDRESS = "10.244.0.1"
"""The node's own address among the pods', which an EndpointSlice may name."""
BACKEND_PORT, GATEWAY_PORT, TRAEFIK_PORT = 9001, 9100, 9200
BODY_BYTES = 4096
INFER = "/v2/models/bench.instant/infer"
ROUTES = {"plain": f"/{NAMESPACE}/plain/v2/models/any/infer", "judged": f"/{NAMESPACE}/judged/v2/models/any/infer"}


@dataclass(frozen=True)
class Load:
    """What one run of the load generator found. Latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float
    failed: int


async def bench(arguments: argparse.Namespace, report: Report) -> None:
    """Measure and report."""
    async with (
        prepared() as client,
        _process(0, _load_core(), [str(tools.folder() / "backend"), f"{ADDRESS}:{BACKEND_PORT}", "bench.instant"]),
    ):
        await _objects(client)
        async with _gateway() as pid:
            base = f"http://127.0.0.1:{GATEWAY_PORT}"
            targets = {
                "a model": base + INFER,
                "a route": base + ROUTES["plain"],
                "a route that reads a confidence": base + ROUTES["judged"],
            }
            rates = {}
            for name, url in targets.items():
                per_cpu, load = await _saturate(url, pid, 32, arguments.seconds)
                rates[name] = load.per_second
                report.figure(f"{name}: requests a CPU second, 32 connections", per_cpu, "1/s")
                report.figure(f"{name}: requests a second at saturation, 32 connections", load.per_second, "1/s")
                _at_least(report, f"{name}: CPU second for so many requests", per_cpu, 1000 if "confidence" in name else 2000)
                _none_failed(load, name)
            _, wide = await _saturate(targets["a route"], pid, 256, arguments.seconds)
            report.figure("a route: requests a second at saturation, 256 connections", wide.per_second, "1/s")
            report.bar("a route: saturation at 32 over that at 256 connections", rates["a route"] / wide.per_second, 1 / 0.7, "x")
            for share in (0.25, 0.5):
                await _added(report, targets, rates, share, arguments)
        async with _traefik() as pid:
            per_cpu, load = await _saturate(f"http://127.0.0.1:{TRAEFIK_PORT}{INFER}", pid, 32, arguments.seconds)
            report.figure("Traefik: requests a CPU second, 32 connections", per_cpu, "1/s")
            report.figure("Traefik: requests a second at saturation, 32 connections", load.per_second, "1/s")
            straight = await _attack(f"http://{ADDRESS}:{BACKEND_PORT}{INFER}", rates["a route"] / 2, 32, arguments.seconds)
            through = await _attack(f"http://127.0.0.1:{TRAEFIK_PORT}{INFER}", rates["a route"] / 2, 32, arguments.seconds)
            report.figure("Traefik at the gateway's 50 %: added p50", through.p50 - straight.p50, "ms")
            report.figure("Traefik at the gateway's 50 %: added p99", through.p99 - straight.p99, "ms")


async def _added(
    report: Report, targets: dict[str, str], rates: dict[str, float], share: float, arguments: argparse.Namespace
) -> None:
    for name in ("a route", "a route that reads a confidence"):
        rate = rates[name] * share
        straight, through = [], []
        for _ in range(arguments.rounds):
            straight.append(await _attack(f"http://{ADDRESS}:{BACKEND_PORT}{INFER}", rate, 32, arguments.seconds))
            through.append(await _attack(targets[name], rate, 32, arguments.seconds))
        say(f"{name} at {share:.0%}, {rate:.0f}/s: straight {straight}, through {through}")
        for quantile, bar in (("p50", 1.0), ("p99", 5.0)):
            added = statistics.median(getattr(load, quantile) for load in through)
            added -= statistics.median(getattr(load, quantile) for load in straight)
            report.bar(f"{name} at {share:.0%} of saturation ({rate:.0f}/s): added {quantile}", added, bar, "ms")
        _none_failed(through[-1], name)


def _at_least(report: Report, name: str, value: float, least: float) -> None:
    """A bar from below, as milliseconds that may be taken."""
    report.bar(f"{name}, as ms each", 1000 / value, 1000 / least, "ms")


def _none_failed(load: Load, name: str) -> None:
    if load.failed:
        raise BenchFailed(f"{name}: {load.failed} requests failed; see bench/results/gateway.log")


async def _saturate(url: str, pid: int, connections: int, seconds: float) -> tuple[float, Load]:
    """Requests a CPU second of the process, and what came through."""
    await _attack(url, 0, connections, 1.0)
    before = usage_of(pid).cpu_seconds
    load = await _attack(url, 0, connections, seconds)
    used = usage_of(pid).cpu_seconds - before
    say(f"{url}: {load}, {used:.2f} CPU s")
    return load.per_second * seconds / used, load


async def _attack(url: str, rate: float, connections: int, seconds: float) -> Load:
    """Requests at a rate; 0: as many as the connections carry."""
    work = RESULTS / "gateway-load"
    work.mkdir(parents=True, exist_ok=True)
    body = {"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["x" * (BODY_BYTES - 80)]}]}
    (work / "body.json").write_text(json.dumps(body, separators=(",", ":")))
    (work / "target").write_text(f"POST {url}\nContent-Type: application/json\n@{work / 'body.json'}\n")
    most = (
        ["-max-workers", str(connections)] if not rate else ["-workers", str(connections), "-max-connections", str(connections)]
    )
    command = [str(tools.folder() / "vegeta"), "attack", "-targets", str(work / "target"), "-duration", f"{seconds}s"]
    command += ["-rate", f"{rate:.0f}/1s" if rate else "0", "-connections", str(connections), *most]
    with (work / "results").open("wb") as out:
        done = await asyncio.create_subprocess_exec(*command, stdout=out, preexec_fn=_on(_load_core()))
        await done.wait()
    reading = await asyncio.create_subprocess_exec(
        str(tools.folder() / "vegeta"), "report", "-type=json", str(work / "results"), stdout=asyncio.subprocess.PIPE
    )
    found = json.loads((await reading.communicate())[0])
    good = int(found["status_codes"].get("200", 0))
    latency = found["latencies"]
    return Load(good / (found["duration"] / 1e9), latency["50th"] / 1e6, latency["99th"] / 1e6, found["requests"] - good)


async def _objects(client: KubeClient) -> None:
    """A model that is ready at the back-end, and two routes to it. No operator runs."""
    variant = {"name": "cpu", "accelerators": ["cpu"], "backend": "python", "source": {"uri": "file:///none"}, "memory": "1Mi"}
    of_ergon: dict[str, Any] = {"apiVersion": "ergon.dev/v1alpha1"}
    await client.apply(
        {
            **of_ergon,
            "kind": "SpecializedModel",
            "metadata": {"name": "instant", "namespace": NAMESPACE},
            "spec": {"task": "instant", "variants": [variant]},
        }
    )
    await client.apply(
        {
            **of_ergon,
            "kind": "SpecializedModel",
            "metadata": {"name": "spare", "namespace": NAMESPACE},
            "spec": {"task": "spare", "variants": [{**variant, "quality": 0.9}]},
        }
    )
    labels = {"app.kubernetes.io/managed-by": "ergon", "ergon.dev/model": "instant", "ergon.dev/namespace": NAMESPACE}
    await client.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "instant-0", "namespace": NAMESPACE, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": BACKEND_PORT}],
            "endpoints": [{"addresses": [ADDRESS]}],
        }
    )
    judged = {"candidates": {}, "anyTask": True, "escalation": {"when": [{"output": "CONFIDENCE", "below": 0.5}]}}
    for name, more in (("plain", {}), ("judged", judged)):
        await client.apply(
            {
                **of_ergon,
                "kind": "TaskRoute",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"task": "instant", **more},
            }
        )


@asynccontextmanager
async def _gateway() -> AsyncIterator[int]:
    command = [str(Path(sys.executable).parent / "ergon"), "gateway", "--host=127.0.0.1", f"--http-port={GATEWAY_PORT}"]
    command += [f"--grpc-port={GATEWAY_PORT + 1}", f"--health-port={GATEWAY_PORT + 2}", f"--server-http-port={BACKEND_PORT}"]
    async with _process(GATEWAY_PORT, 0, [*command, "--drain-seconds=0", "--log-format=text"]) as pid:
        yield pid


@asynccontextmanager
async def _traefik() -> AsyncIterator[int]:
    work = RESULTS / "gateway-load"
    service = {"loadBalancer": {"servers": [{"url": f"http://{ADDRESS}:{BACKEND_PORT}"}]}}
    routers = {"instant": {"rule": "PathPrefix(`/v2/models/bench.instant`)", "service": "instant"}}
    (work / "traefik.yaml").write_text(json.dumps({"http": {"routers": routers, "services": {"instant": service}}}))
    command = [str(tools.traefik()), f"--entrypoints.web.address=127.0.0.1:{TRAEFIK_PORT}", "--log.level=ERROR"]
    command += [f"--providers.file.filename={work / 'traefik.yaml'}", "--global.checknewversion=false"]
    async with _process(TRAEFIK_PORT, 0, [*command, "--global.sendanonymoususage=false"]) as pid:
        yield pid


@asynccontextmanager
async def _process(port: int, core: int, command: list[str]) -> AsyncIterator[int]:
    """A process on one core, once its port answers (0: it is not waited for); its pid."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "gateway.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - a fork, and its pid is wanted at once
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_on(core)
        )
    try:
        if port:
            await _answers(f"http://127.0.0.1:{port}{INFER}")
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 30)


async def _answers(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(300):
            try:
                async with session.post(url, data=b"{}") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise BenchFailed(f"{url} does not answer; see bench/results/gateway.log")


def _load_core() -> int:
    return max(os.sched_getaffinity(0))


def _on(core: int) -> Any:
    return lambda: os.sched_setaffinity(0, {core})


def main() -> int:
    """Run the bench; the exit code."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=10.0, help="length of each load")
    options.add_argument("--rounds", type=int, default=3, help="how often straight and through are measured in turn")
    arguments = options.parse_args()
    if os.environ.get("ERGON_CLUSTER") != arguments.cluster:
        try:
            tools.make()
        except BenchFailed as problem:
            say(str(problem))
            return 1
    return run_bench("gateway.speed", arguments, bench)


if __name__ == "__main__":
    sys.exit(main())
