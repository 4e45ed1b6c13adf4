"""Objects become specs, or one sentence that names the field; nothing makes the parser raise."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.api.parse import InvalidObject, parse_budget, parse_model, parse_pool, parse_route
from ergon.api.pool import AcceleratorPoolSpec
from tests.api.corpus import MODEL, POOL, REFUSED, VALID, Object, Refused, changed

PARSERS: dict[str, Any] = {
    "AcceleratorPool": parse_pool,
    "SpecializedModel": parse_model,
    "EnergyBudget": parse_budget,
    "TaskRoute": parse_route,
}


@pytest.mark.parametrize("obj", VALID.values(), ids=VALID)
def test_valid_objects_are_understood(obj: Object) -> None:
    assert not isinstance(PARSERS[obj["kind"]](obj), InvalidObject)


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_invalid_objects_are_refused_at_the_field(refused: Refused) -> None:
    parsed = PARSERS[refused.obj["kind"]](refused.obj)
    assert isinstance(parsed, InvalidObject)
    assert parsed.field == refused.field
    assert parsed.message.startswith(refused.field + ": ")
    assert parsed.name == refused.obj["metadata"]["name"]
    assert "\n" not in parsed.message


def test_a_wrong_unit_is_told_with_what_to_write() -> None:
    parsed = parse_pool(changed(POOL, ("spec.memory", "22GB")))
    assert isinstance(parsed, InvalidObject)
    assert parsed.message.startswith(
        "spec.memory: '22GB' is not a quantity; write a number with a unit such as 600Mi, 2Gi or 500M"
    )


@pytest.mark.parametrize("name", ["gateway", "leader", "metrics"])
def test_a_pool_cannot_take_the_name_of_a_service_of_ergon_s_own(name: str) -> None:
    parsed = parse_pool({**POOL, "metadata": {"name": name}})
    assert isinstance(parsed, InvalidObject)
    assert parsed.message.startswith("metadata.name: ")
    assert name in parsed.message


def test_three_problems_are_shown_and_the_rest_counted() -> None:
    spec = {"accelerator": {"class": "x"}, "memory": "y", "servers": {"max": -1}, "disk": "z", "maxModels": 0}
    parsed = parse_pool({"metadata": {"name": "l4"}, "spec": spec})
    assert isinstance(parsed, InvalidObject)
    assert parsed.message.count("; ") >= 3
    assert parsed.message.endswith("and 2 more")


def test_what_a_newer_schema_adds_is_ignored_and_null_means_absent() -> None:
    parsed = parse_pool(changed(POOL, ("spec.fromTheFuture", {"a": 1}), ("spec.maxModels", None), ("spec.triton", None)))
    assert isinstance(parsed, AcceleratorPoolSpec)
    assert parsed.max_models is None
    assert parsed.triton.image.startswith("nvcr.io/nvidia/tritonserver:")


@pytest.mark.parametrize("obj", [None, [], "x", 7, {}, {"metadata": None}, {"metadata": {"name": "a"}}, {"spec": {}}])
@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)
def test_what_is_no_object_at_all_is_refused(parse: Any, obj: Any) -> None:
    assert isinstance(parse(obj), InvalidObject)


def test_deep_and_huge_values_are_refused_or_taken_but_never_raise() -> None:
    deep: Any = {}
    for _ in range(2000):
        deep = {"a": deep}
    for value in (deep, 10**5000, "9" * 10**6, float("nan"), float("inf"), "\ud800", {"\x00": 1}):
        for path in ("spec.memory", "spec.template", "spec.servers.max", "spec", "metadata.name"):
            parse_pool(changed(POOL, (path, value)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_arbitrary_json_never_makes_a_parser_raise(value: Any) -> None:
    for parse in PARSERS.values():
        parse(value)
        parse({"metadata": {"name": "a"}, "spec": value})
        parse({"metadata": value, "spec": {}})


@given(st.sampled_from([MODEL, POOL]), st.data())
def test_one_arbitrary_value_anywhere_never_makes_a_parser_raise(base: Object, data: st.DataObject) -> None:
    paths = sorted(_paths(base))
    obj = changed(base, (data.draw(st.sampled_from(paths)), data.draw(JSON)))
    for parse in PARSERS.values():
        parsed = parse(obj)
        if isinstance(parsed, InvalidObject):
            assert len(parsed.message) <= 1024


def _paths(value: Any, prefix: str = "") -> set[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {f"{prefix}{key}" for key, _ in items}
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found |= _paths(child, f"{prefix}{key}.")
    return found
