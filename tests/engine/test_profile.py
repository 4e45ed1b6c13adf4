"""`ergon profile` on a real server: a model whose service time is known."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.engine.world import BIN, World, model, until, write_model

pytestmark = pytest.mark.cluster

SERVICE_SECONDS = 0.02
SLOW = f"""
import time
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        time.sleep({SERVICE_SECONDS} * len(requests))
        return [pb.InferenceResponse([pb.Tensor("Y", pb.get_input_tensor_by_name(r, "X").as_numpy())]) for r in requests]
"""


def profile(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a person outside the cluster sees, asking through the Gateway."""
    environment = {**os.environ, "KUBECONFIG": str(world.cluster.kubeconfig), "ERGON_GATEWAY": world.cluster.gateway}
    command = [str(BIN / "ergon"), "profile", *arguments, "--seconds", "0.4", "--max-in-flight", "4"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_model_is_measured_as_fast_as_it_is(world: World, tmp_path: Path) -> None:
    with world.namespace() as namespace:
        world.apply(model(namespace, "slow", write_model(world.cluster.models, "slow", SLOW)))
        world.ready(namespace, "slow")
        done = until(lambda: _answered(profile(world, f"{namespace}/slow", "-o", "json")), "a profile", 60)
        points = json.loads(done.stdout)["profiles"]
        assert points[0]["accelerator"] == "cpu"
        assert points[0]["batch"] == 1
        # One instance, one request after the other: never above 1 / service time, and not far below it.
        assert 0.5 / SERVICE_SECONDS < points[-1]["requestsPerSecond"] <= 1.02 / SERVICE_SECONDS
        assert float(points[0]["latency"].removesuffix("ms")) >= SERVICE_SECONDS * 1000
        assert "--request FILE" in done.stderr
        wrong = tmp_path / "request.json"
        wrong.write_text('{"inputs": []}')
        refused = profile(world, f"{namespace}/slow", "--request", str(wrong))
        assert refused.returncode == 1
        assert "answers HTTP 400" in refused.stderr
        assert "there is no SpecializedModel" in profile(world, f"{namespace}/nobody").stderr


def _answered(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str] | None:
    """None while the Gateway has not seen the route yet."""
    return done if done.returncode == 0 else None
