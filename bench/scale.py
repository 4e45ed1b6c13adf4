"""What many models cost the operator itself.

First 10,000 models that no pool takes: from the operator's start until every status is written, what it holds in memory, what
it does in a minute in which nothing changes, and how soon it is synced when it starts again. Then 1,000 models created at once,
until all are placed and their endpoints written, on servers whose Triton and store are stand-ins that answer at once
(bench/standins), so that only the operator and the API server are measured.
"""

import argparse
import asyncio
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from bench.cluster import MODEL, NAMESPACE, SLICE, Watch, condition, for_all, is_ready, model, pool, prepared
from bench.common import BenchFailed, Report, parser, run_bench, say
from bench.model_files import sources
from bench.operator_process import Operator
from ergon.kube.client import KubeClient

SYNCED_SECONDS = 30.0
RESIDENT_MEGABYTES = 500.0
IDLE_CORE_SHARE = 0.05
IDLE_WRITES = 0
PLACED_SECONDS = 10.0
POOL = "standins"
_WAIT_SECONDS = 600.0
_SETTLE_SECONDS = 12.0
_MEGABYTE = 1e6


async def bench(arguments: argparse.Namespace, report: Report) -> None:
    """Measure and report."""
    async with prepared() as client:
        if arguments.unplaced:
            await unplaced(client, arguments, report)
        if arguments.placed:
            await placed(client, arguments, report)


async def unplaced(client: KubeClient, arguments: argparse.Namespace, report: Report) -> None:
    """The first part: models that stand nowhere."""
    count = arguments.unplaced
    say(f"creating {count} models that no pool takes")
    for name in ("gpu-a", "gpu-b"):
        await client.create(_other_pool(name))
    names = [f"model-{number}" for number in range(count)]
    await for_all(names, lambda name: client.create(model(name, "file:///plain")))
    operator = Operator("scale")
    async with Watch(MODEL, {"written": _status_written}, NAMESPACE) as watch:
        async with operator:
            say("the operator starts for the first time")
            written_at = await watch.all_met("written", count, _WAIT_SECONDS)
            report.bar(f"{count} models: start to all statuses written", written_at - operator.started_at, SYNCED_SECONDS, "s")
            report.figure(f"{count} models: CPU until then", operator.usage().cpu_seconds, "s")
            await idle_minute(count, operator, watch, arguments, report)
            problems = operator.problems()
        say("the operator starts again, the statuses being there")
        await operator.start()
        try:
            report.figure(f"{count} models: restart to synced", await operator.synced(count, _WAIT_SECONDS), "s")
            report.figure(f"{count} models: CPU of the restart", operator.usage().cpu_seconds, "s")
            await asyncio.sleep(_SETTLE_SECONDS)
            report.figure(f"{count} models: API writes of the restart", await operator.writes(), "")
            report.figure(f"{count} models: resident after the restart", operator.usage().resident_bytes / _MEGABYTE, "MB")
        finally:
            await operator.stop()
    report.figure("errors in the operator's log", len(problems + operator.problems()), "")
    say("removing them")
    await for_all(names, lambda name: client.delete(*MODEL, name, NAMESPACE))


async def idle_minute(count: int, operator: Operator, watch: Watch, arguments: argparse.Namespace, report: Report) -> None:
    """What the operator does while nothing changes."""
    await operator.synced(count, _WAIT_SECONDS)
    await asyncio.sleep(_SETTLE_SECONDS)
    say(f"{arguments.idle:g} s in which nothing changes")
    writes, events, before, began = await operator.writes(), watch.events, operator.usage(), time.monotonic()
    await asyncio.sleep(arguments.idle)
    after, seconds = operator.usage(), time.monotonic() - began
    share = (after.cpu_seconds - before.cpu_seconds) / seconds
    report.bar(f"{count} models: resident memory, at most", after.peak_bytes / _MEGABYTE, RESIDENT_MEGABYTES, "MB")
    report.bar(f"{count} models: share of a core when nothing changes", share, IDLE_CORE_SHARE, "")
    report.bar(f"{count} models: API writes when nothing changes", await operator.writes() - writes, IDLE_WRITES, "")
    report.figure(f"{count} models: resident memory when nothing changes", after.resident_bytes / _MEGABYTE, "MB")
    report.figure(f"{count} models: changes of models seen by a watch meanwhile", watch.events - events, "")


async def placed(client: KubeClient, arguments: argparse.Namespace, report: Report) -> None:
    """The second part: models that are placed, on stand-ins."""
    count = arguments.placed
    folder = sources() / "standins"
    shutil.copytree(Path(__file__).parent / "standins", folder, dirs_exist_ok=True)
    (sources() / "plain").mkdir(exist_ok=True)
    names = [f"placed-{number}" for number in range(count)]
    milestones = {"placed": _is_placed, "Ready": is_ready}
    models, slices = Watch(MODEL, milestones, NAMESPACE), Watch(SLICE, {"endpoint": _has_endpoint}, NAMESPACE)
    async with Operator("scale_placed", gateway=arguments.gateway) as operator, models, slices:
        say(f"waiting for {arguments.servers} servers of stand-ins")
        await client.create(_stand_in_pool(arguments.servers, -(-count // arguments.servers)))
        await _answering(operator, arguments.servers)
        say(f"{count} models at once")
        before, writes, began = operator.usage(), await operator.writes(), time.monotonic()
        await for_all(names, lambda name: client.create(model(name, "file:///plain")))
        created_at = time.monotonic()
        endpoints_at = await slices.all_met("endpoint", count, _WAIT_SECONDS)
        placed_at = await models.all_met("placed", count, _WAIT_SECONDS)
        ready_at = await models.all_met("Ready", count, _WAIT_SECONDS)
        after = operator.usage()
        report.bar(f"{count} models at once: endpoints of all written", endpoints_at - began, PLACED_SECONDS, "s")
        report.figure(f"{count} models at once: their creation itself", created_at - began, "s")
        report.figure(f"{count} models at once: all placed by their statuses", placed_at - began, "s")
        report.figure(f"{count} models at once: all Ready by their statuses", ready_at - began, "s")
        report.figure(f"{count} models at once: CPU of the operator", after.cpu_seconds - before.cpu_seconds, "s")
        report.figure(f"{count} models at once: API writes", await operator.writes() - writes, "")
        report.figure(f"{count} models at once: resident memory, at most", after.peak_bytes / _MEGABYTE, "MB")
        report.figure(f"{count} models at once: errors in the operator's log", len(operator.problems()), "")
    report.note(
        f"{arguments.servers} servers of stand-ins in Python for Triton and the store; they take their share of this machine. "
        f"Gateway routes: {'written too' if arguments.gateway else 'none (no Gateway, the default)'}."
    )


async def _answering(operator: Operator, count: int) -> None:
    ends_at = time.monotonic() + 300
    while (await operator.metrics()).get(f'ergon_servers{{pool="{POOL}"}}', 0) < count:
        if time.monotonic() > ends_at:
            raise BenchFailed(f"not all {count} servers of stand-ins answer after 300 s; see kubectl get pods -n ergon-system")
        await asyncio.sleep(0.2)


def _other_pool(name: str) -> dict[str, Any]:
    """A pool of another class of accelerator, so that there is something to say no."""
    made = pool(name, servers=0, max_models=None)
    made["spec"] |= {"accelerator": {"class": "gpu"}, "servers": {"min": 0, "max": 1}}
    return made


def _stand_in_pool(servers: int, max_models: int) -> dict[str, Any]:
    """Servers whose images hold nothing but a `python`, and whose `tritonserver` and `rclone` come from a mounted folder."""
    found_first = [{"name": "PATH", "value": "/standins:/opt/ergon/bin:/usr/local/bin:/usr/bin:/bin"}]
    mounted = [{"name": "standins", "mountPath": "/standins", "readOnly": True}]
    containers = [
        {"name": "triton", "env": found_first, "volumeMounts": mounted},
        {"name": "store", "image": "python:3.11", "env": found_first, "volumeMounts": mounted},
    ]
    volumes = [{"name": "standins", "hostPath": {"path": "/var/lib/ergon/sources/standins"}}]
    made = pool(POOL, servers=servers, max_models=max_models, pod_spec={"containers": containers, "volumes": volumes})
    template = made["spec"]["template"]["spec"]
    template["containers"] = _merged(template["containers"])
    made["spec"] |= {"memory": "1100Mi", "triton": {"image": "python:3.11", "backends": ["python"]}}
    return made


def _merged(containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a container: mounts of entries with one name come together."""
    found: dict[str, dict[str, Any]] = {}
    for container in containers:
        old = found.get(container["name"], {})
        mounts = [*old.get("volumeMounts", []), *container.get("volumeMounts", [])]
        found[container["name"]] = {**old, **container, "volumeMounts": mounts}
    return list(found.values())


def _status_written(obj: dict[str, Any]) -> bool:
    return bool(condition(obj, "Ready"))


def _is_placed(obj: dict[str, Any]) -> bool:
    return bool((obj.get("status") or {}).get("placements"))


def _has_endpoint(obj: dict[str, Any]) -> bool:
    return any(endpoint["addresses"] for endpoint in obj.get("endpoints") or ())


def main() -> int:
    """Entry point."""
    options = parser(__doc__)
    options.add_argument(
        "--unplaced", type=int, default=10_000, help="how many models that no pool takes; 0 leaves this part out"
    )
    options.add_argument("--placed", type=int, default=1000, help="how many models at once on stand-ins; 0 leaves this part out")
    options.add_argument("--servers", type=int, default=10, help="how many servers of stand-ins")
    options.add_argument("--idle", type=float, default=60.0, help="seconds in which nothing changes")
    options.add_argument("--gateway", action="store_true", help="write Gateway routes for placed models too")
    return run_bench("scale", options.parse_args(), bench)


if __name__ == "__main__":
    sys.exit(main())
