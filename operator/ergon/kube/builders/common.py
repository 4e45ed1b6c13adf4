"""Names, labels and owner references that every child object shares."""

from dataclasses import dataclass
from typing import Any

from ergon.api.types import API_VERSION

Object = dict[str, Any]
POOL_LABEL = "ergon.dev/pool"
MODEL_LABEL = "ergon.dev/model"
NAMESPACE_LABEL = "ergon.dev/namespace"
_MANAGED = {"app.kubernetes.io/managed-by": "ergon"}


@dataclass(frozen=True)
class Owner:
    """The AcceleratorPool or SpecializedModel whose deletion takes the child with it."""

    kind: str
    name: str
    uid: str

    def reference(self) -> Object:
        """As an owner reference. Without blockOwnerDeletion: some clusters allow it only to who may finalize the owner."""
        return {"apiVersion": API_VERSION, "kind": self.kind, "name": self.name, "uid": self.uid, "controller": True}


def server_set_name(pool: str) -> str:
    """Name of the pool's StatefulSet, of its headless Service and, with `-<ordinal>`, of its pods."""
    return f"ergon-{pool}"


def key_secret_name(pool: str) -> str:
    """Name of the Secret with the pool's admin key, store credentials and certificate."""
    return f"ergon-{pool}-keys"


def pool_selector(pool: str) -> dict[str, str]:
    """Labels that select the pool's server pods; part of the StatefulSet's identity, so they never change."""
    return {"app.kubernetes.io/name": "ergon-server", POOL_LABEL: pool}


def pool_labels(pool: str) -> dict[str, str]:
    """Labels of everything that belongs to the pool."""
    return {**pool_selector(pool), **_MANAGED}


def model_labels(namespace: str, name: str) -> dict[str, str]:
    """Labels of everything that belongs to the model. Never the joined name, which may be longer than a label's value."""
    return {MODEL_LABEL: name, NAMESPACE_LABEL: namespace, **_MANAGED}


def metadata(name: str, namespace: str, labels: dict[str, str], owner: Owner | None, **more: Any) -> Object:
    """Metadata of a child object."""
    references = {"ownerReferences": [owner.reference()]} if owner else {}
    return {"name": name, "namespace": namespace, "labels": labels, **references, **more}
