"""The real cluster that tests marked `cluster` run against: made for the session, or the one that ERGON_TEST_CLUSTER names."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ERGON = Path(sys.executable).with_name("ergon")


@dataclass(frozen=True)
class LocalCluster:
    """A running local cluster. `models` is the folder that pods see at the node path /var/lib/ergon/sources."""

    name: str
    kubeconfig: Path
    gateway: str
    models: Path


def _ergon_local(*arguments: str) -> str:
    done = subprocess.run([ERGON, "local", *arguments], capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"ergon local {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster of this process's own, taken down afterwards; one that ERGON_TEST_CLUSTER names stays up."""
    named = os.environ.get("ERGON_TEST_CLUSTER")
    name = named or f"test-{os.getpid()}"
    models = [] if named else ["--models", str(tmp_path_factory.mktemp("models"))]
    _ergon_local("up", "--name", name, *models)
    try:
        lines = _ergon_local("env", "--name", name).splitlines()
        values = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
        paths = {key: value.strip("'\"") for key, value in values.items()}
        yield LocalCluster(name, Path(paths["KUBECONFIG"]), paths["ERGON_GATEWAY"], Path(paths["ERGON_MODELS"]))
    finally:
        if named is None:
            _ergon_local("down", "--name", name)
