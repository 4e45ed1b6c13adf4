"""Many small models on a few real servers, and what their loading costs a model that already serves there.

Two parts. Wall time until all are Ready, over the sum of Triton's own load times. And the 99th percentile of one model's
latency, asked for steadily over a kept HTTP connection and a gRPC channel at the server's own address, while the others load,
against without: once with models that sleep in `initialize`, created one after the other (so that processors are not what is
short), once with ordinary ones, created all at once.
"""

import argparse
import asyncio
import sys
import time

from bench.bare import bare_loads, unloaded
from bench.clients import Clients, between, p99_seconds
from bench.cluster import MODEL, NAMESPACE, Watch, for_all, is_ready, model, pool, pool_keys, prepared, server_addresses
from bench.common import Report, parser, percentile, run_bench, say
from bench.model_files import write_model
from bench.operator_process import Operator
from ergon.kube.client import KubeClient
from ergon.triton.client import TritonServer

P99_RATIO = 1.2
POOL = "many"
SLEEP_SECONDS = 2.0
STEADY = "steady"
_LOAD_SECONDS = 900.0


async def bench(arguments: argparse.Namespace, report: Report) -> None:
    """Measure and report."""
    uris = {"sleeping": write_model("sleeping", SLEEP_SECONDS), "ordinary": write_model("plain")}
    counts = {"sleeping": min(arguments.sleeping, arguments.models), "ordinary": arguments.models}
    async with prepared() as client, Watch(MODEL, {"Ready": is_ready}, NAMESPACE) as watch:
        async with Operator("many_models") as operator:
            per_server = -(-(arguments.models + 1) // arguments.servers)
            await client.create(pool(POOL, servers=arguments.servers, max_models=per_server))
            await client.create(model(STEADY, uris["ordinary"]))
            say(f"waiting for {arguments.servers} servers and the model that is asked")
            await watch.all_met("Ready", 1, 180)
            await _servers_up(client, arguments.servers)
            for kind, count in counts.items():
                await measure(kind, count, uris[kind], client, watch, arguments, report)
            problems = operator.problems()
            seen = {name: obj for name, obj in watch.objects.items() if name.startswith("ordinary-")}
        say("some of the same loads without the operator, one at a time")
        first = sorted(name for name, obj in seen.items() if obj["status"]["placements"][0]["server"] == 0)[:20]
        bare = await bare_loads(client, POOL, 0, first)
    own = [obj["status"]["coldStart"]["loadSeconds"] for obj in seen.values()]
    wall = report.details["wall_seconds"]["ordinary"]
    bare_sum = percentile(bare, 0.5) * counts["ordinary"]
    report.figure("bare load, one at a time, p50", percentile(bare, 0.5), "s")
    report.figure("all Ready: wall over bare loads (their median times the count)", wall / bare_sum, "x")
    report.figure("all Ready: wall over the sum of loads as they were, several at once", wall / sum(own), "x")
    report.figure("errors in the operator's log", len(problems), "")
    report.note(f"{arguments.servers} servers share this machine's processors; at most 6 models load at a time on each.")


async def measure(
    kind: str, count: int, uri: str, client: KubeClient, watch: Watch, arguments: argparse.Namespace, report: Report
) -> None:
    """One part: latencies at rest, then while `count` models load; the models are removed again but for the last part."""
    address = (await server_addresses(client, POOL))[0]
    names = [f"{kind}-{number}" for number in range(count)]
    clients = Clients(
        f"{NAMESPACE}.{STEADY}", arguments.rate, {"HTTP": f"http://{address}:8000"}, {"gRPC": f"{address}:8001"}, arguments.seed
    )
    every = arguments.every if kind == "sleeping" else 0.0
    say(f"{arguments.rest:g} s at rest, then {count} {kind} models, " + (f"one each {every:g} s" if every else "all at once"))
    async with clients:
        rest_began = time.monotonic()
        await asyncio.sleep(arguments.rest)
        began = time.monotonic()
        if every:
            await _create_slowly(client, names, uri, every)
        else:
            await for_all(names, lambda name: client.create(model(name, uri)))
        ended = await watch.all_met("Ready", len(watch.met["Ready"].keys() - set(names)) + count, _LOAD_SECONDS)
        await asyncio.sleep(1.0)
    report.details.setdefault("wall_seconds", {})[kind] = ended - began
    if not every:
        report.figure(f"{count} {kind} models all Ready after", ended - began, "s")
    for protocol, answers in clients.answers.items():
        rest = p99_seconds(between(answers, rest_began, began))
        loading = p99_seconds(between(answers, began, ended))
        failed = [answer for answer in answers if answer.problem]
        if kind == "sleeping":
            report.bar(f"p99 by {protocol}, {kind} models loading over at rest", loading / rest, P99_RATIO, "x")
        else:
            report.figure(f"p99 by {protocol}, {kind} models loading over at rest", loading / rest, "x")
        report.figure(f"p99 by {protocol} at rest", rest * 1000, "ms")
        report.figure(f"p99 by {protocol} while {kind} models load", loading * 1000, "ms")
        report.figure(f"failed requests by {protocol} while {kind} models load", len(failed), "")
    if kind == "sleeping":
        say("removing them again")
        await for_all(names, lambda name: client.delete(*MODEL, name, NAMESPACE))
        await _emptied(client, names)


async def _create_slowly(client: KubeClient, names: list[str], uri: str, every_seconds: float) -> None:
    began = time.monotonic()
    for number, name in enumerate(names):
        await asyncio.sleep(max(0.0, began + number * every_seconds - time.monotonic()))
        await client.create(model(name, uri))


async def _servers_up(client: KubeClient, count: int) -> None:
    """Until all servers of the pool are ready, so that their start is in no figure."""
    async with Watch(("v1", "Pod"), {"Ready": _pod_ready}, "ergon-system") as pods:
        await pods.all_met("Ready", count, 180)


def _pod_ready(pod: dict[str, object]) -> bool:
    status = pod.get("status")
    conditions = status.get("conditions") or [] if isinstance(status, dict) else []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def _emptied(client: KubeClient, names: list[str]) -> None:
    """Until no server's Triton has any of these loaded, so that the next part begins from the same state."""
    keys = await pool_keys(client, POOL)
    for address in await server_addresses(client, POOL):
        triton = TritonServer(f"{address}:8001", keys.admin_key)
        try:
            await unloaded(triton, {f"{NAMESPACE}.{name}" for name in names}, 120)
        finally:
            await triton.close()


def main() -> int:
    """Entry point."""
    options = parser(__doc__)
    options.add_argument("--models", type=int, default=200, help="how many models in all")
    options.add_argument("--sleeping", type=int, default=60, help="how many models that sleep in initialize")
    options.add_argument("--every", type=float, default=0.5, help="seconds between two models that sleep")
    options.add_argument("--servers", type=int, default=4, help="how many servers")
    options.add_argument("--rate", type=float, default=50.0, help="requests a second of each client")
    options.add_argument("--rest", type=float, default=20.0, help="seconds to measure at rest")
    return run_bench("many_models", options.parse_args(), bench)


if __name__ == "__main__":
    sys.exit(main())
