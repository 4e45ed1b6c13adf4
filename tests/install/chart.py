"""The chart rendered by real helm, for every choice of an installer."""

import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml
from scripts.helm import find_helm

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "ergon"
NAMESPACE = "ergon-system"

Object = dict[str, Any]
Values = dict[str, Any]

POOL = {"accelerator": {"class": "cpu"}, "memory": "8Gi", "servers": {"min": 1, "max": 2}}

# What installers choose, one at a time and all at once.
VALUES: dict[str, Values] = {
    "defaults": {},
    "crds-off": {"crds": {"enabled": False}},
    "crds-not-kept": {"crds": {"keep": False, "annotations": {"argocd.argoproj.io/sync-wave": "-5"}}},
    "one-replica": {"replicas": 1},
    "namespaced": {"watchNamespaces": ["team-a", "team-b"], "sourceSecretNamespaces": ["team-a"]},
    "gateway-api": {"gatewayApi": {"enabled": True, "name": "public", "namespace": "edge"}},
    "no-gateway": {"gateway": {"enabled": False}, "gatewayApi": {"enabled": True}},
    "scaled-gateway": {
        "gateway": {
            "autoscaling": {"enabled": True, "maxReplicas": 5},
            "sampleNamespaces": ["team-a"],
            "from": [{"namespaceSelector": {"matchLabels": {"asks": "models"}}}],
        }
    },
    "service-monitor": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "pools": {"pools": [{"name": "cpu", "labels": {"tier": "standard"}, "spec": POOL}, {"name": "more", "spec": POOL}]},
    "closed-network": {
        "networkPolicy": {
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "egress": {"enabled": True, "apiServerPorts": [6443], "extra": [{"ports": [{"port": 4317}]}]},
        },
    },
    "everything": {
        "replicas": 3,
        "image": {"repository": "registry.example.com/ergon", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "fullnameOverride": "fleet",
        "commonLabels": {"team": "platform"},
        "commonAnnotations": {"example.com/owner": "platform"},
        "operator": {
            "logFormat": "text",
            "logLevel": "debug",
            "qps": 100,
            "burst": 200,
            "allowPrivateAddresses": True,
            "storeImage": "registry.example.com/rclone:1.75",
            "connectionAgeSeconds": 30,
            "improveAfterSeconds": 90,
            "planEverySeconds": 30,
            "stabiliseSeconds": 120,
            "prometheusUrl": "http://prometheus.monitoring:9090",
            "hintZones": True,
            "scraperNamespaces": ["monitoring"],
        },
        "gateway": {
            "replicas": 3,
            "service": {"type": "LoadBalancer", "annotations": {"example.com/lb": "internal"}},
            "podLabels": {"example.com/pod": "gateway"},
            "podAnnotations": {"example.com/pod": "gateway"},
            "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
            ],
            "sampleNamespaces": ["team-a"],
            "extraEnv": [{"name": "OF", "value": "the gateway"}],
        },
        "gatewayApi": {"enabled": True},
        "sourceSecretNamespaces": ["team-a"],
        "rbac": {"aggregate": True, "restrictedEndpoints": True},
        "serviceAccount": {"name": "fleet-operator", "annotations": {"example.com/role": "reader"}},
        "service": {"annotations": {"prometheus.io/scrape": "true"}},
        "serviceMonitor": {"enabled": True},
        "podLabels": {"example.com/pod": "yes"},
        "podAnnotations": {"example.com/pod": "yes"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraArgs": ["--log-level=info"],
        "pools": [{"name": "cpu", "spec": POOL}],
    },
}


@functools.cache
def helm() -> str:
    """The helm that is tested with."""
    return str(find_helm())


def run_helm(*args: str, values: Values | None = None, namespace: str = NAMESPACE) -> subprocess.CompletedProcess[str]:
    """One helm command on the chart, with values; it may fail."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values or {}, file)
        file.flush()
        command = [helm(), *args, "--namespace", namespace, *(["--values", file.name] if values is not None else [])]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def render_text(values: Values | None = None, namespace: str = NAMESPACE) -> str:
    """The chart's manifest for these values, as helm prints it."""
    done = run_helm("template", "ergon", str(CHART), values=values, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _rendered(values_text: str, namespace: str) -> str:
    return render_text(yaml.safe_load(values_text), namespace)


def render(values: Values | None = None, namespace: str = NAMESPACE) -> list[Object]:
    """The chart's objects for these values, rendered once a run."""
    # CSafeLoader: the definitions of the kinds, read in Python, took most of these tests' time.
    documents = yaml.load_all(_rendered(yaml.safe_dump(values), namespace), Loader=yaml.CSafeLoader)
    return [document for document in documents if document]


def component(objects: list[Object], name: str) -> list[Object]:
    """Those of the objects that are of the operator, or of the gateway."""
    return [item for item in objects if item["metadata"]["labels"].get("app.kubernetes.io/component") == name]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Those of the objects that are of one of the kinds."""
    return [item for item in objects if item["kind"] in kinds]
