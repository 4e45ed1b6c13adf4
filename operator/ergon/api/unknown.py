"""Fields that no schema knows, found as the API server's strict validation would refuse them.

The spec objects ignore unknown fields, so that an older operator reads newer objects; a person's file should not hide a typing
mistake that way.
"""

from functools import cache
from typing import Any

from ergon.api.crd import KINDS, Schema, structural_schema

# ObjectMeta of k8s.io/apimachinery.
_METADATA = {
    *("name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "managedFields", "uid"),
    *("creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "resourceVersion", "selfLink"),
}


def unknown_fields(kind: str, obj: dict[Any, Any]) -> list[str]:
    """Paths of fields of an Ergon object that its kind does not have, such as `spec.variants[0].gpu`. Values are not judged."""
    spec, status = _schemas(kind)
    found = [str(key) for key in obj if key not in ("apiVersion", "kind", "metadata", "spec", "status")]
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        found += [f"metadata.{key}" for key in metadata if key not in _METADATA]
    return [*found, *_unknown(spec, obj.get("spec"), "spec"), *_unknown(status, obj.get("status"), "status")]


@cache
def _schemas(kind: str) -> tuple[Schema, Schema]:
    found = next(known for known in KINDS if known.name == kind)
    return structural_schema(found.spec), structural_schema(found.status, defaults=False)


def _unknown(schema: Schema, value: Any, path: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, dict) and "properties" in schema:
        for key, child in value.items():
            if key in schema["properties"]:
                found += _unknown(schema["properties"][key], child, f"{path}.{key}")
            else:
                found.append(f"{path}.{key}")
    elif isinstance(value, dict) and "additionalProperties" in schema:
        for key, child in value.items():
            found += _unknown(schema["additionalProperties"], child, f"{path}.{key}")
    elif isinstance(value, list) and "items" in schema:
        for index, child in enumerate(value):
            found += _unknown(schema["items"], child, f"{path}[{index}]")
    return found
