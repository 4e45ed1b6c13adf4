"""What the containers of a pod share: the pod's object, its address, its folders, its node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ergon.local.kubeclient import Api
from ergon.local.node.events import Events
from ergon.local.node.images import Images
from ergon.local.node.root import PodFiles
from ergon.local.node.volumes import PodVolumes

Object = dict[str, Any]
_DEFAULT_GRACE_SECONDS = 30


@dataclass
class PodContext:
    """One pod as its containers see it."""

    api: Api
    object: Object
    address: str
    node_address: str
    node_capacity: Mapping[str, float]
    folder: Path
    files: PodFiles
    shims: Path
    mirrors: tuple[str, ...]
    images: Images
    volumes: PodVolumes
    events: Events
    changed: Callable[[], None]
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f"{self.object['metadata']['namespace']}/{self.object['metadata']['name']}"

    @property
    def hostname(self) -> str:
        return str(self.object["spec"].get("hostname") or self.object["metadata"]["name"])[:63]

    @property
    def grace_seconds(self) -> int:
        grace = self.object["spec"].get("terminationGracePeriodSeconds")
        return _DEFAULT_GRACE_SECONDS if grace is None else int(grace)

    def container_folder(self, name: str) -> Path:
        """Where a container's logs and root lie."""
        return self.folder / "containers" / name

    def warn(self, reason: str, message: str, container: str = "") -> None:
        self.events.record(self.object, reason, message, warning=True, container=container)

    def note(self, reason: str, message: str, container: str = "") -> None:
        self.events.record(self.object, reason, message, container=container)
