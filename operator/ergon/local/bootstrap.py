"""What every local cluster holds from the start: the operator's namespace, the name server's Service, the Gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from ergon.local.kubeclient import Api, ApiError
from ergon.local.state import DNS_ADDRESS, GATEWAY_NAMESPACE

Object = dict[str, Any]

_MANIFESTS = Path(__file__).with_name("manifests")
_GATEWAY_ADDRESS = "http://10.96.0.20"
_POLL_SECONDS = 0.1
_APPLY_SECONDS = 30.0
_PLURALS = {"GatewayClass": "gatewayclasses"}
_CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "GatewayClass", "CustomResourceDefinition"}


def path_of(item: Object) -> str:
    """The path of an object at the API server."""
    version, kind, metadata = item["apiVersion"], item["kind"], item["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    place = "" if kind in _CLUSTER_WIDE else f"/namespaces/{metadata['namespace']}"
    return f"{root}{place}/{plural}/{metadata['name']}"


def basics() -> list[Object]:
    """The operator's namespace and the Service that holds the name server's address."""
    ports = [{"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ergon-system"}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
        },
    ]


async def apply_all(api: Api) -> None:
    """Apply everything; what needs something else first is tried again until that is there."""
    definitions: list[Object] = json.loads((_MANIFESTS / "gateway-api.json").read_text())
    gateway: list[Object] = list(yaml.safe_load_all((_MANIFESTS / "gateway.yaml").read_text()))
    await asyncio.gather(*(_apply(api, item) for item in (*definitions, *basics(), *gateway)))


async def _apply(api: Api, item: Object) -> None:
    """Apply one object, patiently: its namespace or its definition may be on the way."""
    give_up = asyncio.get_running_loop().time() + _APPLY_SECONDS
    while True:
        try:
            await api.apply(path_of(item), item)
            return
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError):
            if asyncio.get_running_loop().time() > give_up:
                raise
            await asyncio.sleep(_POLL_SECONDS)


async def await_ready(api: Api, nodes: int) -> None:
    """Wait until all nodes are Ready and a request to the Gateway is answered."""
    for settled in (_nodes_ready(api, nodes), _gateway_programmed(api), _gateway_answers()):
        await settled


async def _nodes_ready(api: Api, nodes: int) -> None:
    while True:
        found = await _items(api, "/api/v1/nodes")
        if sum(_is(node, "Ready") for node in found) >= nodes:
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _gateway_programmed(api: Api) -> None:
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{GATEWAY_NAMESPACE}/gateways"
    while True:
        if any(_is(gateway, "Programmed") for gateway in await _items(api, path)):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _gateway_answers() -> None:
    async with aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=2)) as session:
        while True:
            try:
                async with session.get(_GATEWAY_ADDRESS):
                    return
            except (aiohttp.ClientError, OSError, TimeoutError):
                await asyncio.sleep(_POLL_SECONDS)


async def _items(api: Api, path: str) -> list[Object]:
    try:
        return list((await api.get(path))["items"])
    except (ApiError, aiohttp.ClientError, OSError, TimeoutError):
        return []


def _is(item: Object, condition: str) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(found["type"] == condition and found["status"] == "True" for found in conditions)
