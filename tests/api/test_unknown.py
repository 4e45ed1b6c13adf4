"""Fields that no schema knows: the same that the API server refuses by name (test_admission.py asks it)."""

import pytest

from ergon.api.unknown import unknown_fields
from tests.api.corpus import BUDGET, MODEL, POOL, VALID, Object, changed


@pytest.mark.parametrize("obj", VALID.values(), ids=VALID)
def test_valid_objects_have_none(obj: Object) -> None:
    assert unknown_fields(obj["kind"], obj) == []


@pytest.mark.parametrize(
    ("obj", "fields"),
    [
        (changed(MODEL, ("spec.fastest", True)), ["spec.fastest"]),
        (changed(MODEL, ("spec.variants.0.gpu", True), ("spec.slo.p99", "1s")), ["spec.slo.p99", "spec.variants[0].gpu"]),
        (changed(MODEL, ("spec.variants.0.profiles.0.tokensPerSec", 1)), ["spec.variants[0].profiles[0].tokensPerSec"]),
        (changed(MODEL, ("metadata.lables", {})), ["metadata.lables"]),
        (changed(MODEL, ("sepc", {})), ["sepc"]),
        (changed(MODEL, ("status", {"ready": True})), ["status.ready"]),
        (changed(POOL, ("spec.power", {"idleWats": 1})), ["spec.power.idleWats"]),
        (changed(BUDGET, ("spec.limits.watt", 1)), ["spec.limits.watt"]),
    ],
)
def test_each_is_named_by_its_path(obj: Object, fields: list[str]) -> None:
    assert unknown_fields(obj["kind"], obj) == fields


@pytest.mark.parametrize(
    "obj",
    [
        changed(MODEL, ("spec.variants.0.config", {"anything": {"goes": [1]}})),
        changed(POOL, ("spec.template", {"spec": {"whatever": 1}})),
        changed(POOL, ("spec.namespaces", {"matchLabels": {"any/label": "x"}})),
        changed(POOL, ("metadata.annotations", {"any/annotation": "x"})),
    ],
)
def test_free_form_is_free(obj: Object) -> None:
    assert unknown_fields(obj["kind"], obj) == []


@pytest.mark.parametrize("spec", [None, 3, "text", [], {"variants": 3}, {"variants": [None, "x"]}, {"slo": []}])
def test_values_are_not_judged_here(spec: object) -> None:
    assert unknown_fields("SpecializedModel", {"spec": spec}) == []
