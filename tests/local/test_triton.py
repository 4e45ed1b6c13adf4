"""A real Triton in a pod, as Ergon's servers run it: restricted, read-only, its model from the node's sources."""

import json
from typing import Any

import pytest

from tests.local.kube import Kube, service

pytestmark = pytest.mark.cluster

_MODEL = """
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        tensors = (pb.get_input_tensor_by_name(request, "X").as_numpy() for request in requests)
        return [pb.InferenceResponse([pb.Tensor("Y", tensor * 2)]) for tensor in tensors]
"""
_CONFIGURATION = """
backend: "python"
max_batch_size: 8
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
"""


def triton(key: str) -> dict[str, Any]:
    guarded = f"model-repository:ergon-key={key}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "triton", "labels": {"app": "triton"}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "triton",
                    "image": "nvcr.io/nvidia/tritonserver:26.10-py3",
                    "args": [
                        "tritonserver",
                        "--model-repository=/models",
                        "--model-control-mode=explicit",
                        "--load-model=double",
                        *(f"--{protocol}-address=$(POD_IP)" for protocol in ("http", "grpc", "metrics")),
                        f"--http-restricted-api={guarded}",
                    ],
                    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "startupProbe": {
                        "httpGet": {"port": 8000, "path": "/v2/health/live"},
                        "periodSeconds": 1,
                        "failureThreshold": 60,
                    },
                    "readinessProbe": {"grpc": {"port": 8001}, "periodSeconds": 1},
                    "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
                    "volumeMounts": [
                        {"name": "sources", "mountPath": "/models", "subPath": "triton-test", "readOnly": True},
                        {"name": "memory", "mountPath": "/dev/shm"},
                        {"name": "scratch", "mountPath": "/tmp"},
                    ],
                }
            ],
            "volumes": [
                {"name": "sources", "hostPath": {"path": "/var/lib/ergon/sources"}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
                {"name": "scratch", "emptyDir": {}},
            ],
        },
    }


def test_triton_serves_a_model_behind_a_service(kube: Kube, cluster: Any) -> None:
    folder = cluster.models / "triton-test" / "double"
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1" / "model.py").write_text(_MODEL)
    (folder / "config.pbtxt").write_text(_CONFIGURATION)
    ports = [{"name": "http", "port": 8000}]
    kube.apply(triton("secret"), service("served", {"app": "triton"}, ports=ports))
    kube.ready("triton")
    base = f"http://served.{kube.namespace}:8000/v2"
    tensor = {"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [21]}
    asked = kube.inside(
        "curl",
        "-s",
        "-m",
        "20",
        "--retry",
        "5",
        "--retry-connrefused",
        f"{base}/models/double/infer",
        "-d",
        json.dumps({"inputs": [tensor]}),
    )
    assert json.loads(asked.stdout)["outputs"][0]["data"] == [42.0], asked.stdout
    refused = kube.inside(
        "curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", f"{base}/repository/index"
    )
    assert refused.stdout == "403"
    assert "successfully loaded 'double'" in kube.kubectl("logs", "triton")
