"""A real tritonserver as a process of this test run, on loopback, with a repository of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.request
from pathlib import Path

from ergon.triton import InstanceKind, compose

KEY = "the-pools-key"
DOUBLE = """
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("Y", pb.get_input_tensor_by_name(r, "X").as_numpy() * 2)]) for r in requests]
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
dynamic_batching {}
"""


class Server:
    """One tritonserver, started as a pool's pod starts it. Processes that its models leave behind end with it."""

    def __init__(self, environment: Path, folder: Path, repository: Path) -> None:
        self.repository = repository
        self.http, self.grpc, metrics = free_ports(3)
        self.address = f"127.0.0.1:{self.grpc}"
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        self._log = folder / "tritonserver.log"
        # Its own prefix in /dev/shm: what a killed server leaves there can be told from what others use.
        self._prefix = f"ergon_test_{os.getpid()}_{self.grpc}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(environment, folder, metrics),
                env=os.environ
                | {
                    "LD_LIBRARY_PATH": str(site_packages(environment) / "nvidia_pytriton.libs"),
                    "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _command(self, environment: Path, folder: Path, metrics: int) -> list[str]:
        restricted = f"model-repository,shared-memory,trace,logging:ergon-key={KEY}"
        return [
            str(site_packages(environment) / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
            f"--model-repository={self.repository}",
            f"--backend-directory={make_backends(environment, folder)}",
            "--model-control-mode=explicit",
            "--strict-readiness=false",
            "--disable-auto-complete-config",
            "--model-load-thread-count=8",
            "--exit-timeout-secs=5",
            "--http-address=127.0.0.1",
            f"--http-port={self.http}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.grpc}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={metrics}",
            "--metrics-config=summary_latencies=true",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            f"--http-restricted-api={restricted}",
            f"--grpc-restricted-protocol={restricted}",
        ]

    def wait_until_live(self, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"tritonserver did not start:\n{self._log.read_text()[-4000:]}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/health/live", timeout=1):
                return
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server and its stubs at once, and remove what a killed server leaves in /dev/shm."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for region in Path("/dev/shm").glob(f"{self._prefix}*"):
            region.unlink(missing_ok=True)

    def add(self, name: str, code: str = DOUBLE, config: str = CONFIG) -> None:
        """Write a Python model into the repository, or replace its code."""
        version = self.repository / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / "model.py").write_text(code)
        # A pod's model volume is read-only to Triton. Here Python would write its bytecode beside model.py, and a model whose
        # directory has changed since its load is a changed model to Triton; where a file of that name lies, it cannot.
        (version / "__pycache__").touch()
        (version.parent / "config.pbtxt").write_text(config)

    def config(self, name: str, revision: str = "1", **override: object) -> dict[str, object]:
        """The configuration that Ergon would load this model with."""
        text = (self.repository / name / "config.pbtxt").read_text()
        return compose(text, override, name=name, backend="python", revision=revision, default_kind=InstanceKind.CPU)

    def stubs(self) -> list[int]:
        """Process ids of this server's model stubs."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, _, rest = status.read_text().partition(" (")
                name, _, fields = rest.rpartition(") ")
                if name.startswith("triton_python") and int(fields.split()[3]) == self.process.pid:
                    found.append(int(pid))
        return found


def site_packages(environment: Path) -> Path:
    """Where a venv of this Python's version keeps its packages."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment), "platbase": str(environment)}))


def make_backends(environment: Path, folder: Path) -> Path:
    """A backend directory: Triton finds its stub only beside the backend's library, and the wheel keeps one for each Python."""
    target = folder / "backends" / "python"
    target.mkdir(parents=True, exist_ok=True)
    packaged = site_packages(environment) / "pytriton" / "tritonserver"
    stub = packaged / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    for file in [*(packaged / "backends" / "python").iterdir(), stub]:
        link = target / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    return target.parent


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listening.getsockname()[1] for listening in sockets]
