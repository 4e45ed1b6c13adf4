"""Values: every one is in the schema, and a wrong one is refused in words."""

import json
from typing import Any

import pytest
import yaml
from tests.install.chart import CHART, POOL, Values, run_helm


def schema() -> dict[str, Any]:
    return dict(json.loads((CHART / "values.schema.json").read_text()))


def walk(values: dict[str, Any], node: dict[str, Any], path: str = "") -> list[str]:
    """Paths of values that the schema does not know, and of what it knows and values.yaml does not."""
    known = node.get("properties", {})
    found = [f"{path}{key}" for key in set(known) ^ set(values)]
    for key in set(known) & set(values):
        if isinstance(values[key], dict) and "properties" in known[key]:
            found += walk(values[key], known[key], f"{path}{key}.")
    return found


def test_schema_and_values_know_the_same() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert sorted(walk(values, schema())) == ["gateway.resources.claims", "global", "resources.claims"]


def test_every_object_of_the_schema_is_closed_and_described() -> None:
    def visit(node: dict[str, Any], path: str) -> None:
        if "properties" in node and path not in OPEN:
            assert node["additionalProperties"] in (False, {"type": "string"}), path
        for key, child in node.get("properties", {}).items():
            if "properties" in node and not path.endswith("[]"):
                assert child.get("description"), f"{path}.{key}"
            visit(child, f"{path}.{key}")
        if "items" in node:
            visit(node["items"], f"{path}[]")

    visit(schema(), "")


# What the API server judges: a pool's spec and an environment variable.
OPEN = {
    ".pools[].spec",
    ".pools[].spec.accelerator",
    ".extraEnv[]",
    ".gateway.extraEnv[]",
    ".resources.requests",
    ".resources.limits",
}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"operator": {"loglevel": "info"}}, "additional properties 'loglevel' not allowed"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
        ({"operator": {"logFormat": "xml"}}, "at '/operator/logFormat': value must be one of 'json', 'text'"),
        ({"image": {"digest": "latest"}}, "at '/image/digest'"),
        ({"watchNamespaces": ["Team A"]}, "at '/watchNamespaces/0'"),
        ({"operator": {"connectionAgeSeconds": 0}}, "at '/operator/connectionAgeSeconds': minimum: got 0, want 1"),
        ({"gatewayApi": {"enabled": True, "name": ""}}, "at '/gatewayApi/name'"),
        ({"gateway": {"enabled": True, "name": "public"}}, "at '/gateway': additional properties 'name' not allowed"),
        ({"gateway": {"replicas": 0}}, "at '/gateway/replicas': minimum: got 0, want 1"),
        (
            {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}},
            "gateway.autoscaling.minReplicas is 5, above maxReplicas 2",
        ),
        ({"pools": [{"name": "a"}]}, "at '/pools/0': missing property 'spec'"),
        ({"pools": [{"name": "A", "spec": POOL}]}, "at '/pools/0/name'"),
        ({"pools": [{"name": "a", "spec": {"accelerator": {"class": "cpu"}, "memory": "1Gi"}}]}, "missing property 'servers'"),
        ({"pools": [{"name": "a", "spec": POOL}, {"name": "a", "spec": POOL}]}, 'pools[0] and pools[1] are both named "a"'),
        (
            {"watchNamespaces": ["a"], "sourceSecretNamespaces": ["b"]},
            'sourceSecretNamespaces names "b", which is not in watchNamespaces',
        ),
    ],
)
def test_a_wrong_value_is_refused_in_words(values: Values, said: str) -> None:
    done = run_helm("template", "ergon", str(CHART), values=values)
    assert done.returncode != 0
    assert said in done.stderr
