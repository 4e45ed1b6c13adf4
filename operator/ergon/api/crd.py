"""CustomResourceDefinitions from the pydantic models: JSON Schema turned into the structural OpenAPI that Kubernetes takes.

In: nothing but the models. Out: documents, and the YAML that stands in crds/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ergon.api.budget import EnergyBudgetSpec, EnergyBudgetStatus
from ergon.api.model import SpecializedModelSpec, SpecializedModelStatus
from ergon.api.pool import RESERVED_NAMES, RESERVED_WORDS, AcceleratorPoolSpec, AcceleratorPoolStatus
from ergon.api.route import TaskRouteSpec, TaskRouteStatus
from ergon.api.types import GROUP, VERSION, Spec

Schema = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What a kind is beside its fields."""

    name: str
    plural: str
    short: str
    namespaced: bool
    description: str
    spec: type[Spec]
    status: type[Spec]
    columns: tuple[tuple[str, ...], ...]
    selectable: tuple[str, ...] = ()
    scalable: bool = False
    name_rules: tuple[Schema, ...] = ()


def _condition(name: str, part: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{name}")].{part}'


_WIDE = "1"
_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def _name_of_at_most(characters: int) -> Schema:
    return {
        "rule": f"size(self.metadata.name) <= {characters} && self.metadata.name.matches('{_NAME}')",
        "message": f"metadata.name: at most {characters} lower-case letters, digits and '-', "
        "beginning with a letter and not ending with '-'",
    }


# One that an older version took can have its status written, and be deleted.
_NOT_RESERVED: Schema = {
    "rule": f"oldSelf.hasValue() || !(self.metadata.name in {sorted(RESERVED_NAMES)})",
    "message": f"metadata.name: {RESERVED_WORDS}",
    "optionalOldSelf": True,
}
KINDS = (
    Kind(
        "AcceleratorPool",
        "acceleratorpools",
        "ap",
        False,
        "Identical Triton servers on one kind of accelerator, which Ergon fills with models.",
        AcceleratorPoolSpec,
        AcceleratorPoolStatus,
        (
            ("Class", "string", ".spec.accelerator.class"),
            ("Product", "string", ".spec.accelerator.product"),
            ("Ready Servers", "integer", ".status.servers.ready"),
            ("Desired", "integer", ".status.servers.desired"),
            ("Models", "integer", ".status.models"),
            ("Watts", "number", ".status.watts", _WIDE),
            ("Ready", "string", _condition("Ready")),
            ("Reason", "string", _condition("Ready", "reason")),
            ("Age", "date", ".metadata.creationTimestamp"),
            ("Message", "string", _condition("Ready", "message"), _WIDE),
        ),
        selectable=(".spec.accelerator.class",),
        name_rules=(_name_of_at_most(40), _NOT_RESERVED),
    ),
    Kind(
        "SpecializedModel",
        "specializedmodels",
        "sm",
        True,
        "A model for one task, served under one stable name wherever it meets its target for the least energy.",
        SpecializedModelSpec,
        SpecializedModelStatus,
        (
            ("Task", "string", ".spec.task"),
            ("Ready", "string", _condition("Ready")),
            ("Reason", "string", _condition("Ready", "reason")),
            ("Pool", "string", ".status.placements[0].pool"),
            ("Replicas", "integer", ".status.replicas"),
            ("Ready Replicas", "integer", ".status.readyReplicas"),
            ("Age", "date", ".metadata.creationTimestamp"),
            ("Endpoint", "string", ".status.endpoint", _WIDE),
            ("Message", "string", _condition("Ready", "message"), _WIDE),
        ),
        selectable=(".spec.task",),
        scalable=True,
        name_rules=(_name_of_at_most(63),),
    ),
    Kind(
        "EnergyBudget",
        "energybudgets",
        "ebud",
        False,
        "A limit in watts, kilowatt-hours or grams of CO2 over a scope of pools and namespaces.",
        EnergyBudgetSpec,
        EnergyBudgetStatus,
        (
            ("Enforcement", "string", ".spec.enforcement"),
            ("Accepted", "string", _condition("Accepted")),
            ("Reason", "string", _condition("Accepted", "reason")),
            ("Age", "date", ".metadata.creationTimestamp"),
            ("Message", "string", _condition("Accepted", "message"), _WIDE),
        ),
    ),
    Kind(
        "TaskRoute",
        "taskroutes",
        "troute",
        True,
        "A task under one address: the smallest model that can do it answers, a bigger one where that is not enough.",
        TaskRouteSpec,
        TaskRouteStatus,
        (
            ("Task", "string", ".spec.task"),
            ("Ready", "string", _condition("Ready")),
            ("Reason", "string", _condition("Ready", "reason")),
            ("First", "string", ".status.candidates[0].model"),
            ("Escalated", "number", ".status.escalationRate"),
            ("Joules", "number", ".status.joulesPerRequest"),
            ("Age", "date", ".metadata.creationTimestamp"),
            ("Endpoint", "string", ".status.endpoint", _WIDE),
            ("Message", "string", _condition("Ready", "message"), _WIDE),
        ),
        selectable=(".spec.task",),
        name_rules=(_name_of_at_most(63),),
    ),
)


def crd_documents() -> list[Schema]:
    """One CustomResourceDefinition a kind."""
    return [_definition(kind) for kind in KINDS]


def file_name(document: Mapping[str, Any]) -> str:
    """The name a document has in crds/."""
    return f"{GROUP}_{document['spec']['names']['plural']}.yaml"


def render_yaml(document: Mapping[str, Any]) -> str:
    """A document as it stands in crds/."""
    head = "# Written by `ergon crds`; change operator/ergon/api and write it again.\n"
    return head + yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=130)


def _definition(kind: Kind) -> Schema:
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.name.lower(),
        "shortNames": [kind.short],
        "categories": ["ergon"],
    }
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}, **({"scale": scale} if kind.scalable else {})},
        "additionalPrinterColumns": [_column(*column) for column in kind.columns],
        **({"selectableFields": [{"jsonPath": path} for path in kind.selectable]} if kind.selectable else {}),
        "schema": {"openAPIV3Schema": _root(kind)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _column(name: str, kind: str, path: str, priority: str = "0") -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": int(priority)} if int(priority) else {})}


def _root(kind: Kind) -> Schema:
    status = structural_schema(kind.status, defaults=False)
    return {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{kind.name}."},
            "metadata": {"type": "object"},
            "spec": structural_schema(kind.spec),
            "status": status,
        },
        **({"x-kubernetes-validations": list(kind.name_rules)} if kind.name_rules else {}),
    }


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """A pydantic model as a structural schema. Without `defaults` for what the operator writes: nothing is added there."""
    raw = model.model_json_schema(by_alias=True)
    schema = _structural(raw, raw.get("$defs", {}), (), defaults)
    return _with_nested_defaults(schema, model) if defaults else schema


_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
)


def _structural(node: Schema, definitions: Schema, inside: tuple[str, ...], defaults: bool) -> Schema:
    node, inside = _resolved(node, definitions, inside)
    result: Schema = {key: node[key] for key in _KEPT if key in node}
    result |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if "const" in node:
        result["enum"] = [node["const"]]
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in node:
            result |= {limit: node[bound], bound: True}
    if defaults and node.get("default") not in (None, ""):
        result["default"] = node["default"]
    if node.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "items" in node:
        result["items"] = _structural(node["items"], definitions, inside, defaults)
    if "properties" in node:
        result["properties"] = {
            name: _structural(child, definitions, inside, defaults) for name, child in node["properties"].items()
        }
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(node["additionalProperties"], definitions, inside, defaults)
    return result


def _resolved(node: Schema, definitions: Schema, inside: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
    """The node with `X | None` and references replaced by what they mean; what stands beside a reference wins."""
    while True:
        beside = {key: value for key, value in node.items() if key not in ("anyOf", "$ref")}
        if "anyOf" in node:
            options = [option for option in node["anyOf"] if option.get("type") != "null"]
            if len(options) != 1:
                raise ValueError(f"a union cannot be structural: {node}")
            node = {**options[0], **beside}
        elif "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            if name in inside:
                raise ValueError(f"{name} contains itself, which cannot be structural")
            node, inside = {**definitions[name], **beside}, (*inside, name)
        else:
            return node, inside


def _with_nested_defaults(schema: Schema, model: type[BaseModel]) -> Schema:
    """`default: {}` where an optional object has defaults of its own, so that the API server fills them in."""
    for field in model.model_fields.values():
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            continue
        child = schema["properties"][field.alias]
        _with_nested_defaults(child, inner)
        if field.default is PydanticUndefined and field.default_factory is not None:
            child["default"] = {}
    return schema
