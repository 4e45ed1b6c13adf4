"""What stands beside a pool's StatefulSet: its headless Service, its keys, its disruption budget and its network policy."""

import base64

from ergon.kube.builders.common import (
    Object,
    Owner,
    key_secret_name,
    metadata,
    pool_labels,
    pool_selector,
    server_set_name,
)
from ergon.kube.builders.server import GRPC_PORT, HTTP_PORT, METRICS_PORT, STORE_PORT
from ergon.kube.builders.settings import ServerSettings
from ergon.kube.keys import KeyMaterial

# Where clouds hand out a node's identity: link-local, and the addresses outside of it that ergon.store.addresses refuses too.
_METADATA_IPV4 = ["169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"]  # …, Alibaba, Azure, Oracle
_METADATA_IPV6 = ["fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128"]  # …, AWS, Google


def headless_service(pool: str, settings: ServerSettings, owner: Owner | None = None) -> Object:
    """The Service that gives the pool's pods their names; it lists them from their start, ready or not."""
    ports = {"http": HTTP_PORT, "grpc": GRPC_PORT, "metrics": METRICS_PORT, "store": STORE_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(server_set_name(pool), settings.namespace, pool_labels(pool), owner),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": pool_selector(pool),
            "ports": [{"name": name, "port": port, "targetPort": port, "protocol": "TCP"} for name, port in ports.items()],
        },
    }


def key_secret(pool: str, settings: ServerSettings, material: KeyMaterial, owner: Owner | None = None) -> Object:
    """The pool's admin key, store credentials and certificate. Create it once: new material locks out running servers."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(key_secret_name(pool), settings.namespace, pool_labels(pool), owner),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in material.entries().items()},
    }


def disruption_budget(pool: str, settings: ServerSettings, owner: Owner | None = None) -> Object:
    """No eviction of a server: a cordoned node's servers are emptied first, then the operator deletes the pods itself."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(server_set_name(pool), settings.namespace, pool_labels(pool), owner),
        "spec": {
            "maxUnavailable": 0,
            "selector": {"matchLabels": pool_selector(pool)},
            # A pod that is not ready serves nobody: a node with only such pods may be drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def network_policy(pool: str, settings: ServerSettings, owner: Owner | None = None) -> Object:
    """Inference is open, metrics and store are not; outwards all but the addresses where clouds keep identities."""
    operator = {"podSelector": {"matchLabels": dict(settings.operator_labels)}}
    scrapers = [
        {
            "namespaceSelector": {"matchLabels": dict(scraper.namespace_labels)},
            "podSelector": {"matchLabels": dict(scraper.pod_labels)},
        }
        for scraper in settings.scrapers
    ]
    elsewhere: list[Object] = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_METADATA_IPV4)}},
        {"ipBlock": {"cidr": "::/0", "except": list(_METADATA_IPV6)}},
        {"namespaceSelector": {}},  # some networks do not count pods among addresses
    ]
    names: list[Object] = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]  # also node-local, link-local DNS
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(server_set_name(pool), settings.namespace, pool_labels(pool), owner),
        "spec": {
            "podSelector": {"matchLabels": pool_selector(pool)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"ports": _ports(HTTP_PORT, GRPC_PORT)},
                {"ports": _ports(METRICS_PORT), "from": [operator, *scrapers]},
                {"ports": _ports(STORE_PORT), "from": [operator]},
            ],
            "egress": [{"ports": names}, {"to": elsewhere}],
        },
    }


def _ports(*numbers: int) -> list[Object]:
    return [{"protocol": "TCP", "port": number} for number in numbers]
