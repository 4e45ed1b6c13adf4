"""What the cache holds of nodes, and of the pods that are servers."""

from dataclasses import dataclass
from typing import Any

from ergon.fleet.types import ServerKey

Object = dict[str, Any]
POOL_LABEL = "ergon.dev/pool"


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What matters of a node."""

    name: str
    zone: str
    unschedulable: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A server's pod."""

    key: ServerKey
    name: str
    uid: str
    ip: str
    node: str
    ready: bool
    deleting: bool
    phase: str
    template_hash: str
    unscheduled_since: str
    problem: str


def node_record(obj: Object) -> NodeRecord:
    """A node as the API server shows it."""
    metadata = obj["metadata"]
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in (obj.get("status") or {}).get("conditions") or ())
    return NodeRecord(
        metadata["name"],
        (metadata.get("labels") or {}).get("topology.kubernetes.io/zone", ""),
        bool((obj.get("spec") or {}).get("unschedulable")),
        ready,
    )


def pod_record(obj: Object) -> PodRecord | None:
    """A pod of the operator's namespace; None where it is no server."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    pool = str((metadata.get("labels") or {}).get(POOL_LABEL, ""))
    ordinal = metadata["name"].rpartition("-")[2]
    if not pool or not ordinal.isdecimal():
        return None
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    unscheduled = scheduled if scheduled.get("status") == "False" else {}
    return PodRecord(
        key=ServerKey(pool, int(ordinal)),
        name=metadata["name"],
        uid=metadata["uid"],
        ip=status.get("podIP") or "",
        node=spec.get("nodeName") or "",
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting=bool(metadata.get("deletionTimestamp")),
        phase=status.get("phase") or "Pending",
        template_hash=(metadata.get("annotations") or {}).get("ergon.dev/template-hash", ""),
        unscheduled_since=str(unscheduled.get("lastTransitionTime", "")),
        problem=str(unscheduled.get("message") or _container_problem(status)),
    )


def _container_problem(status: Object) -> str:
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"container {container['name']}: {waiting['reason']} {waiting.get('message', '')}".strip()
    return ""
