"""The servers of a pool: one StatefulSet whose pods hold Triton and, beside it, the model store."""

import hashlib
import json

from ergon.api.pool import AcceleratorPoolSpec, template_of
from ergon.kube.builders.common import (
    Object,
    Owner,
    key_secret_name,
    metadata,
    pool_labels,
    pool_selector,
    server_set_name,
)
from ergon.kube.builders.settings import ServerSettings
from ergon.kube.builders.template import lay_over

TEMPLATE_HASH = "ergon.dev/template-hash"
HTTP_PORT, GRPC_PORT, METRICS_PORT, STORE_PORT = 8000, 8001, 8002, 5572
_RESTRICTED = "model-repository,shared-memory,trace,logging"
_USER = 1000  # triton-server in NVIDIA's image
_GRACE_BEYOND_EXIT_SECONDS = 15
_NO_PRIVILEGES = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def template_hash(spec: AcceleratorPoolSpec) -> str:
    """A short hash of what the pool says about its pods. It leaves out the operator's own settings and code, so an upgrade
    rolls nothing: a pod is out of date when the pool was edited, never because the operator is newer."""
    inputs = {
        "resource": [spec.accelerator.resource, spec.accelerator.per_server],
        "hostMemory": spec.memory if spec.accelerator.class_ == "cpu" else None,
        "disk": spec.disk,
        "sharedMemory": spec.shared_memory,
        "image": spec.triton.image,
        "args": list(spec.triton.args),
        "template": template_of(spec),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def server_statefulset(
    pool: str,
    spec: AcceleratorPoolSpec,
    settings: ServerSettings,
    replicas: int,
    owner: Owner | None = None,
    *,
    held: Object | None = None,
) -> Object:
    """The pool's StatefulSet. Raises TemplateRefused where the pool's template cannot be used.

    `held` is the one that stands: its pod template is kept while the pool asks for the same, so that a newer operator, with
    arguments of its own, does not mix two kinds of pods in one pool.
    """
    marked = {TEMPLATE_HASH: template_hash(spec)}
    template = pod_template(pool, spec, settings)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(server_set_name(pool), settings.namespace, pool_labels(pool), owner, annotations=marked),
        "spec": {
            "replicas": replicas,
            "serviceName": server_set_name(pool),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": pool_selector(pool)},
            "template": _standing_template(held, marked[TEMPLATE_HASH]) or template,
        },
    }


def _standing_template(held: Object | None, wanted: str) -> Object | None:
    template: Object = ((held or {}).get("spec") or {}).get("template") or {}
    metadata = template.get("metadata") or {}
    if (metadata.get("annotations") or {}).get(TEMPLATE_HASH) != wanted:
        return None
    return {**template, "metadata": {key: value for key, value in metadata.items() if value is not None}}


def pod_template(pool: str, spec: AcceleratorPoolSpec, settings: ServerSettings) -> Object:
    """The pods' template, the pool's overlay included. Raises TemplateRefused."""
    annotations = {
        TEMPLATE_HASH: template_hash(spec),
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
        "kubectl.kubernetes.io/default-container": "triton",
    }
    built: Object = {
        "metadata": {"labels": pool_labels(pool), "annotations": annotations},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": settings.exit_timeout_seconds + _GRACE_BEYOND_EXIT_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_triton(pool, spec, settings), _store(pool, settings)],
            "volumes": _volumes(pool, spec),
        },
    }
    return lay_over(built, template_of(spec))


def _triton(pool: str, spec: AcceleratorPoolSpec, settings: ServerSettings) -> Object:
    return {
        "name": "triton",
        "image": spec.triton.image,
        # Not `command`: NVIDIA's entrypoint sets up the driver's compatibility libraries.
        "args": [*_triton_arguments(settings), *spec.triton.args],
        "env": [_pod_ip(), {"name": "HOME", "value": "/tmp"}, _secret_variable("ERGON_KEY", pool, "ergon-key")],
        "ports": [_port("http", HTTP_PORT), _port("grpc", GRPC_PORT), _port("metrics", METRICS_PORT)],
        "resources": _resources(spec),
        "securityContext": _NO_PRIVILEGES,
        "startupProbe": {**_http_probe("/v2/health/live"), "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {**_http_probe("/v2/health/ready"), "periodSeconds": 2, "failureThreshold": 3},
        # Slow to kill: a restart drops every model of the server, and a probe may wait behind a blocked HTTP worker.
        "livenessProbe": {**_http_probe("/v2/health/live"), "periodSeconds": 10, "failureThreshold": 6},
        "volumeMounts": [
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _triton_arguments(settings: ServerSettings) -> list[str]:
    return [
        "tritonserver",
        "--model-repository=/models",
        "--model-control-mode=explicit",
        "--strict-readiness=false",
        "--disable-auto-complete-config",
        f"--model-load-thread-count={settings.load_threads}",
        f"--exit-timeout-secs={settings.exit_timeout_seconds}",
        "--http-address=$(POD_IP)",
        "--grpc-address=$(POD_IP)",
        "--metrics-address=$(POD_IP)",
        "--metrics-config=summary_latencies=true",
        f"--http-restricted-api={_RESTRICTED}:ergon-key=$(ERGON_KEY)",
        f"--grpc-restricted-protocol={_RESTRICTED}:ergon-key=$(ERGON_KEY)",
        f"--grpc-max-connection-age={settings.connection_age_seconds * 1000}",
    ]


def _resources(spec: AcceleratorPoolSpec) -> Object:
    """The accelerators; on a CPU pool also the memory the pool promises to models. All else is the template's to say."""
    if spec.accelerator.resource:
        return {"limits": {spec.accelerator.resource: str(spec.accelerator.per_server)}}
    return {"requests": {"memory": spec.memory}} if spec.accelerator.class_ == "cpu" else {}


def _store(pool: str, settings: ServerSettings) -> Object:
    return {
        "name": "store",
        "image": settings.store_image,
        "command": ["rclone"],
        "args": [
            "rcd",
            "--config=",
            "--cache-dir=/tmp/cache",
            "--rc-addr=$(POD_IP):5572",
            "--rc-cert=/etc/ergon/tls.crt",
            "--rc-key=/etc/ergon/tls.key",
            "--rc-serve",
            "--log-level=ERROR",  # each TCP probe is a TLS handshake that ends early, which it tells as a notice
            # Long enough that an operator which was away still learns how a fetch ended.
            "--rc-job-expire-duration=1h",
        ],
        "env": [
            _pod_ip(),
            {"name": "HOME", "value": "/tmp"},
            _secret_variable("RCLONE_RC_USER", pool, "rclone-user"),
            _secret_variable("RCLONE_RC_PASS", pool, "rclone-password"),
        ],
        "ports": [_port("store", STORE_PORT)],
        "securityContext": _NO_PRIVILEGES,
        "startupProbe": {**_tcp_probe(STORE_PORT), "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**_tcp_probe(STORE_PORT), "periodSeconds": 2, "failureThreshold": 3},
        "livenessProbe": {**_tcp_probe(STORE_PORT), "periodSeconds": 10, "failureThreshold": 6},
        "volumeMounts": [
            {"name": "models", "mountPath": "/models"},
            {"name": "store-tmp", "mountPath": "/tmp"},
            {"name": "tls", "mountPath": "/etc/ergon", "readOnly": True},
        ],
    }


def _volumes(pool: str, spec: AcceleratorPoolSpec) -> list[Object]:
    items = [{"key": name, "path": name} for name in ("tls.crt", "tls.key")]
    return [
        {"name": "models", "emptyDir": {"sizeLimit": spec.disk}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.shared_memory}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "store-tmp", "emptyDir": {}},
        {"name": "tls", "secret": {"secretName": key_secret_name(pool), "items": items, "defaultMode": 0o440}},
    ]


def _http_probe(path: str) -> Object:
    return {"httpGet": {"path": path, "port": HTTP_PORT}, "timeoutSeconds": 5}


def _tcp_probe(port: int) -> Object:
    return {"tcpSocket": {"port": port}, "timeoutSeconds": 5}


def _port(name: str, number: int) -> Object:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _pod_ip() -> Object:
    return {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}


def _secret_variable(name: str, pool: str, key: str) -> Object:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": key_secret_name(pool), "key": key}}}
