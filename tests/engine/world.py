"""What the engine's tests do to a real cluster: apply, wait for a condition, run operators, ask models, break things."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from tests.inside import inside
from tests.reader import Reader, ReadError

Object = dict[str, Any]
T = TypeVar("T")
BIN = Path(sys.executable).parent
POLL_SECONDS = 0.2

ECHO = """
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("Y", pb.get_input_tensor_by_name(r, "X").as_numpy() * FACTOR)]) for r in requests]
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""


class Cluster(Protocol):
    """The running cluster, as far as these tests know it."""

    name: str
    kubeconfig: Path
    gateway: str
    models: Path


class NeverHappened(AssertionError):
    """A condition that was waited for did not come about."""


def until(found: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """Wait until `found` gives something true; what it gave."""
    ends_at = time.monotonic() + seconds
    while True:
        result = found()
        if result:
            return result
        if time.monotonic() > ends_at:
            raise NeverHappened(f"{what} did not happen within {seconds:g} s")
        time.sleep(POLL_SECONDS)


@dataclass
class World:
    """A cluster with Ergon's kinds, and handles on everything the tests touch."""

    cluster: Cluster
    operators: "list[Operator]" = field(default_factory=list)
    ports: Iterator[int] = field(default_factory=itertools.count)
    arguments: tuple[str, ...] = ()
    """Of every operator that is started without arguments of its own."""

    def __post_init__(self) -> None:
        self.reader = Reader(self.cluster.kubeconfig)

    # Kubernetes

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """kubectl as the cluster's administrator."""
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.cluster.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        if check and done.returncode:
            raise AssertionError(f"kubectl {shlex.join(arguments)}: {done.stderr}")
        return done

    def apply(self, *objects: Object) -> None:
        """Apply objects as a user does."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, *arguments: str) -> Object | None:
        """One object or list, as `kubectl get` would show it; None where it is not there or the API server does not say."""
        try:
            return self.reader.get(*arguments)
        except ReadError:
            return None

    def model(self, namespace: str, name: str) -> Object:
        """A model as it stands; empty where it is not there."""
        return self.get("sm", name, "-n", namespace) or {}

    def condition(self, obj: Object, kind: str) -> Object:
        """A condition of an object; empty where it has none."""
        return next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == kind), {})

    def ready(self, namespace: str, name: str, seconds: float = 60.0) -> Object:
        """Wait until the present generation of a model is wholly Ready."""

        def look() -> Object | None:
            model = self.model(namespace, name)
            condition = self.condition(model, "Ready")
            fresh = condition.get("observedGeneration") == model.get("metadata", {}).get("generation")
            settled = not self.condition(model, "Reconciling")
            return model if condition.get("status") == "True" and condition["reason"] == "Ready" and fresh and settled else None

        try:
            return until(look, f"{namespace}/{name} Ready", seconds)
        except NeverHappened as error:
            conditions = [
                (c["type"], c["status"], c["reason"], c["message"]) for c in self.model(namespace, name)["status"]["conditions"]
            ]
            raise AssertionError(f"{error}; it says {conditions}") from None

    def reason(self, namespace: str, name: str, reason: str, seconds: float = 60.0, kind: str = "Ready") -> Object:
        """Wait until a model's condition has that reason; the condition."""

        def look() -> Object | None:
            condition = self.condition(self.model(namespace, name), kind)
            return condition if condition.get("reason") == reason else None

        try:
            return until(look, f"{namespace}/{name} {kind} with reason {reason}", seconds)
        except NeverHappened as error:
            raise AssertionError(f"{error}; it says {self.condition(self.model(namespace, name), kind)}") from None

    def endpoints(self, namespace: str, name: str) -> list[str]:
        """Pods that the model's EndpointSlices name."""
        slices = self.get("endpointslices", "-n", namespace, "-l", f"ergon.dev/model={name}") or {"items": []}
        return sorted(e["targetRef"]["name"] for s in slices["items"] for e in s.get("endpoints") or ())

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A namespace of the test's own, gone afterwards."""
        name = f"t-{uuid.uuid4().hex[:6]}"
        self.kubectl("create", "namespace", name)
        try:
            yield name
        finally:  # also where a test fails: the next one waits until these models are gone
            # The namespace controller begins 5 s after a deletion, so what the next test waits for is deleted here.
            self.kubectl("delete", "sm,troute", "--all", "-n", name, "--wait=false", check=False)
            self.kubectl("delete", "namespace", name, "--wait=false", check=False)

    # Inside the cluster's network

    def inside(self, *command: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command where pod addresses and Service names work."""
        full = inside(self.cluster.name, *command)
        return subprocess.run(full, capture_output=True, text=True, check=False, timeout=seconds)

    def ask(self, namespace: str, name: str, value: float = 21.0) -> float:
        """One HTTP request through the model's Service."""
        body = json.dumps({"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [value]}]})
        url = f"http://{name}.{namespace}:8000/v2/models/{namespace}.{name}/infer"
        done = self.inside("curl", "-sS", "-m", "10", "-X", "POST", url, "-d", body)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert "outputs" in answer, answer
        return float(answer["outputs"][0]["data"][0])

    def ask_often(self, namespace: str, name: str, times: int) -> None:
        """Requests one after the other through the model's Service, by one process inside."""
        body = json.dumps({"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]})
        url = f"http://{name}.{namespace}:8000/v2/models/{namespace}.{name}/infer?[1-{times}]"
        done = self.inside("curl", "-sS", "--fail-with-body", "-m", "10", "-X", "POST", url, "-d", body)
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def clients(self, namespace: str, name: str) -> "Iterator[Clients]":
        """Steady clients of a model, through its Service: kept-alive HTTP and a gRPC channel."""
        with self.asking(Path(__file__).with_name("steady_clients.py"), namespace, name) as clients:
            yield clients

    @contextmanager
    def asking(self, script: Path, *arguments: str) -> "Iterator[Clients]":
        """Clients that a script runs until its input ends, once it says that it is asking."""
        clients = Clients(self.talking(script, *arguments, says="asking"))
        try:
            yield clients
        finally:
            clients.stop()

    def talking(self, script: Path, *arguments: str, says: str) -> "subprocess.Popen[str]":
        """A script that runs inside and is spoken with through pipes, once its first line is what it `says`."""
        full = inside(self.cluster.name, sys.executable, str(script), *arguments)
        process = subprocess.Popen(full, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == says
        return process

    # Operators

    def operator(self, *arguments: str, identity: str = "", kubeconfig: Path | None = None) -> "Operator":
        """Start an operator inside the cluster's network, with a Lease; under the identity of a dead one it leads at once."""
        operator = Operator(
            self, identity or f"op-{uuid.uuid4().hex[:6]}", arguments or self.arguments, 19000 + next(self.ports), kubeconfig
        )
        self.operators.append(operator)
        return operator


def settle(world: World) -> None:
    """Until an operator is alive, the models of tests before are gone, and the pool is on its first server as tests expect it."""
    if all(operator.process.poll() is not None for operator in world.operators):
        world.operators.clear()
        world.operator().leads()

    def calm() -> bool:
        models = (world.get("sm", "-A") or {"items": []})["items"]
        servers = ((world.get("ap", "cpu") or {}).get("status") or {}).get("servers", {})
        return not models and servers == {"desired": 1, "ready": 1}

    until(calm, "the world calm", 90)


@dataclass
class Clients:
    """Running clients; `stop` gives their counts."""

    process: "subprocess.Popen[str]"
    counts: Object | None = None

    def stop(self) -> Object:
        """End them: {"http": {"answered": n, "failed": [...]}, "grpc": …}."""
        if self.counts is None:
            out, _ = self.process.communicate(timeout=30)
            self.counts = json.loads(out.splitlines()[-1])
        return self.counts

    def assert_unharmed(self) -> None:
        """No request failed, and some were answered."""
        for kind, counts in self.stop().items():
            assert counts["failed"] == [], f"{kind}: {counts}"
            assert counts["answered"] > 10, f"{kind}: {counts}"


class Operator:
    """One operator process."""

    def __init__(
        self, world: World, identity: str, arguments: tuple[str, ...], port: int, kubeconfig: Path | None = None
    ) -> None:
        self.identity, self.kubeconfig, self.port = identity, kubeconfig, port
        self.log_file = world.cluster.kubeconfig.parent / f"{identity}-{port}.log"
        command = inside(world.cluster.name, *(["env", f"KUBECONFIG={kubeconfig}"] if kubeconfig is not None else []))
        command += [str(BIN / "ergon"), "run", "--address=127.0.0.1", f"--port={port}", f"--identity={identity}"]
        command += ["--log-format=text", "--allow-private-addresses", "--connection-age=2"]
        command += ["--gateway=ergon-gateway/ergon", *arguments]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_file.read_text()

    def leads(self, seconds: float = 90.0) -> None:
        """Wait until it leads. Its start takes 2 s of CPU, of which a busy machine gives little: 40 s were once not enough."""
        try:
            until(lambda: "leading:" in self.log, f"{self.identity} leading", seconds)
        except NeverHappened as error:
            raise AssertionError(f"{error}; its end is {self.process.poll()}, it says {self.log[-3000:]}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the operator itself."""
        for pid in _pids_with(f"--identity={self.identity}"):
            os.kill(pid, number)

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        self.signal(signal.SIGKILL)
        self.process.wait(timeout=20)

    def stop(self) -> int:
        """A graceful end; its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def processes() -> Iterator[tuple[int, list[bytes]]]:
    """All processes of the machine, each with its arguments."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if arguments[0]:
                yield int(entry.name), arguments


def _pids_with(argument: str) -> list[int]:
    return [
        pid
        for pid, arguments in processes()
        if argument.encode() in arguments and b"run" in arguments and b"exec" not in arguments
    ]


def _network(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def triton_pids(operator: Operator, pod_ip: str) -> list[int]:
    """The tritonserver process of a pod: by its address, in the operator's network (other clusters have the same addresses)."""
    network = {_network(pid) for pid in _pids_with(f"--identity={operator.identity}")}
    return [
        pid
        for pid, arguments in processes()
        if arguments[0].endswith(b"tritonserver")
        and f"--grpc-address={pod_ip}".encode() in arguments
        and _network(pid) in network
    ]


def stub_pids(served_name: str) -> list[int]:
    """The Python backend's processes of a model."""
    wanted = f"/models/{served_name}/1/model.py".encode()
    return [pid for pid, arguments in processes() if b"triton_python_backend_stub" in arguments[0] and wanted in arguments]


def control_plane_pids(cluster: Cluster, program: str) -> list[int]:
    """A program of this very cluster's control plane: the one whose arguments name its state folder."""
    state = str(cluster.kubeconfig.parent).encode()
    return [
        pid
        for pid, arguments in processes()
        if arguments[0].endswith(program.encode()) and any(state in argument for argument in arguments)
    ]


def write_model(models: Path, name: str, code: str = ECHO, factor: int = 2, config: str = CONFIG) -> str:
    """A model directory where pools see it as /sources/<name>; its URI."""
    directory = models / name
    (directory / "1").mkdir(parents=True, exist_ok=True)
    (directory / "config.pbtxt").write_text(config)
    (directory / "1" / "model.py").write_text(code.replace("FACTOR", str(factor)))
    return f"file:///{name}"


def model(namespace: str, name: str, uri: str, *, variant: Object | None = None, **spec: Any) -> Object:
    """A SpecializedModel with one variant for the test pool."""
    source = {"uri": uri, **({"revision": spec.pop("revision")} if "revision" in spec else {})}
    if "secret" in spec:
        source["secretName"] = spec.pop("secret")
    base = {"name": "cpu", "accelerators": ["cpu"], "backend": "python", "source": source, "memory": "50Mi", **(variant or {})}
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "SpecializedModel",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"task": "echo", "variants": [base], **spec},
    }


def pool(name: str = "cpu", **spec: Any) -> Object:
    """A pool of real servers on the local cluster's cpu nodes."""
    store = {"name": "store", "volumeMounts": [{"name": "sources", "mountPath": "/sources", "readOnly": True}]}
    volume = {"name": "sources", "hostPath": {"path": "/var/lib/ergon/sources"}}
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {"name": name},
        "spec": {
            "accelerator": {"class": "cpu"},
            "memory": "1Gi",
            "disk": "1Gi",
            "sharedMemory": "64Mi",
            "servers": {"min": 1, "max": 3},
            "namespaces": {},
            "drainTimeout": "2s",
            "power": {"idleWatts": 10},
            "template": {"spec": {"containers": [store], "volumes": [volume]}},
            **spec,
        },
    }
