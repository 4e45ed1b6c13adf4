"""A container's environment: `$(VAR)` expansion, values from Secrets, ConfigMaps and the pod itself; no I/O of its own."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_ENVIRONMENT_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_FACTORS = {
    "m": 0.001,
    "": 1,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][0-9]+)?)([a-zA-Z]*)")


class ConfigurationError(Exception):
    """What keeps a container from starting, as its CreateContainerConfigError says it."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' `$(VAR)` expansion: unknown names stay as they are, `$$` is a dollar that starts no reference."""

    def replace(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        return variables.get(match.group(2), match.group(0))

    return _REFERENCE.sub(replace, text)


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number; raises ValueError for what is none."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match.group(2) not in _FACTORS:
        raise ValueError(f"{text!r} is not a quantity")
    return float(match.group(1)) * _FACTORS[match.group(2)]


def pod_field(pod: Object, path: str, facts: Mapping[str, str]) -> str:
    """The value of a downward-API fieldRef; `facts` hold what the node itself decides (status.podIP, status.hostIP)."""
    if path in facts:
        return facts[path]
    match = _SUBSCRIPT.fullmatch(path)
    if match is not None:
        return str((pod["metadata"].get(match.group(1)) or {}).get(match.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        values = pod["metadata"].get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))
    if path in ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName"):
        section, _, name = path.partition(".")
        return str(pod[section].get(name, ""))
    raise ConfigurationError(f"fieldPath {path!r} is not known to local nodes")


def resource_field(container: Object, reference: Object, node_capacity: Mapping[str, float]) -> str:
    """The value of a resourceFieldRef; a limit that is not set is the node's capacity."""
    kind, _, resource = reference["resource"].partition(".")
    given = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    value = quantity(str(given)) if given is not None else (node_capacity.get(resource, 0.0) if kind == "limits" else 0.0)
    divisor = quantity(str(reference.get("divisor") or "1")) or 1.0
    return str(-int(-value // divisor))


class Sources:
    """The Secrets and ConfigMaps that a container may refer to, read beforehand; None marks one that does not exist."""

    def __init__(self, secrets: Mapping[str, Object | None], config_maps: Mapping[str, Object | None]) -> None:
        self._secrets = secrets
        self._config_maps = config_maps

    def secret(self, name: str, optional: bool) -> dict[str, bytes]:
        """Decoded data of a Secret; empty when it is missing and optional, ConfigurationError when it is missing."""
        found = self._secrets.get(name)
        if found is None and not optional:
            raise ConfigurationError(f'secret "{name}" not found')
        return {key: base64.b64decode(value) for key, value in ((found or {}).get("data") or {}).items()}

    def config_map(self, name: str, optional: bool) -> dict[str, bytes]:
        """Data of a ConfigMap as bytes; missing ones as for `secret`."""
        found = self._config_maps.get(name)
        if found is None and not optional:
            raise ConfigurationError(f'configmap "{name}" not found')
        data = {key: value.encode() for key, value in ((found or {}).get("data") or {}).items()}
        binary = ((found or {}).get("binaryData") or {}).items()
        return data | {key: base64.b64decode(value) for key, value in binary}


def build(
    pod: Object,
    container: Object,
    base: Mapping[str, str],
    sources: Sources,
    facts: Mapping[str, str],
    node_capacity: Mapping[str, float],
) -> dict[str, str]:
    """The environment of a container over `base`; raises ConfigurationError for what cannot be resolved."""
    variables = dict(base)
    for entry in container.get("envFrom") or []:
        for key, data in _from_source(entry, sources).items():
            name = str(entry.get("prefix") or "") + key
            if _ENVIRONMENT_NAME.fullmatch(name):
                variables[name] = data.decode(errors="replace")
    for entry in container.get("env") or []:
        if "valueFrom" not in entry:
            variables[entry["name"]] = expand(str(entry.get("value") or ""), variables)
            continue
        value = _value_from(pod, container, entry["valueFrom"], sources, facts, node_capacity)
        if value is not None:
            variables[entry["name"]] = value
    return variables


def _from_source(entry: Object, sources: Sources) -> dict[str, bytes]:
    if "secretRef" in entry:
        return sources.secret(entry["secretRef"]["name"], bool(entry["secretRef"].get("optional")))
    reference = entry["configMapRef"]
    return sources.config_map(reference["name"], bool(reference.get("optional")))


def _value_from(
    pod: Object,
    container: Object,
    source: Object,
    sources: Sources,
    facts: Mapping[str, str],
    node_capacity: Mapping[str, float],
) -> str | None:
    """A variable's value, or None for an optional one that has none."""
    if "fieldRef" in source:
        return pod_field(pod, source["fieldRef"]["fieldPath"], facts)
    if "resourceFieldRef" in source:
        return resource_field(container, source["resourceFieldRef"], node_capacity)
    for kind, word, read in (
        ("secretKeyRef", "Secret", sources.secret),
        ("configMapKeyRef", "ConfigMap", sources.config_map),
    ):
        if kind in source:
            reference = source[kind]
            optional = bool(reference.get("optional"))
            found = read(reference["name"], optional).get(reference["key"])
            if found is None and not optional:
                raise ConfigurationError(f"couldn't find key {reference['key']} in {word} {reference['name']}")
            return None if found is None else found.decode(errors="replace")
    raise ConfigurationError(f"valueFrom {', '.join(source)} is not known to local nodes")
