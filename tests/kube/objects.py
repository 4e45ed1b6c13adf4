"""The objects of a pool and of a model, as the tests of this room use them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ergon.api.pool import AcceleratorPoolSpec
from ergon.kube import keys
from ergon.kube.builders import (
    Endpoint,
    GatewaySettings,
    Owner,
    Scraper,
    ServerSettings,
    disruption_budget,
    endpoint_slices,
    headless_service,
    http_route,
    key_secret,
    model_service,
    network_policy,
    server_statefulset,
)

Object = dict[str, Any]
POOL_OWNER = Owner("AcceleratorPool", "l4", "uid-of-pool")
MODEL_OWNER = Owner("SpecializedModel", "ner", "uid-of-model")
SETTINGS = ServerSettings(scrapers=(Scraper({"kubernetes.io/metadata.name": "monitoring"}, {"app": "prometheus"}),))
GATEWAY = GatewaySettings("gateway", "ergon-system")
MATERIAL = keys.generate(keys.server_names("l4", "ergon-system"), datetime(2026, 1, 1, tzinfo=UTC))
ENDPOINTS = (
    Endpoint("ergon-l4-1", "uid-1", "10.244.0.2", "ergon-system", "node-b", "zone-b"),
    Endpoint("ergon-l4-0", "uid-0", "10.244.0.1", "ergon-system", "node-a", "zone-a"),
)


def pool_spec(**changes: Any) -> AcceleratorPoolSpec:
    """A GPU pool, with fields of its YAML replaced."""
    spec = {"accelerator": {"class": "gpu", "product": "NVIDIA-L4"}, "memory": "22Gi", "servers": {"max": 8}}
    return AcceleratorPoolSpec.model_validate(spec | changes)


def pool_objects(spec: AcceleratorPoolSpec, namespace: str = "ergon-system") -> list[Object]:
    """Everything that stands for a pool."""
    settings = replace(SETTINGS, namespace=namespace)
    simple: list[Callable[..., Object]] = [headless_service, disruption_budget, network_policy]
    return [
        *(build("l4", settings, POOL_OWNER) for build in simple),
        key_secret("l4", settings, MATERIAL, POOL_OWNER),
        server_statefulset("l4", spec, settings, 3, POOL_OWNER),
    ]


def model_objects(namespace: str = "finance", *, routes: bool = True) -> list[Object]:
    """Everything that stands for a model."""
    on_gateway = [http_route(namespace, "ner", GATEWAY, MODEL_OWNER)] if routes else []
    return [
        model_service(namespace, "ner", MODEL_OWNER),
        *endpoint_slices(namespace, "ner", ENDPOINTS, MODEL_OWNER),
        *on_gateway,
    ]
