"""Strategic merge of an overlay onto a pod template: maps merge, lists of named things merge by their key, others are replaced.

The keys are those of the Kubernetes API types (`patchMergeKey` in k8s.io/api/core/v1). Pure; neither argument is changed.
"""

from copy import deepcopy
from typing import Any

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
}
# Their keys are people's own words: a label may be called env.
_TEXT_MAPS = {"labels", "annotations", "nodeSelector", "matchLabels", "limits", "requests", "volumeAttributes"}
_DIRECTIVE = "$patch"


class MergeError(ValueError):
    """The overlay does not fit onto what it is laid over; the text names the place."""


def strategic_merge(base: Any, overlay: Any, *, path: str = "template") -> Any:
    """The overlay laid over the base.

    A null removes a key. `$patch: delete` in an item of a named list removes that item, `$patch: replace` in a map
    replaces it as a whole. A volume that names another source replaces the source. Raises MergeError where the shapes differ.
    """
    if isinstance(overlay, dict):
        return _merge_maps(base if base is not None else {}, overlay, path)
    return deepcopy(overlay)


def _merge_maps(base: Any, overlay: dict[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(base, dict):
        raise MergeError(f"{path}: a map cannot be laid over {_kind(base)}")
    directive = overlay.get(_DIRECTIVE)
    if directive not in (None, "replace", "merge"):
        raise MergeError(f"{path}: $patch: {directive} is not known here; use replace, or delete in an item of a named list")
    if directive == "replace":
        return {key: deepcopy(value) for key, value in overlay.items() if key != _DIRECTIVE}
    merged = deepcopy(base)
    in_text_map = path.rpartition(".")[2] in _TEXT_MAPS
    for key, value in overlay.items():
        where = f"{path}.{key}"
        if key == _DIRECTIVE:
            continue
        if value is None:
            merged.pop(key, None)
        elif key in _KEYS and not in_text_map:
            merged[key] = _merge_named(merged.get(key) or [], value, _KEYS[key], where, sources=key == "volumes")
        elif isinstance(value, dict):
            merged[key] = strategic_merge(merged.get(key), value, path=where)
        elif isinstance(merged.get(key), dict):
            raise MergeError(f"{where}: {_kind(value)} cannot be laid over a map")
        else:
            merged[key] = deepcopy(value)
    return merged


def _merge_named(base: list[Any], overlay: Any, key: str, path: str, *, sources: bool) -> list[Any]:
    if not isinstance(overlay, list):
        raise MergeError(f"{path}: must be a list, not {_kind(overlay)}")
    merged = {item[key]: item for item in base}
    for item in overlay:
        if not isinstance(item, dict) or not isinstance(item.get(key), str | int):
            raise MergeError(f"{path}: every item must be a map with {key!r}")
        name, where = item[key], f"{path}[{item[key]}]"
        if item.get(_DIRECTIVE) == "delete":
            merged.pop(name, None)
        elif sources and name in merged and not set(item) & set(merged[name]) - {key}:
            merged[name] = deepcopy(item)
        else:
            merged[name] = strategic_merge(merged.get(name), item, path=where)
    return list(merged.values())


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a map"
    return "a list" if isinstance(value, list) else f"the value {str(value)[:40]!r}"
