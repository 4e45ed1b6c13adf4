"""Whether anybody notices a move: four steady clients of one model while it moves between servers, and while a node is cordoned.

The clients: HTTP over one kept connection through the Service's address and through the Gateway, and a gRPC channel through the
Service's address and through the Gateway (with the header ergon-model). First the model's spec.pools sends it from a server of
one pool to a server of another; then the node of that server is cordoned, so that it moves to the pool's other server.
"""

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from typing import Any

from bench.clients import Answer, Clients, between
from bench.cluster import MODEL, NAMESPACE, Watch, is_ready, model, pool, prepared
from bench.common import Report, parser, percentile, run_bench, say
from bench.model_files import write_model
from bench.operator_process import Operator
from ergon.kube.client import KubeClient

FAILED_REQUESTS = 0
NAME = "moved"
_MOVE_SECONDS = 180.0


async def bench(arguments: argparse.Namespace, report: Report) -> None:
    """Measure and report."""
    uri = write_model("plain")
    operator = Operator("moves", gateway=True, connection_age_seconds=arguments.connection_age)
    async with prepared() as client, operator, Watch(MODEL, {"Ready": is_ready}, NAMESPACE) as watch:
        await client.create(pool("from", servers=1, max_models=None, drain_timeout=f"{arguments.drain_timeout}s"))
        await client.create(_spread_pool("to", arguments.drain_timeout))
        await client.create(model(NAME, uri, pool_labels={"bench": "from"}))
        say("waiting for three servers and the model")
        await watch.all_met("Ready", 1, 180)
        async with Watch(("v1", "Pod"), {"Ready": _pod_ready}, "ergon-system") as pods:
            await pods.all_met("Ready", 3, 180)
            address = (await client.get("v1", "Service", NAME, NAMESPACE))["spec"]["clusterIP"]
            clients = _clients(address, arguments)
            async with clients:
                await asyncio.sleep(arguments.rest)
                began = time.monotonic()
                await _move(client, watch)
                cordoned_at = time.monotonic()
                await _cordon(client, watch, pods)
                await asyncio.sleep(arguments.rest)
        ended = time.monotonic()
        problems = operator.problems()
    for phase, begin, end in (("at rest", 0.0, began), ("move", began, cordoned_at), ("cordon", cordoned_at, ended)):
        _tell(phase, {name: between(answers, begin, end) for name, answers in clients.answers.items()}, report)
    report.figure("the move took, drain included", cordoned_at - began, "s")
    report.figure("emptying and replacing the cordoned server took", ended - cordoned_at - arguments.rest, "s")
    report.figure("errors in the operator's log", len(problems), "")
    report.note(
        f"drainTimeout {arguments.drain_timeout} s, connection age {arguments.connection_age} s: a replica that left traffic is "
        f"unloaded after {arguments.connection_age + 10} s without a request, at the latest after drainTimeout."
    )


def _clients(address: str, arguments: argparse.Namespace) -> Clients:
    gateway = os.environ["ERGON_GATEWAY"]
    host = gateway.removeprefix("http://")
    return Clients(
        f"{NAMESPACE}.{NAME}",
        arguments.rate,
        {"HTTP through the Service": f"http://{address}:8000", "HTTP through the Gateway": gateway},
        {
            "gRPC through the Service": f"{address}:8001",
            "gRPC through the Gateway": host if ":" in host else f"{host}:80",
        },
        arguments.seed,
    )


def _tell(phase: str, answers: dict[str, list[Answer]], report: Report) -> None:
    for name, found in answers.items():
        failed = [answer for answer in found if answer.problem]
        report.bar(f"{phase}: failed requests, {name}", len(failed), FAILED_REQUESTS, f"of {len(found)}")
        report.figure(f"{phase}: slowest answer, {name}", percentile([a.latency_seconds for a in found], 1.0), "s")
        if failed:
            texts = Counter(answer.problem for answer in failed)
            report.details.setdefault("problems", {})[f"{phase}, {name}"] = texts.most_common(5)
            report.note(f"{phase}, {name}: first failure {failed[0].problem[:160]}")


async def _move(client: KubeClient, watch: Watch) -> None:
    """Have the model stand in the other pool alone, its old replica unloaded."""
    say("the model moves to a server of another pool")
    patch = {"spec": {"pools": {"matchLabels": {"bench": "to"}}}}
    await client.patch_merge(*MODEL, NAME, NAMESPACE, patch)
    await watch.until(lambda: _stands_on(watch) == {("to", "Ready")}, _MOVE_SECONDS, "the move")


async def _cordon(client: KubeClient, watch: Watch, pods: Watch) -> None:
    """Cordon the node under the model and wait until its server is empty and replaced."""
    placement = watch.objects[NAME]["status"]["placements"][0]
    pod = f"ergon-to-{placement['server']}"
    node, uid = pods.objects[pod]["spec"]["nodeName"], pods.objects[pod]["metadata"]["uid"]
    say(f"node {node} is cordoned")
    await client.patch_merge("v1", "Node", node, None, {"spec": {"unschedulable": True}})
    await watch.until(
        lambda: [p["server"] for p in _placements(watch)] not in ([], [placement["server"]]) and len(_placements(watch)) == 1,
        _MOVE_SECONDS,
        "the emptying of the cordoned server",
    )
    await pods.until(lambda: pods.objects.get(pod, {}).get("metadata", {}).get("uid", uid) != uid, 120, "a new server")
    await client.patch_merge("v1", "Node", node, None, {"spec": {"unschedulable": None}})


def _placements(watch: Watch) -> list[dict[str, Any]]:
    return list((watch.objects[NAME].get("status") or {}).get("placements") or ())


def _stands_on(watch: Watch) -> set[tuple[str, str]]:
    return {(placement["pool"], placement["state"]) for placement in _placements(watch)}


def _spread_pool(name: str, drain_timeout: int) -> dict[str, Any]:
    """Two servers on two nodes, so that one can be cordoned."""
    apart = {
        "labelSelector": {"matchLabels": {"ergon.dev/pool": name}},
        "topologyKey": "kubernetes.io/hostname",
    }
    spec = {
        "nodeSelector": {"ergon.dev/simulated": "true"},
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
    }
    return pool(name, servers=2, max_models=None, drain_timeout=f"{drain_timeout}s", pod_spec=spec)


def _pod_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def main() -> int:
    """Entry point."""
    options = parser(__doc__)
    options.add_argument("--rate", type=float, default=20.0, help="requests a second of each client")
    options.add_argument("--rest", type=float, default=10.0, help="seconds to measure before and after")
    options.add_argument("--drain-timeout", type=int, default=30, help="the pools' drainTimeout in seconds")
    options.add_argument("--connection-age", type=int, default=10, help="seconds after which gRPC clients connect anew")
    return run_bench("moves", options.parse_args(), bench)


if __name__ == "__main__":
    sys.exit(main())
