"""Joules on real servers: what a model's work takes is booked to it, shown to people, and kept when the operator ends."""

import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.engine.test_profile import SERVICE_SECONDS, SLOW
from tests.engine.world import BIN, Operator, World, model, until, write_model

pytestmark = pytest.mark.cluster

PROFILE = {"accelerator": "cpu", "batch": 1, "requestsPerSecond": 1 / SERVICE_SECONDS, "latency": "20ms", "watts": 110}
REQUESTS = 40


def series(world: World, operator: Operator, name: str) -> dict[str, float]:
    """A metric of the operator by its last label: the account, or the model."""
    page = world.inside("curl", "-s", "-m", "5", f"http://127.0.0.1:{operator.port}/metrics").stdout
    families = {family.name: family for family in text_string_to_metric_families(page)}
    label = "account" if name == "ergon_pool_joules" else "model"
    pool = {"pool": "cpu"} if label == "account" else {}
    return {
        sample.labels[label]: sample.value
        for sample in (families[name].samples if name in families else ())
        if pool.items() <= sample.labels.items()
    }


def test_work_is_booked_to_its_model_and_outlives_the_operator(world: World, operator: Operator) -> None:
    with world.namespace() as namespace:
        world.apply(model(namespace, "slow", write_model(world.cluster.models, "slow", SLOW), variant={"profiles": [PROFILE]}))
        world.ready(namespace, "slow")
        world.ask_often(namespace, "slow", REQUESTS)
        # 100 W above idle for each busy second, of which every request takes its service time at least.
        least = 0.95 * 100 * SERVICE_SECONDS * REQUESTS
        until(lambda: series(world, operator, "ergon_model_joules").get("slow", 0) >= least, "the work on the books", 40)
        assert series(world, operator, "ergon_model_joules")["slow"] < 2 * least
        energy = until(lambda: world.model(namespace, "slow")["status"].get("energy"), "energy in the status", 30)
        assert energy["provenance"] == "assumed"
        assert energy["joulesPerRequest"] >= 0.95 * 100 * SERVICE_SECONDS
        environment = {"KUBECONFIG": str(world.cluster.kubeconfig), "PATH": f"{BIN}:/usr/bin:/bin"}
        top = subprocess.run([BIN / "ergon", "top"], env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert f"{namespace}/slow" in top.stdout, top.stderr
        before = series(world, operator, "ergon_pool_joules")
        mine = series(world, operator, "ergon_model_joules")["slow"]
        operator.stop()
        world.ask_often(namespace, "slow", REQUESTS)  # while nobody looks: the server counts on
        after = world.operator()
        after.leads()
        booked = until(lambda: series(world, after, "ergon_pool_joules"), "a new ledger", 40)
        assert all(booked[account] >= joules for account, joules in before.items()), (before, booked)
        now = until(lambda: series(world, after, "ergon_model_joules").get("slow"), "the model's account", 10)
        assert least <= now - mine < 2 * least, (mine, now)
