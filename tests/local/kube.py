"""A short hand to write pods and to talk to the cluster, for these tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.reader import Reader

Object = dict[str, Any]
_PATIENCE_SECONDS = 60.0


class Kube:
    """kubectl against a local cluster, in a namespace of the test's own, and commands inside the cluster."""

    def __init__(self, name: str, kubeconfig: Path, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        self.reader = Reader(kubeconfig)
        self._kubectl = [
            str(Path(sys.executable).with_name("kubectl")),
            "--kubeconfig",
            str(kubeconfig),
            "--namespace",
            namespace,
        ]

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        done = subprocess.run([*self._kubectl, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=90)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def apply(self, *objects: Object) -> None:
        self.kubectl(
            "apply", "--server-side", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def get(self, kind: str, name: str) -> Object:
        """An object; empty where it is not there."""
        space = () if kind in ("node", "namespace") else ("-n", self.namespace)
        return self.reader.get(kind, name, *space) or {}

    def until(self, kind: str, name: str, fits: Callable[[Object], object], seconds: float = _PATIENCE_SECONDS) -> Object:
        """Wait for an object (empty when there is none) that fits; fails with what it was last."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(kind, name)
            if fits(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{kind} {name} is not as awaited: {json.dumps(found.get('status'))}")
            time.sleep(0.1)

    def ready(self, name: str) -> Object:
        return self.until("pod", name, is_ready)

    def ended(self, name: str) -> Object:
        return self.until("pod", name, lambda found: found.get("status", {}).get("phase") in ("Succeeded", "Failed"))

    def output(self, name: str) -> str:
        """What a pod that runs to its end has written; the pod must have succeeded."""
        found = self.ended(name)
        words = self.kubectl("logs", name)
        assert found["status"]["phase"] == "Succeeded", words
        return words

    def local(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`ergon local` for this cluster."""
        verb, *rest = arguments
        verbs = [verb, rest.pop(0)] if verb == "node" else [verb]
        command = [sys.executable, "-m", "ergon.local", *verbs, "--name", self.name, *rest]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside the cluster's network."""
        return self.local("exec", "--", *command)


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def container(pod: Object) -> Object:
    """The status of a pod's first container."""
    return dict(pod["status"]["containerStatuses"][0])


def pod(name: str, *command: str, spec: Object | None = None, labels: dict[str, str] | None = None, **own: Any) -> Object:
    """A pod with one Python container; `own` are fields of the container."""
    main = {"name": "main", "image": "python", **({"command": list(command)} if command else {}), **own}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [main], **(spec or {})},
    }


def job(name: str, script: str, spec: Object | None = None, **own: Any) -> Object:
    """A pod that runs a shell script once."""
    return pod(name, "sh", "-ec", script, spec={"restartPolicy": "Never", **(spec or {})}, **own)


def server(name: str, text: str, labels: dict[str, str] | None = None, **own: Any) -> Object:
    """A pod that answers every HTTP request on port 8080 with `text`, ready when it does."""
    script = (
        "import http.server, os\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response(200); self.end_headers(); self.wfile.write(b'{text}')\n"
        "    def log_message(self, *a): print(*a, flush=True)\n"
        "http.server.ThreadingHTTPServer((os.environ['POD_IP'], 8080), H).serve_forever()\n"
    )
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1}
    return pod(name, "python3", "-c", script, labels=labels, env=[address], readinessProbe=probe, **own)


def service(name: str, selector: dict[str, str], **spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": ports, **spec},
    }
