"""A container's environment: expansion, references, and the words for what is missing."""

import base64

import pytest

from ergon.local.node.environment import ConfigurationError, Sources, build, expand, pod_field, quantity, resource_field

POD = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app.kubernetes.io/name": "x"}, "annotations": {"a": "b"}},
    "spec": {"nodeName": "cpu-0", "serviceAccountName": "reader"},
}
FACTS = {"status.podIP": "10.244.1.9", "status.hostIP": "10.243.0.10"}


def build_env(container: dict, secrets: dict | None = None, config_maps: dict | None = None) -> dict[str, str]:
    return build(POD, container, {"BASE": "1"}, Sources(secrets or {}, config_maps or {}), FACTS, {"cpu": 2.0, "memory": 1024.0})


def secret(**values: str) -> dict:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--address=$(POD_IP)", "--address=10.0.0.1"),
        ("$(UNKNOWN) stays", "$(UNKNOWN) stays"),
        ("$$(POD_IP) is escaped", "$(POD_IP) is escaped"),
        ("$POD_IP is no reference", "$POD_IP is no reference"),
        ("a $ alone", "a $ alone"),
        ("$(POD_IP):$(POD_IP)", "10.0.0.1:10.0.0.1"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"POD_IP": "10.0.0.1"}) == expected


def test_a_variable_sees_those_before_it() -> None:
    found = build_env(
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(BASE)-$(C)"}, {"name": "C", "value": "3"}]}
    )
    assert found == {"BASE": "1", "A": "1", "B": "1-1-$(C)", "C": "3"}


def test_values_come_from_secrets_config_maps_and_the_pod() -> None:
    container = {
        "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1500m"}},
        "envFrom": [{"prefix": "P_", "secretRef": {"name": "s"}}, {"configMapRef": {"name": "absent", "optional": True}}],
        "env": [
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "MAP", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "a"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app.kubernetes.io/name']"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "absent", "optional": True}}},
        ],
    }
    found = build_env(container, {"s": secret(k="v")}, {"m": {"data": {"a": "b"}}, "absent": None})
    expected = {"P_k": "v", "KEY": "v", "MAP": "b", "POD_IP": "10.244.1.9", "LABEL": "x", "MEMORY": "1024", "CPU": "2"}
    assert found == {"BASE": "1", **expected}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"secretKeyRef": {"name": "s", "key": "absent"}}, "couldn't find key absent in Secret s"),
        ({"secretKeyRef": {"name": "gone", "key": "k"}}, 'secret "gone" not found'),
        ({"configMapKeyRef": {"name": "gone", "key": "k"}}, 'configmap "gone" not found'),
        ({"fieldRef": {"fieldPath": "status.phase"}}, "status.phase"),
    ],
)
def test_what_is_missing_is_named(source: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build_env({"env": [{"name": "X", "valueFrom": source}]}, {"s": secret(k="v"), "gone": None}, {"gone": None})


def test_a_limit_that_is_not_set_is_the_nodes() -> None:
    assert resource_field({}, {"resource": "limits.cpu"}, {"cpu": 2.0}) == "2"


def test_all_labels_are_lines() -> None:
    assert pod_field(POD, "metadata.labels", {}) == 'app.kubernetes.io/name="x"'


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), ("1Ki", 1024), ("512Mi", 512 << 20), ("1e3", 1000), ("1Ei", 2**60), ("2P", 2e15)],
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


def test_a_wrong_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity("5 apples")
    with pytest.raises(ValueError, match="not a quantity"):
        quantity("1.2.3")
