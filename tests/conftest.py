"""The real cluster that tests marked `cluster` run against: made for the session, or the one that ERGON_TEST_CLUSTER names."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ergon.local.state import state_folder
from tests.examples import THOROUGH, TIMES

# A busy machine is no finding: what properties promise is not how fast they are drawn or judged. Every run draws the same
# examples, so that it says what a change did; `thorough` draws others each time, and ten times as many.
settings.register_profile("ergon", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile(THOROUGH, settings.get_profile("ergon"), max_examples=100 * TIMES, derandomize=False)
settings.load_profile("ergon")

ERGON = Path(sys.executable).with_name("ergon")

_RUN = "ERGON_TEST_RUN"
_FIRST = (
    "engine/test_faults.py",
    "engine/test_planning.py",
    "engine/test_sleep.py",
    "engine/test_routes.py",
    "engine/test_faults_api.py",
    "engine/test_refusals.py",
    "engine/test_story.py",
    "engine/test_moves.py",
    "engine/",
    "gateway/",
    "local/test_cluster.py",
    "install/test_cluster.py",
    "local/",
)
_LAST = ("install/test_chart.py", "install/test_rights.py", "install/test_values.py", "install/test_manifests.py")


def _turn(item: pytest.Item) -> int:
    """When a test's file is run: what takes minutes first, so that processes that share the files end together; what may have
    to wait until helm is built last. Tests of the engine come together, since they share an operator and its servers."""
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    if path in _LAST and item.get_closest_marker("cluster") is None:
        return len(_FIRST) + 1
    return next((turn for turn, start in enumerate(_FIRST) if path.startswith(start)), len(_FIRST))


def pytest_configure() -> None:
    """Name this run, for the processes that share its tests too."""
    os.environ.setdefault(_RUN, str(os.getpid()))


def pytest_unconfigure() -> None:
    """Take down what processes left that were killed because they did not end in time, as after Ctrl-C."""
    if os.environ[_RUN] == str(os.getpid()):
        for left in state_folder().glob(f"test-{os.getpid()}-*"):
            _ergon_local("down", "--name", left.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files into the order of their turns; within a file nothing changes."""
    items.sort(key=_turn)


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
    name = named or f"test-{os.environ[_RUN]}-{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}"
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
