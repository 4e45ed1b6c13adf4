"""Paths of pods and nodes at the API server."""

from __future__ import annotations

from typing import Any


def pod_path(pod: dict[str, Any]) -> str:
    """The path of a pod."""
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def node_path(name: str) -> str:
    """The path of a node."""
    return f"/api/v1/nodes/{name}"


def lease_path(name: str) -> str:
    """The path of a node's heartbeat Lease."""
    return f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
