"""Golden objects: what must be taken, and what must be refused with a message that names the field.

The same objects go to the parser and to a real API server, so that both judge alike.
"""

import copy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
ABSENT = object()

POOL: Object = {
    "apiVersion": "ergon.dev/v1alpha1",
    "kind": "AcceleratorPool",
    "metadata": {"name": "golden-l4"},
    "spec": {
        "accelerator": {"class": "gpu", "product": "NVIDIA-L4"},
        "memory": "22Gi",
        "servers": {"min": 0, "max": 8},
        "triton": {"backends": ["onnxruntime", "python"]},
    },
}
MODEL: Object = {
    "apiVersion": "ergon.dev/v1alpha1",
    "kind": "SpecializedModel",
    "metadata": {"name": "golden-ner", "namespace": "default"},
    "spec": {
        "task": "entity-extraction",
        "slo": {"latency": "200ms"},
        "autoscaling": {"minReplicas": 1, "maxReplicas": 8},
        "variants": [
            {
                "name": "cpu-int8",
                "accelerators": ["cpu", "npu"],
                "backend": "onnxruntime",
                "source": {"uri": "s3://models/ner/int8/3", "revision": "3", "secretName": "models-reader"},
                "memory": "600Mi",
                "quality": 0.91,
                "profiles": [{"accelerator": "cpu", "batch": 8, "requestsPerSecond": 120, "latency": "70ms", "watts": 210}],
            }
        ],
    },
}
BUDGET: Object = {
    "apiVersion": "ergon.dev/v1alpha1",
    "kind": "EnergyBudget",
    "metadata": {"name": "golden-site"},
    "spec": {"limits": {"kilowattHours": 12.5, "window": "Day"}},
}
ROUTE: Object = {
    "apiVersion": "ergon.dev/v1alpha1",
    "kind": "TaskRoute",
    "metadata": {"name": "golden-route", "namespace": "default"},
    "spec": {
        "task": "language-identification",
        "candidates": {"matchLabels": {"team": "x"}},
        "minQuality": 0.9,
        "escalation": {"when": [{"output": "SCORE", "below": 0.6}], "maxRate": 0.25},
    },
}


@dataclass(frozen=True)
class Refused:
    """An object that must be refused. `says` stands in the API server's message, `field` is what the parser points at."""

    obj: Object
    says: str
    field: str


def changed(base: Object, *changes: tuple[str, Any]) -> Object:
    """The object with values at dotted paths replaced, or removed by ABSENT."""
    obj = copy.deepcopy(base)
    for path, value in changes:
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
        place: Any = obj
        for part in parents:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        if value is ABSENT:
            del place[last]
        else:
            place[last] = value
    return obj


def _variant(path: str, value: Any) -> Object:
    return changed(MODEL, (f"spec.variants.0.{path}", value))


_SELECTOR = {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}], "matchLabels": {"x": "y"}}
VALID: dict[str, Object] = {
    "pool": POOL,
    "pool-tpu": changed(POOL, ("spec.accelerator", {"class": "tpu", "perServer": 4}), ("spec.maxModels", 1)),
    "pool-npu": changed(POOL, ("spec.accelerator", {"class": "npu", "resourceName": "vendor.example/npu"})),
    "pool-dra": changed(POOL, ("spec.accelerator.resourceName", "none")),
    "pool-bytes": changed(POOL, ("spec.memory", 1073741824)),
    "pool-selectors": changed(POOL, ("spec.namespaces", _SELECTOR)),
    "pool-all-namespaces": changed(POOL, ("spec.namespaces", {})),
    "pool-template": changed(
        POOL,
        ("spec.template", {"metadata": {"labels": {"team": "x"}}, "spec": {"nodeSelector": {"a": "b"}, "tolerations": [{}]}}),
    ),
    "pool-prometheus": changed(POOL, ("spec.power", {"source": "Prometheus", "prometheus": {"query": "sum(watts)"}})),
    "pool-power": changed(POOL, ("spec.power", {"idleWatts": 16, "busyWatts": 72.5, "pue": 1.2, "bootDelay": "1h30m"})),
    "pool-least": changed(POOL, ("spec.memory", "1Mi"), ("spec.disk", "1048.576k"), ("spec.sharedMemory", 1048576)),
    "pool-at-once": changed(POOL, ("spec.power", {"bootDelay": "0s", "offDelay": "0s"}), ("spec.drainTimeout", "0s")),
    "pool-name-nearly-reserved": changed(POOL, ("metadata.name", "metrics-2")),
    "pool-longest-name": changed(POOL, ("metadata.name", "p" * 40)),
    "model": MODEL,
    "model-least": changed(MODEL, ("spec.slo", ABSENT), ("spec.autoscaling", ABSENT), ("spec.variants.0.profiles", ABSENT)),
    "model-file": _variant("source", {"uri": "file:///ner/..3/int8"}),
    "model-https": _variant("source.uri", "https://models.example/ner/@3?x=y"),
    "model-exponent": _variant("memory", "6e8"),
    "model-exa": _variant("memory", "1E"),
    "model-config": _variant("config", {"instance_group": [{"count": 2, "kind": "KIND_CPU"}], "max_batch_size": 8}),
    "model-generative": changed(
        MODEL,
        ("spec.slo", {"latency": "2s", "perOutputToken": "50ms", "percentile": 99}),
        ("spec.variants.0.profiles.0", {"product": "NVIDIA-L4", "tokensPerSecond": 900, "awakeWatts": 60}),
    ),
    "model-whole-number": changed(MODEL, ("spec.priority", 100.0), ("spec.variants.0.profiles.0.batch", 8.0)),
    "model-quick": _variant("profiles.0.latency", "0.05ms"),
    "model-fixed": changed(MODEL, ("spec.replicas", 0)),
    "model-longest-name": changed(MODEL, ("metadata.name", "m" * 63)),
    "budget": BUDGET,
    "budget-watts": changed(BUDGET, ("spec.limits", {"watts": 5000})),
    "budget-all": changed(
        BUDGET,
        ("spec", {"limits": {"watts": 1, "carbonGrams": 1, "window": "Month", "timeZone": "Europe/Berlin"}, "pools": _SELECTOR}),
    ),
    "route": ROUTE,
    "route-least": changed(ROUTE, ("spec", {"task": "code"})),
    "route-chat": changed(ROUTE, ("spec.chat", {}), ("spec.anyTask", True), ("spec.order", ["small", "general"])),
    "route-all": changed(
        ROUTE,
        ("spec.escalation.when", [{"output": "LABEL", "equals": ["unknown"]}, {"output": "TEXT", "empty": True}]),
        ("spec.escalation.after", "500ms"),
        ("spec.samples", {"configMapName": "samples.v1", "output": "LANGUAGE"}),
        ("spec.fallback", "other"),
    ),
}

_NAME = "metadata.name: at most"
_SIGN = "spec.escalation.when.0"
REFUSED: dict[str, Refused] = {
    "route-without-task": Refused(changed(ROUTE, ("spec.task", ABSENT)), "spec.task: Required", "spec.task"),
    "route-sign-of-two": Refused(
        changed(ROUTE, (_SIGN, {"output": "SCORE", "below": 0.6, "above": 0.9})),
        "exactly one of below",
        "spec.escalation.when[0]",
    ),
    "route-sign-of-none": Refused(
        changed(ROUTE, (_SIGN, {"output": "SCORE"})), "exactly one of below", "spec.escalation.when[0]"
    ),
    "route-rate": Refused(changed(ROUTE, ("spec.escalation.maxRate", 2)), "maxRate", "spec.escalation.maxRate"),
    "route-timeout-none": Refused(changed(ROUTE, ("spec.timeout", "0s")), "a number above 0", "spec.timeout"),
    "route-order-twice": Refused(changed(ROUTE, ("spec.order", ["a", "a"])), "a model is there twice", "spec"),
    "route-any-task": Refused(
        changed(ROUTE, ("spec.candidates", ABSENT), ("spec.anyTask", True)), "anyTask needs candidates", "spec"
    ),
    "route-long-name": Refused(changed(ROUTE, ("metadata.name", "r" * 64)), _NAME, "metadata.name"),
    "pool-tpu-without-max-models": Refused(
        changed(POOL, ("spec.accelerator.class", "tpu")), "maxModels is required for tpu", "spec"
    ),
    "pool-npu-without-resource": Refused(
        changed(POOL, ("spec.accelerator.class", "npu")), "resourceName is required for npu", "spec.accelerator"
    ),
    "pool-resource-without-domain": Refused(
        changed(POOL, ("spec.accelerator.resourceName", "gpu")),
        "spec.accelerator.resourceName",
        "spec.accelerator.resourceName",
    ),
    "pool-unknown-class": Refused(
        changed(POOL, ("spec.accelerator.class", "fpga")), "spec.accelerator.class: Unsupported value", "spec.accelerator.class"
    ),
    "pool-min-above-max": Refused(changed(POOL, ("spec.servers.min", 9)), "spec.servers.min", "spec.servers"),
    "pool-without-max": Refused(changed(POOL, ("spec.servers", {"min": 1})), "spec.servers.max: Required", "spec.servers.max"),
    "pool-without-query": Refused(
        changed(POOL, ("spec.power", {"source": "Prometheus"})), "source Prometheus needs prometheus.query", "spec.power"
    ),
    "pool-memory-unit": Refused(changed(POOL, ("spec.memory", "22GB")), "spec.memory", "spec.memory"),
    "pool-memory-fraction": Refused(changed(POOL, ("spec.memory", 1.5)), "spec.memory", "spec.memory"),
    "pool-memory-negative": Refused(changed(POOL, ("spec.memory", -1)), "spec.memory", "spec.memory"),
    "pool-memory-milli": Refused(changed(POOL, ("spec.memory", "600m")), "such as 600Mi", "spec.memory"),
    "pool-memory-none": Refused(changed(POOL, ("spec.memory", 0)), "spec.memory", "spec.memory"),
    "pool-memory-without-unit": Refused(changed(POOL, ("spec.memory", 600)), "spec.memory", "spec.memory"),
    "pool-disk-without-unit": Refused(changed(POOL, ("spec.disk", "100")), "at least 1Mi", "spec.disk"),
    "pool-disk-too-little": Refused(changed(POOL, ("spec.disk", "1023.9Ki")), "at least 1Mi", "spec.disk"),
    "pool-shared-memory-none": Refused(changed(POOL, ("spec.sharedMemory", "0")), "at least 1Mi", "spec.sharedMemory"),
    "pool-servers-text": Refused(changed(POOL, ("spec.servers.max", "1")), "spec.servers.max", "spec.servers.max"),
    "pool-servers-half": Refused(changed(POOL, ("spec.servers.max", 1.5)), "spec.servers.max", "spec.servers.max"),
    "pool-scale-in-word": Refused(changed(POOL, ("spec.power.scaleIn", "yes")), "spec.power.scaleIn", "spec.power.scaleIn"),
    "pool-scale-in-number": Refused(changed(POOL, ("spec.power.scaleIn", 1)), "spec.power.scaleIn", "spec.power.scaleIn"),
    "pool-busy-share": Refused(changed(POOL, ("spec.maxBusyShare", 0)), "spec.maxBusyShare", "spec.maxBusyShare"),
    "pool-pue": Refused(changed(POOL, ("spec.power", {"pue": 0.9})), "spec.power.pue", "spec.power.pue"),
    "pool-drain-unit": Refused(changed(POOL, ("spec.drainTimeout", "10")), "spec.drainTimeout", "spec.drainTimeout"),
    "pool-backend-twice": Refused(
        changed(POOL, ("spec.triton.backends", ["python", "python"])),
        "spec.triton.backends[1]: Duplicate",
        "spec.triton.backends",
    ),
    "pool-selector-without-values": Refused(
        changed(POOL, ("spec.namespaces", {"matchExpressions": [{"key": "a", "operator": "In"}]})),
        "spec.namespaces.matchExpressions[0].values",
        "spec.namespaces.matchExpressions[0]",
    ),
    "pool-name-digit": Refused(changed(POOL, ("metadata.name", "4x")), _NAME, "metadata.name"),
    "pool-name-dot": Refused(changed(POOL, ("metadata.name", "a.b")), _NAME, "metadata.name"),
    "pool-name-long": Refused(changed(POOL, ("metadata.name", "p" * 41)), _NAME, "metadata.name"),
    "pool-name-reserved": Refused(changed(POOL, ("metadata.name", "metrics")), "Ergon's own Services", "metadata.name"),
    "model-name-digit": Refused(changed(MODEL, ("metadata.name", "9ner")), _NAME, "metadata.name"),
    "model-name-long": Refused(changed(MODEL, ("metadata.name", "m" * 64)), _NAME, "metadata.name"),
    "model-without-task": Refused(changed(MODEL, ("spec.task", ABSENT)), "spec.task: Required", "spec.task"),
    "model-without-variants": Refused(changed(MODEL, ("spec.variants", [])), "spec.variants", "spec.variants"),
    "model-variant-twice": Refused(
        changed(MODEL, ("spec.variants", MODEL["spec"]["variants"] * 2)), "spec.variants[1]: Duplicate", "spec"
    ),
    "model-scaling": Refused(
        changed(MODEL, ("spec.autoscaling", {"minReplicas": 3, "maxReplicas": 2})),
        "spec.autoscaling.maxReplicas",
        "spec.autoscaling",
    ),
    "model-scaling-default": Refused(
        changed(MODEL, ("spec.autoscaling", {"maxReplicas": 0})), "spec.autoscaling.maxReplicas", "spec.autoscaling.maxReplicas"
    ),
    "model-priority": Refused(changed(MODEL, ("spec.priority", 1001)), "spec.priority", "spec.priority"),
    "model-priority-text": Refused(changed(MODEL, ("spec.priority", "100")), "spec.priority", "spec.priority"),
    "model-priority-boolean": Refused(changed(MODEL, ("spec.priority", True)), "spec.priority", "spec.priority"),
    "model-quality-text": Refused(_variant("quality", "0.9"), "spec.variants[0].quality", "spec.variants[0].quality"),
    "model-quality-boolean": Refused(_variant("quality", True), "spec.variants[0].quality", "spec.variants[0].quality"),
    "model-task-number": Refused(changed(MODEL, ("spec.task", 5)), "spec.task", "spec.task"),
    "model-replicas": Refused(changed(MODEL, ("spec.replicas", -1)), "spec.replicas", "spec.replicas"),
    "model-latency-number": Refused(changed(MODEL, ("spec.slo.latency", 200)), "spec.slo.latency", "spec.slo.latency"),
    "model-latency-none": Refused(changed(MODEL, ("spec.slo.latency", "0s")), "a number above 0", "spec.slo.latency"),
    "model-token-latency-none": Refused(
        changed(MODEL, ("spec.slo.perOutputToken", "0.0ms")), "a number above 0", "spec.slo.perOutputToken"
    ),
    "model-profile-latency-none": Refused(
        _variant("profiles.0.latency", "0ms"), "a number above 0", "spec.variants[0].profiles[0].latency"
    ),
    "model-load-timeout-none": Refused(_variant("loadTimeout", "0h0s"), "a number above 0", "spec.variants[0].loadTimeout"),
    "model-latency-unit": Refused(
        changed(MODEL, ("spec.slo.latency", "200")),
        'spec.slo.latency: Invalid value: "200": write a number above 0 with a unit such as 200ms',
        "spec.slo.latency",
    ),
    "model-memory-unit": Refused(
        _variant("memory", "600MB"),
        'spec.variants[0].memory: Invalid value: "600MB": write a number with a unit such as 600Mi',
        "spec.variants[0].memory",
    ),
    "model-quality": Refused(_variant("quality", 91), "spec.variants[0].quality", "spec.variants[0].quality"),
    "model-accelerator-twice": Refused(
        _variant("accelerators", ["cpu", "cpu"]), "spec.variants[0].accelerators[1]", "spec.variants[0].accelerators"
    ),
    "model-scheme": Refused(
        _variant("source.uri", "ftp://host/ner"), "spec.variants[0].source.uri", "spec.variants[0].source.uri"
    ),
    "model-file-host": Refused(
        _variant("source", {"uri": "file://ner/int8"}), "spec.variants[0].source.uri", "spec.variants[0].source"
    ),
    "model-file-up": Refused(
        _variant("source", {"uri": "file:///ner/.."}), "spec.variants[0].source.uri", "spec.variants[0].source"
    ),
    "model-file-secret": Refused(
        _variant("source.uri", "file:///ner"), "spec.variants[0].source.secretName", "spec.variants[0].source"
    ),
    "model-uri-password": Refused(
        _variant("source.uri", "https://me:secret@host/ner"), "credentials do not belong in a URI", "spec.variants[0].source"
    ),
    "model-profile-nowhere": Refused(
        _variant("profiles.0.accelerator", ABSENT), "product or accelerator", "spec.variants[0].profiles[0]"
    ),
    "model-profile-nothing": Refused(
        _variant("profiles.0.requestsPerSecond", ABSENT),
        "requestsPerSecond or tokensPerSecond",
        "spec.variants[0].profiles[0]",
    ),
    "budget-without-limit": Refused(changed(BUDGET, ("spec.limits", {})), "at least one of watts", "spec.limits"),
    "budget-without-window": Refused(changed(BUDGET, ("spec.limits.window", ABSENT)), "spec.limits.window", "spec.limits"),
    "budget-idle-window": Refused(
        changed(BUDGET, ("spec.limits", {"watts": 5, "window": "Day"})), "spec.limits.window", "spec.limits"
    ),
    "budget-zero": Refused(changed(BUDGET, ("spec.limits", {"watts": 0})), "spec.limits.watts", "spec.limits.watts"),
    "budget-enforcement": Refused(changed(BUDGET, ("spec.enforcement", "Maybe")), "spec.enforcement", "spec.enforcement"),
}
