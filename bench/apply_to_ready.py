"""How long a small model takes from its creation in the API to Ready=True, beyond what Triton itself needs to load it.

Models are created one after another, their files at hand. The same loads are then asked of the same server without an operator.
"""

import argparse
import sys
import time

from bench.bare import bare_loads
from bench.cluster import MODEL, NAMESPACE, Watch, is_ready, model, pool, prepared
from bench.common import Report, parser, percentile, run_bench, say
from bench.model_files import write_model
from bench.operator_process import Operator
from ergon.kube.client import KubeClient

BEYOND_LOAD_P95_SECONDS = 1.0
POOL = "apply"


async def bench(arguments: argparse.Namespace, report: Report) -> None:
    """Measure and report."""
    uri = write_model("plain")
    names = [f"model-{number}" for number in range(arguments.models)]
    async with prepared() as client, Watch(MODEL, {"Ready": is_ready}, NAMESPACE) as watch:
        async with Operator("apply_to_ready") as operator:
            await client.create(pool(POOL, servers=1, max_models=None))
            await client.create(model("warm-up", uri))
            say("waiting for the server and a first model, which does not count")
            await watch.all_met("Ready", 1, 120)
            say(f"{arguments.models} models, one after another")
            took = [await apply(client, watch, name, uri) for name in names]
            loads = [watch.objects[name]["status"]["coldStart"]["loadSeconds"] for name in names]
            problems = operator.problems()
        say("the same loads without the operator")
        bare = await bare_loads(client, POOL, 0, names)
    beyond = [total - load for total, load in zip(took, bare, strict=True)]
    beyond_own = [total - load for total, load in zip(took, loads, strict=True)]
    report.bar("create to Ready beyond a bare load, p95", percentile(beyond, 0.95), BEYOND_LOAD_P95_SECONDS, "s")
    report.figure("create to Ready beyond a bare load, p50", percentile(beyond, 0.5), "s")
    for title, values in (
        ("create to Ready", took),
        ("bare load", bare),
        ("load as the operator saw it", loads),
        ("beyond that", beyond_own),
    ):
        report.figure(f"{title}, p50", percentile(values, 0.5), "s")
        report.figure(f"{title}, p95", percentile(values, 0.95), "s")
    report.details = {"create_to_ready_seconds": took, "bare_load_seconds": bare, "operator_load_seconds": loads}
    report.figure("errors in the operator's log", len(problems), "")


async def apply(client: KubeClient, watch: Watch, name: str, uri: str) -> float:
    """Create one model and wait until a watch shows it Ready; seconds."""
    began = time.monotonic()
    await client.create(model(name, uri))
    await watch.until(lambda: name in watch.met["Ready"], 60, f"{name} Ready")
    return watch.met["Ready"][name] - began


def main() -> int:
    """Entry point."""
    options = parser(__doc__)
    options.add_argument("--models", type=int, default=30, help="how many models")
    return run_bench("apply_to_ready", options.parse_args(), bench)


if __name__ == "__main__":
    sys.exit(main())
