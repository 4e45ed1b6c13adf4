"""What the gateway's tests do: run gateways in the cluster's network and ask them there."""

import base64
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.engine.world import BIN, World, model, processes, until, write_model
from tests.inside import inside

Object = dict[str, Any]
SCORED_CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "TEXT" data_type: TYPE_STRING dims: [1] }]
output [{ name: "LABEL" data_type: TYPE_STRING dims: [1] }, { name: "SCORE" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""
SCORED = """
import time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "TEXT").as_numpy()) for request in requests]

    def answer(self, texts):
        words = dict(part.split("=") for text in texts.reshape(-1) for part in text.decode().split() if "=" in part)
        time.sleep(float(words.get("NAME-seconds", 0)))
        if "NAME-fails" in words:
            raise pb.TritonModelException("told to fail")
        labels = np.array([b"NAME" for _ in texts.reshape(-1)], dtype=object).reshape(texts.shape)
        scores = np.full(texts.shape, float(words.get("NAME", 0.9)), dtype=np.float32)
        return pb.InferenceResponse([pb.Tensor("LABEL", labels), pb.Tensor("SCORE", scores)])
"""
"""A model whose request says what it answers: `small=0.2` is small's confidence, `small-seconds=1` how long it takes."""


@dataclass(frozen=True)
class Answer:
    """What came back. `status`: HTTP's number, gRPC's name, or 0 where nothing came."""

    status: int | str
    headers: dict[str, str]
    body: bytes
    seconds: float
    place: int

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """A header's value."""
        return next((value for key, value in self.headers.items() if key.lower() == name), None)

    def output(self, name: str) -> Any:
        """An output's first value, of a KServe answer in JSON."""
        return next(output for output in self.json()["outputs"] if output["name"] == name)["data"][0]


class Inside:
    """A process in the cluster's network that sends requests."""

    def __init__(self, world: World) -> None:
        self._process = world.talking(Path(__file__).with_name("inside.py"), says="ready")
        self._answers: dict[int, Answer] = {}
        self._came = threading.Condition()
        self._count = 0
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def close(self) -> None:
        """End it, and close its pipes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reading.join(20)
        self._process.stdout.close()

    def begin(self, url: str, body: Any = None, method: str = "POST", **headers: str) -> int:
        """Send a request; the number to wait for its answer with."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._send({"url": url, "method": method, "headers": named, "body": base64.b64encode(data).decode()})

    def begin_grpc(self, target: str, name: str, text: str, timeout: float = 20, **headers: str) -> int:
        """Send a ModelInfer with one text."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self._send({"grpc": target, "model": name, "text": text, "timeout": timeout, "headers": named})

    def answer(self, number: int, seconds: float = 60.0) -> Answer:
        """Wait for an answer."""
        with self._came:
            assert self._came.wait_for(lambda: number in self._answers, seconds), f"request {number}: no answer in {seconds} s"
            return self._answers[number]

    def answered(self, number: int) -> bool:
        """Whether an answer is there."""
        return number in self._answers

    def ask(self, url: str, body: Any = None, method: str = "POST", **headers: str) -> Answer:
        """One request and its answer."""
        return self.answer(self.begin(url, body, method, **headers))

    def ask_grpc(self, target: str, name: str, text: str, timeout: float = 20, **headers: str) -> Answer:
        """One ModelInfer and its answer."""
        return self.answer(self.begin_grpc(target, name, text, timeout, **headers))

    def _send(self, request: Object) -> int:
        self._count += 1
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**request, "id": self._count}) + "\n")
        self._process.stdin.flush()
        return self._count

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            answer = Answer(told["status"], told["headers"], base64.b64decode(told["body"]), told["seconds"], told["place"])
            with self._came:
                self._answers[told["id"]] = answer
                self._came.notify_all()


@dataclass
class Gateway:
    """One `ergon gateway`, inside the cluster's network."""

    world: World
    inside: Inside
    number: int
    arguments: Sequence[str] = ()
    log_file: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log_file = self.world.cluster.kubeconfig.parent / f"gateway-{self.number}.log"
        command = inside(self.world.cluster.name, str(BIN / "ergon"), "gateway")
        command += ["--host=127.0.0.1", f"--http-port={self.number}", f"--grpc-port={self.number + 1}"]
        command += [f"--health-port={self.number + 2}", "--log-format=text", "--drain-seconds=1", *self.arguments]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until(self._is_ready, "the gateway ready", 60)

    @property
    def url(self) -> str:
        """Its HTTP side."""
        return f"http://127.0.0.1:{self.number}"

    @property
    def grpc(self) -> str:
        """Its gRPC side."""
        return f"127.0.0.1:{self.number + 1}"

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_file.read_text()

    def infer(self, route: str, text: str, **headers: str) -> Answer:
        """One request to `namespace/route`."""
        return self.inside.ask(f"{self.url}/{route}/v2/models/any/infer", request(text), **headers)

    def metrics(self) -> dict[str, float]:
        """Its metrics, by name and labels as they stand on the page."""
        page = self.inside.ask(f"http://127.0.0.1:{self.number + 2}/metrics", method="GET").body.decode()
        return {m[1]: float(m[2]) for line in page.splitlines() if (m := re.fullmatch(r"(ergon_[^ ]+) (\S+)", line))}

    def pid(self) -> int:
        """The gateway's own process."""
        wanted = f"--http-port={self.number}".encode()
        found = next((pid for pid, arguments in processes() if wanted in arguments and b"exec" not in arguments), None)
        assert found is not None, "no such process"
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid(), number)

    def stop(self) -> int:
        """A graceful end; its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout=40)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log[-3000:]
        return self.inside.ask(f"http://127.0.0.1:{self.number + 2}/readyz", method="GET").status == 200


def request(text: str) -> Object:
    """A request to a scored model."""
    return {"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}


def scored(world: World, namespace: str, name: str, quality: float, task: str = "guess", **spec: Any) -> Object:
    """A model that answers as its request says; its object. The better it is, the more it takes: routes ask it later."""
    uri = write_model(world.cluster.models, f"{namespace}-{name}", SCORED.replace("NAME", name), config=SCORED_CONFIG)
    return model(namespace, name, uri, variant={"quality": quality, "profiles": [drawing(quality)]}, task=task, **spec)


def drawing(quality: float) -> Object:
    """An operating point of a model of that quality: what it takes above idle grows tenfold with each tenth."""
    watts = 10 + 10 ** (10 * quality - 7)
    return {"accelerator": "cpu", "batch": 1, "requestsPerSecond": 1000, "latency": "10ms", "watts": watts}


def route(namespace: str, name: str, **spec: Any) -> Object:
    """A TaskRoute that escalates below a confidence of 0.5."""
    base = {"task": "guess", "escalation": {"when": [{"output": "SCORE", "below": 0.5}]}}
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "TaskRoute",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {**base, **spec},
    }
