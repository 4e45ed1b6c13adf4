"""Overlays on pod templates merge as kubectl's strategic merge would."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.kube.strategic_merge import MergeError, strategic_merge

BASE: dict[str, Any] = {
    "spec": {
        "containers": [
            {"name": "triton", "args": ["a", "b"], "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "store", "volumeMounts": [{"name": "models", "mountPath": "/models"}]},
        ],
        "volumes": [{"name": "models", "emptyDir": {"sizeLimit": "1Gi"}}],
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": True},
        "tolerations": [{"key": "a"}],
    }
}


@pytest.mark.parametrize(
    ("overlay", "path", "expected"),
    [
        ({"spec": {"nodeSelector": {"a": "b"}}}, ["spec", "nodeSelector"], {"a": "b"}),
        ({"spec": {"nodeSelector": {"env": "a", "volumes": "b"}}}, ["spec", "nodeSelector"], {"env": "a", "volumes": "b"}),
        ({"metadata": {"labels": {"env": "prod"}}}, ["metadata", "labels"], {"env": "prod"}),
        ({"spec": {"securityContext": {"runAsUser": 5}}}, ["spec", "securityContext"], {"runAsUser": 5, "runAsNonRoot": True}),
        ({"spec": {"securityContext": {"runAsUser": None}}}, ["spec", "securityContext"], {"runAsNonRoot": True}),
        ({"spec": {"securityContext": {"$patch": "replace", "fsGroup": 1}}}, ["spec", "securityContext"], {"fsGroup": 1}),
        ({"spec": {"tolerations": [{"key": "b"}]}}, ["spec", "tolerations"], [{"key": "b"}]),
        ({"spec": {"containers": [{"name": "triton", "args": ["c"]}]}}, ["spec", "containers", 0, "args"], ["c"]),
        (
            {"spec": {"containers": [{"name": "triton", "env": [{"name": "X", "value": "9"}, {"name": "Z", "value": "3"}]}]}},
            ["spec", "containers", 0, "env"],
            [{"name": "X", "value": "9"}, {"name": "Y", "value": "2"}, {"name": "Z", "value": "3"}],
        ),
        (
            {"spec": {"containers": [{"name": "store", "volumeMounts": [{"name": "s", "mountPath": "/sources"}]}]}},
            ["spec", "containers", 1, "volumeMounts"],
            [{"name": "models", "mountPath": "/models"}, {"name": "s", "mountPath": "/sources"}],
        ),
        (
            {"spec": {"containers": [{"name": "store", "$patch": "delete"}, {"name": "side"}]}},
            ["spec", "containers"],
            [BASE["spec"]["containers"][0], {"name": "side"}],
        ),
        (
            {"spec": {"volumes": [{"name": "models", "emptyDir": {"medium": "Memory"}}]}},
            ["spec", "volumes"],
            [{"name": "models", "emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}}],
        ),
        (
            {"spec": {"volumes": [{"name": "models", "hostPath": {"path": "/x"}}]}},
            ["spec", "volumes"],
            [{"name": "models", "hostPath": {"path": "/x"}}],
        ),
    ],
)
def test_overlays(overlay: dict[str, Any], path: list[Any], expected: Any) -> None:
    merged = strategic_merge(BASE, overlay)
    for part in path:
        merged = merged[part]
    assert merged == expected


@pytest.mark.parametrize(
    ("overlay", "place"),
    [
        ({"spec": []}, "template.spec"),
        ({"spec": {"containers": {"name": "x"}}}, "template.spec.containers"),
        ({"spec": {"containers": [{"image": "x"}]}}, "template.spec.containers"),
        ({"spec": {"containers": [{"name": "triton", "args": {"a": 1}}]}}, "template.spec.containers[triton].args"),
        ({"spec": {"securityContext": {"$patch": "retainKeys"}}}, "template.spec.securityContext"),
    ],
)
def test_what_does_not_fit_is_named(overlay: dict[str, Any], place: str) -> None:
    with pytest.raises(MergeError) as error:
        strategic_merge(BASE, overlay)
    assert str(error.value).startswith(place + ":")


SCALAR = st.integers(0, 3) | st.sampled_from(["a", "b"])
ITEM = st.fixed_dictionaries({"name": st.sampled_from("xyz")}, optional={"image": SCALAR, "env": st.just([])})
OVERLAY = st.dictionaries(
    st.sampled_from(["containers", "volumes", "labels", "args"]),
    st.none(),
).flatmap(
    lambda chosen: st.fixed_dictionaries(
        {
            key: {
                "containers": st.lists(ITEM, max_size=3),
                "volumes": st.lists(ITEM, max_size=3),
                "labels": st.dictionaries(st.sampled_from("pqr"), SCALAR),
                "args": st.lists(SCALAR, max_size=2),
            }[key]
            for key in chosen
        }
    )
)


@given(OVERLAY, OVERLAY)
def test_merging_is_idempotent_and_changes_neither_side(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    before = copy.deepcopy((base, overlay))
    once = strategic_merge(strategic_merge({}, base), overlay)
    assert strategic_merge(once, overlay) == once
    assert (base, overlay) == before


@given(OVERLAY)
def test_the_empty_overlay_changes_nothing(base: dict[str, Any]) -> None:
    merged = strategic_merge({}, base)
    assert strategic_merge(merged, {}) == merged
    assert strategic_merge(merged, merged) == merged
