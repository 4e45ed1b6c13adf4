"""The chart rendered by real helm, and kubectl against a real API server."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.install.chart import VALUES, Object, render


@pytest.fixture(params=VALUES, scope="session")
def rendered(request: pytest.FixtureRequest) -> list[Object]:
    """The chart's objects, once for every set of values."""
    return render(VALUES[request.param])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests may have to wait until helm is built (208 s on two idle cores)."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


class Kubectl(Protocol):
    """kubectl against the test's cluster: its result, whatever it is."""

    def __call__(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def kubectl(cluster: Any) -> Kubectl:
    """kubectl with the cluster's admin account; the local cluster puts one beside this Python where there is none on PATH."""
    program = shutil.which("kubectl") or str(Path(sys.executable).with_name("kubectl"))

    def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [program, "--kubeconfig", str(cluster.kubeconfig), *args]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)

    return run
