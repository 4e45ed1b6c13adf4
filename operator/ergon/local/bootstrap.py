"""What every local cluster holds from the start: the operator's namespace, the name server's Service, the Gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from ergon.local.kubeclient import Api, ApiError
from ergon.local.state import DNS_ADDRESS

Object = dict[str, Any]
_POLL_SECONDS = 0.1


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _dns_service() -> Object:
    ports = [{"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
    }


async def apply_all(api: Api) -> None:
    """Apply everything; what needs something else first is tried again until it is there."""
    for name in ("ergon-system",):
        await api.apply(f"/api/v1/namespaces/{name}", _namespace(name))
    await api.apply("/api/v1/namespaces/kube-system/services/kube-dns", _dns_service())


async def await_ready(api: Api, nodes: int) -> None:
    """Wait until all nodes are Ready and the default service account of `default` exists."""
    while True:
        try:
            found = (await api.get("/api/v1/nodes"))["items"]
            await api.get("/api/v1/namespaces/default/serviceaccounts/default")
            if sum(_is_ready(node) for node in found) >= nodes:
                return
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError):
            pass
        await asyncio.sleep(_POLL_SECONDS)


def _is_ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
