"""What the installer decides about servers and routes, apart from what pools and models say."""

from collections.abc import Mapping
from dataclasses import dataclass, field

OPERATOR_LABELS = {"app.kubernetes.io/name": "ergon", "app.kubernetes.io/component": "operator"}
"""Of the operator's pods; those of the gateway, which need nothing of a server but answers, differ in the second."""


@dataclass(frozen=True)
class Scraper:
    """Pods that may read Triton's metrics port: labels of their namespace and of themselves (empty: all)."""

    namespace_labels: Mapping[str, str]
    pod_labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerSettings:
    """How the operator runs servers. Changing these (or upgrading the operator) rolls no pool; see template_hash."""

    namespace: str = "ergon-system"
    operator_labels: Mapping[str, str] = field(default_factory=lambda: dict(OPERATOR_LABELS))
    store_image: str = "docker.io/rclone/rclone:1.75.2"
    connection_age_seconds: int = 60
    exit_timeout_seconds: int = 30
    load_threads: int = 8
    scrapers: tuple[Scraper, ...] = ()


@dataclass(frozen=True)
class GatewaySettings:
    """The Gateway that models are published on."""

    name: str
    namespace: str
    section: str = ""
    hostnames: tuple[str, ...] = ()
