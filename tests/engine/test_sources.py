"""A model from a real S3 endpoint, with credentials from a Secret; and with wrong ones."""

import base64
import subprocess
from collections.abc import Iterator

import pytest

from ergon.local import triton_env
from ergon.local.progress import Progress
from tests.engine.world import Object, World, model, until, write_model
from tests.inside import inside

pytestmark = pytest.mark.cluster

ENDPOINT = "http://127.0.0.1:9100"
KEYS = ("reader", "correct-horse")


@pytest.fixture
def s3(world: World) -> Iterator[str]:
    """The bucket `models`, served by rclone inside the cluster's network; its URI."""
    root = world.cluster.models / "s3"
    (root / "models").mkdir(parents=True, exist_ok=True)
    write_model(root / "models", "echo", factor=7)
    rclone = triton_env.provide(Progress()) / "venv" / "bin" / "rclone"
    command = inside(world.cluster.name, str(rclone), "serve", "s3", str(root))
    process = subprocess.Popen(
        [*command, "--addr=127.0.0.1:9100", f"--auth-key={KEYS[0]},{KEYS[1]}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    until(lambda: world.inside("curl", "-s", "-m", "2", ENDPOINT).returncode == 0, "S3 answering", 20)
    yield "s3://models/echo"
    process.terminate()
    process.wait(timeout=20)


def secret(namespace: str, key: str) -> Object:
    data = {"access_key_id": KEYS[0], "secret_access_key": key, "endpoint": ENDPOINT, "region": "us-east-1"}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "reader", "namespace": namespace},
        "type": "ergon.dev/source",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }


def test_from_s3_with_a_secret_first_wrong_then_right(world: World, s3: str) -> None:
    with world.namespace() as ns:
        world.apply(secret(ns, "wrong"), model(ns, "echo", s3, secret="reader"))
        condition = world.reason(ns, "echo", "AccessDenied")
        assert "Secret reader" in condition["message"]
        assert "wrong" not in condition["message"]
        world.apply(secret(ns, KEYS[1]))
        world.ready(ns, "echo", 60)
        assert world.ask(ns, "echo", 3) == 21
