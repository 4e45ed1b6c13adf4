"""A demand as a person writes it: numbers by model, or one sentence that names the line."""

from typing import Any

import pytest

from ergon.fleet.demand import read_demand
from ergon.fleet.types import ModelKey

NER = ModelKey("team-a", "ner")
KNOWN = {NER, ModelKey("team-b", "code")}


def test_work_per_second_by_model() -> None:
    assert read_demand({"models": {"team-a/ner": 12, "team-b/code": 0.5}}, KNOWN) == (
        {NER: 12.0, ModelKey("team-b", "code"): 0.5},
        [],
    )
    assert read_demand({"models": {}}, KNOWN) == ({}, [])


@pytest.mark.parametrize("content", [None, [], "text", {}, {"models": None}, {"models": ["team-a/ner"]}, {"demand": {"a/b": 1}}])
def test_another_form_is_refused(content: Any) -> None:
    demand, problems = read_demand(content, KNOWN)
    assert demand == {}
    assert len(problems) == 1
    assert "models" in problems[0]


@pytest.mark.parametrize(
    ("name", "work", "says"),
    [
        ("team-a/nre", 1, "there is no such model"),
        ("ner", 1, "namespace/name"),
        ("team-a/ner/x", 1, "namespace/name"),
        ("/ner", 1, "namespace/name"),
        (7, 1, "namespace/name"),
        ("team-a/ner", float("nan"), "is not a number"),
        ("team-a/ner", float("inf"), "more than"),
        ("team-a/ner", -1, "negative"),
        ("team-a/ner", -(10**400), "negative"),
        ("team-a/ner", 10**400, "more than"),
        ("team-a/ner", "12", "'12' is not a number"),
        ("team-a/ner", True, "not a number"),
        ("team-a/ner", None, "not a number"),
        ("team-a/ner", [1], "not a number"),
    ],
)
def test_a_wrong_line_is_named_and_the_others_are_read(name: Any, work: Any, says: str) -> None:
    demand, problems = read_demand({"models": {name: work, "team-b/code": 2}}, KNOWN)
    assert demand == {ModelKey("team-b", "code"): 2.0}
    assert len(problems) == 1
    assert problems[0].startswith(f"models.{name}: ")
    assert says in problems[0]
    assert "\n" not in problems[0]


def test_a_key_beside_models_is_no_silent_mistake() -> None:
    assert read_demand({"models": {}, "modells": {}}, KNOWN)[1] == ["modells: unknown field; only models is read"]
