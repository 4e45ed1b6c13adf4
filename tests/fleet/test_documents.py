"""Documents as files or the API server hold them, read into a fleet."""

from typing import Any

import pytest

from ergon.fleet.documents import Document, Reading, read_fleet
from ergon.fleet.types import ModelKey, Replica, ServerKey
from tests.api.corpus import ABSENT, BUDGET, MODEL, POOL, REFUSED, VALID, Object, Refused, changed

NAMESPACE: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {"tier": "standard"}}}


def read(*contents: Any, **options: Any) -> Reading:
    documents = [Document(f"fleet.yaml, document {number}", content) for number, content in enumerate(contents, 1)]
    return read_fleet(documents, operator_namespace="ergon-system", **options)


def test_the_four_kinds_become_a_fleet() -> None:
    reading = read(POOL, MODEL, changed(BUDGET, ("spec", {"limits": {"watts": 900}})), NAMESPACE)
    assert reading.problems == ()
    fleet = reading.fleet
    assert [pool.name for pool in fleet.pools] == ["golden-l4"]
    assert [model.key for model in fleet.models] == [ModelKey("default", "golden-ner")]
    assert [(limit.name, limit.watts) for limit in fleet.watt_limits] == [("golden-site", 900.0)]
    assert fleet.namespace_labels("team-a") == {"tier": "standard", "kubernetes.io/metadata.name": "team-a"}
    assert fleet.namespace_labels("unknown") == {"kubernetes.io/metadata.name": "unknown"}
    assert fleet.operator_namespace == "ergon-system"


def test_a_budget_that_only_observes_or_counts_hours_limits_no_plan() -> None:
    observing = changed(BUDGET, ("spec", {"limits": {"watts": 900}, "enforcement": "Observe"}))
    assert read(observing, changed(BUDGET, ("metadata.name", "hours"))).fleet.watt_limits == ()


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        [POOL],
        "text",
        3,
        {},
        {"kind": "Deployment", "apiVersion": "apps/v1"},
        {"kind": "SomethingElse", "apiVersion": "ergon.dev/v1alpha1"},
        {"kind": "TaskRoute", "apiVersion": "other.dev/v1"},
        {"kind": "Namespace", "apiVersion": "other.dev/v1"},
        {"kind": "SpecializedModel", "apiVersion": "other.dev/v1"},
        {"kind": "List", "apiVersion": "v1", "items": None},
        {"kind": ["List"], "items": []},
        {"models": {"a/b": 1}},
    ],
)
def test_what_is_not_ours_is_passed_over(content: Any) -> None:
    reading = read(content)
    assert reading.problems == ()
    assert reading.fleet.pools == ()
    assert reading.fleet.models == ()


@pytest.mark.parametrize("kind", ["List", "SpecializedModelList"])
def test_lists_are_looked_into(kind: str) -> None:
    bad = changed(MODEL, ("spec.task", ABSENT), ("metadata.name", "bad"))
    reading = read({"apiVersion": "v1", "kind": kind, "items": [MODEL, None, "x", bad]})
    assert [model.key.name for model in reading.fleet.models] == ["golden-ner"]
    (problem,) = reading.problems
    assert problem.where == "fleet.yaml, document 1, item 4"


def test_models_that_name_no_namespace_are_where_kubectl_would_put_them() -> None:
    nameless = changed(MODEL, ("metadata.namespace", ABSENT))
    assert read(nameless).fleet.models[0].key.namespace == "default"
    assert read(nameless, default_namespace="team-b").fleet.models[0].key.namespace == "team-b"


@pytest.mark.parametrize("obj", VALID.values(), ids=VALID)
def test_what_the_api_server_takes_is_taken(obj: Object) -> None:
    assert read(obj).problems == ()


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_what_the_api_server_refuses_is_one_line_and_the_rest_is_read(refused: Refused) -> None:
    healthy = changed(MODEL, ("metadata.name", "healthy"))
    reading = read(refused.obj, healthy)
    assert [model.key.name for model in reading.fleet.models] == ["healthy"]
    assert reading.fleet.pools == ()
    (problem,) = reading.problems
    line = str(problem)
    assert line.startswith(f"fleet.yaml, document 1: {refused.obj['kind']} ")
    assert refused.field in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (changed(MODEL, ("spec.variants.0.gpu", 1)), "spec.variants[0].gpu: unknown field"),
        (changed(MODEL, *((f"spec.x{n}", 1) for n in range(5))), "spec.x0, spec.x1, spec.x2 and 2 more: unknown field"),
        (changed(POOL, ("metadata.labels", {"tier": 1})), "metadata.labels.tier: must be text; put it in quotes"),
        (changed(POOL, ("metadata.labels", ["tier"])), "metadata.labels: must be a map"),
        (changed(POOL, ("apiVersion", "ergon.dev/v9")), "apiVersion: must be ergon.dev/v1alpha1"),
        (changed(POOL, ("apiVersion", ABSENT)), "apiVersion: must be ergon.dev/v1alpha1"),
        (changed(POOL, ("metadata", ABSENT)), "metadata.name: is missing"),
        (changed(MODEL, ("metadata", "x")), "metadata.name: is missing"),
        (changed(MODEL, ("metadata.namespace", "Team_A")), "metadata.namespace: 'Team_A' is no namespace"),
        (changed(MODEL, ("spec.variants.0.config", {"parameters": {1: "a", "b": "c"}})), "config cannot be written as JSON"),
        (changed(MODEL, ("metadata.name", "a\nb" * 100)), "metadata.name: has 300 characters"),
        (changed(MODEL, ("spec", {"a\nb": 1})), "spec.a b: unknown field"),
        ({**NAMESPACE, "metadata": {}}, "metadata.name: '' is no namespace"),
        ({**NAMESPACE, "metadata": {"name": "a", "labels": {"x": True}}}, "metadata.labels.x: must be text"),
    ],
)
def test_what_files_get_wrong_is_said(obj: Object, says: str) -> None:
    reading = read(obj)
    (problem,) = reading.problems
    assert says in str(problem)
    assert "\n" not in str(problem)
    assert (reading.fleet.pools, reading.fleet.models, reading.fleet.namespaces) == ((), (), {})


def test_a_map_within_itself_is_no_crash() -> None:
    spec: Object = {"task": "x"}
    spec["slo"] = spec
    config: Object = {}
    config["again"] = config
    inside = changed(MODEL, ("metadata.name", "inside"))
    inside["spec"]["variants"][0]["config"] = config
    reading = read({**MODEL, "spec": spec}, inside)
    assert len(reading.problems) == 2
    assert reading.fleet.models == ()


@pytest.mark.parametrize("obj", [POOL, MODEL, BUDGET, NAMESPACE], ids=lambda obj: obj["kind"])
def test_the_second_of_one_name_is_an_error_that_names_the_first(obj: Object) -> None:
    reading = read(obj, POOL if obj is not POOL else MODEL, obj)
    (problem,) = reading.problems
    assert str(problem).startswith(f"fleet.yaml, document 3: {obj['kind']} ")
    assert "twice, first in fleet.yaml, document 1" in str(problem)
    assert len(reading.fleet.pools) <= 1
    assert reading.broken == frozenset()


def test_one_name_in_two_namespaces_is_two_models() -> None:
    assert len(read(MODEL, changed(MODEL, ("metadata.namespace", "team-b"))).fleet.models) == 2


def test_broken_models_are_known_by_name() -> None:
    assert read(changed(MODEL, ("spec.task", ABSENT)), POOL).broken == {ModelKey("default", "golden-ner")}


def test_what_the_api_server_stores_may_hold_fields_of_newer_versions() -> None:
    newer = changed(MODEL, ("spec.fastest", True))
    assert len(read(newer).problems) == 1
    assert read(newer, strict=False).problems == ()


def test_placements_in_a_status_are_the_current_plan() -> None:
    placements = [
        {"pool": "l4", "server": 0, "variant": "cpu-int8", "state": "Ready"},
        {"pool": "l4", "server": 3, "variant": "cpu-int8", "state": "Loading"},
        {"pool": "l4", "server": 1, "variant": "cpu-int8", "state": "Draining"},
        {"pool": "l4", "server": "1"},
        "x",
    ]
    reading = read(changed(MODEL, ("status", {"placements": placements})), strict=False)
    key = ModelKey("default", "golden-ner")
    assert reading.fleet.current == (
        Replica(key, "cpu-int8", ServerKey("l4", 0)),
        Replica(key, "cpu-int8", ServerKey("l4", 3)),
    )


def test_a_pool_on_its_way_out_is_known_as_such() -> None:
    leaving = changed(POOL, ("metadata.deletionTimestamp", "2026-01-01T00:00:00Z"))
    assert read(leaving, strict=False).fleet.pools[0].deleting


def test_one_broken_of_many_is_reported_and_the_rest_is_read() -> None:
    many = [changed(MODEL, ("metadata.name", f"m{n}")) for n in range(300)]
    many[150]["spec"]["variants"] = []
    reading = read(*many)
    assert len(reading.fleet.models) == 299
    assert [problem.what for problem in reading.problems] == ["SpecializedModel default/m150"]
