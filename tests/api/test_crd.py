"""The CRDs: structural, bounded, described, and the same as what stands in crds/."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ergon.api.crd import KINDS, crd_documents, file_name, render_yaml, structural_schema
from ergon.api.types import Spec
from tests.api.corpus import VALID

Schema = dict[str, Any]
ROOT = Path(__file__).parents[2]
DOCUMENTS = {document["spec"]["names"]["kind"]: document for document in crd_documents()}
ALLOWED = {
    *("type", "description", "format", "enum", "pattern", "default", "required", "anyOf", "items", "properties"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "additionalProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-int-or-string"),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
}


def nodes(schema: Schema, path: str, *, atomic: bool = False) -> Iterator[tuple[str, Schema, bool]]:
    """Every node below spec and status, with whether it stands inside an atomic map or list."""
    yield path, schema, atomic
    inner = atomic or "atomic" in (schema.get("x-kubernetes-map-type"), schema.get("x-kubernetes-list-type"))
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}", atomic=inner)
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]", atomic=inner)
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}", atomic=inner)


def schema_of(kind: str) -> Schema:
    schema: Schema = DOCUMENTS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


ALL = [
    pytest.param(node, atomic, id=f"{kind}{path}")
    for kind in DOCUMENTS
    for part in ("spec", "status")
    for path, node, atomic in nodes(schema_of(kind)["properties"][part], f".{part}")
]


@pytest.mark.parametrize(("node", "atomic"), ALL)
def test_every_node_is_structural_and_bounded(node: Schema, atomic: bool) -> None:
    assert set(node) <= ALLOWED
    if node.get("x-kubernetes-int-or-string"):
        assert "type" not in node
        assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        assert "maxLength" in node
        assert "pattern" not in node  # its refusal would show the pattern, not what to write
        (rule,) = node["x-kubernetes-validations"]
        assert "600Mi" in rule["message"]
        assert node["minimum"] == 2**20
        return
    assert "anyOf" not in node
    match node["type"]:
        case "object":
            check_object(node)
        case "array":
            check_list(node, atomic)
        case "string":
            assert "maxLength" in node or "enum" in node
        case "integer":
            assert "minimum" in node
        case "number":
            assert "minimum" in node
        case other:
            assert other == "boolean"


def check_object(node: Schema) -> None:
    forms = [key for key in ("properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields") if key in node]
    assert len(forms) == 1
    assert forms == ["properties"] or "maxProperties" in node
    assert set(node.get("required", ())) <= set(node.get("properties", ()))


def check_list(node: Schema, atomic: bool) -> None:
    assert "maxItems" in node
    kind = node.get("x-kubernetes-list-type")
    assert kind is not None or atomic
    if kind == "map":
        assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"])
    if kind == "set":
        assert node["items"]["type"] == "string"


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_field_is_described_in_a_sentence(kind: str) -> None:
    for path, node, _ in nodes(schema_of(kind), kind):
        for name, child in node.get("properties", {}).items():
            if (path, name) != (kind, "metadata"):
                assert child.get("description", "").rstrip(")").endswith("."), f"{path}.{name}"


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_defaults_are_of_their_type_and_only_in_what_people_write(kind: str) -> None:
    types = {"string": str, "integer": int, "number": int | float, "boolean": bool, "object": dict}
    for part in ("spec", "status"):
        for path, node, _ in nodes(schema_of(kind)["properties"][part], part):
            if "default" in node:
                assert part == "spec", path
                assert isinstance(node["default"], types[node.get("type", "string")]), path
                assert node.get("required") is None, path


def defaulted(value: Any, node: Schema) -> Any:
    """The value as the API server fills it in."""
    if isinstance(value, list):
        return [defaulted(item, node["items"]) for item in value]
    if not isinstance(value, dict) or "properties" not in node:
        return value
    filled = {name: child["default"] for name, child in node["properties"].items() if "default" in child} | value
    return {name: defaulted(item, node["properties"][name]) for name, item in filled.items()}


@pytest.mark.parametrize("obj", VALID.values(), ids=VALID)
def test_the_defaults_in_the_schema_are_those_of_the_parser(obj: Schema) -> None:
    spec_type = {kind.name: kind.spec for kind in KINDS}[obj["kind"]]
    filled = defaulted(obj["spec"], schema_of(obj["kind"])["properties"]["spec"])
    assert filled != obj["spec"]
    assert spec_type.model_validate(filled) == spec_type.model_validate(obj["spec"])


def test_names_scopes_and_subresources() -> None:
    seen = {}
    for kind, document in DOCUMENTS.items():
        spec, version = document["spec"], document["spec"]["versions"][0]
        seen[kind] = (spec["names"]["plural"], spec["names"]["shortNames"], spec["scope"])
        assert spec["names"]["categories"] == ["ergon"]
        assert spec["names"]["listKind"] == f"{kind}List"
        assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
        assert version["subresources"]["status"] == {}
        assert document["metadata"]["name"] == f"{spec['names']['plural']}.ergon.dev"
    assert seen == {
        "AcceleratorPool": ("acceleratorpools", ["ap"], "Cluster"),
        "SpecializedModel": ("specializedmodels", ["sm"], "Namespaced"),
        "EnergyBudget": ("energybudgets", ["ebud"], "Cluster"),
        "TaskRoute": ("taskroutes", ["troute"], "Namespaced"),
    }
    assert "scale" in DOCUMENTS["SpecializedModel"]["spec"]["versions"][0]["subresources"]


def test_every_rule_says_what_is_wrong() -> None:
    for kind in DOCUMENTS:
        for path, node, _ in nodes(schema_of(kind), kind):
            for rule in node.get("x-kubernetes-validations", ()):
                assert rule["message"], path
                assert "fieldPath" not in rule or rule["fieldPath"][1:] in node["properties"], path


def test_what_cannot_be_structural_is_refused() -> None:
    class Union(Spec):
        either: int | str

    class Self(Spec):
        again: "Self | None" = None

    for model in (Union, Self):
        with pytest.raises(ValueError, match="cannot be structural"):
            structural_schema(model)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_committed_file_is_what_the_models_say(kind: str) -> None:
    document = DOCUMENTS[kind]
    assert (ROOT / "crds" / file_name(document)).read_text() == render_yaml(document), "run: ergon crds --output crds"


def test_the_documents_are_the_same_in_every_process() -> None:
    script = "from ergon.api.crd import *; print(''.join(map(render_yaml, crd_documents())), end='')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert done.stdout == "".join(render_yaml(document) for document in crd_documents())
