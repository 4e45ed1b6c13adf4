"""What is said of a route: who is asked in which order, whether it answers, and how much of it may escalate."""

from typing import Any

import pytest

from ergon.api.conditions import ROUTE_REASONS, known
from ergon.api.route import TaskRouteSpec
from ergon.demand.cascade import RouteFigures
from ergon.energy.escalation import Allowed
from ergon.fleet.types import ModelKey
from ergon.reconcile.observed import Refusal
from ergon.reconcile.routes import RouteModel, RouteView, chosen, fallback_cycle, route_status

KEY = ModelKey("team", "languages")


def spec(**said: Any) -> TaskRouteSpec:
    return TaskRouteSpec.model_validate({"task": "language", **said})


def candidate(name: str, **said: Any) -> RouteModel:
    return RouteModel(**{"name": name, "task": "language", "labels": {}, "quality": 0.8, "state": "Ready", **said})


SMALL = candidate("small", joules=0.25, quality=0.8)
BIG = candidate("big", joules=40.0, quality=0.95)
OTHER = candidate("other", task="translation")


def judged(said: TaskRouteSpec | None, *models: RouteModel, **more: Any) -> dict[str, tuple[bool | None, str, str]]:
    view = RouteView(KEY, said, models=models, **{"fallbacks": {KEY.name: None}, "service": "ergon-gateway.ergon.svc", **more})
    facts, _ = route_status(view)
    assert all(known(ROUTE_REASONS, fact.type, fact.reason) for fact in facts)
    return {fact.type: (fact.status, str(fact.reason), fact.message) for fact in facts}


ORDERS = {
    "the least joules first": (spec(), [BIG, SMALL, OTHER], ["small", "big"]),
    "whose joules nobody knows last": (spec(), [candidate("new", quality=1.0), BIG], ["big", "new"]),
    "of the same joules the better first": (spec(), [candidate("a", joules=40.0001), BIG], ["big", "a"]),
    "as it is written": (spec(order=["big", "small"]), [SMALL, BIG], ["big", "small"]),
    "whom the order leaves out is not asked": (spec(order=["big"]), [SMALL, BIG], ["big"]),
    "by labels": (
        spec(candidates={"matchLabels": {"tier": "gold"}}),
        [SMALL, candidate("gold", labels={"tier": "gold"})],
        ["gold"],
    ),
    "of any task": (
        spec(anyTask=True, candidates={"matchLabels": {"route": "yes"}}),
        [SMALL, candidate("general", task="text", labels={"route": "yes"})],
        ["general"],
    ),
}


@pytest.mark.parametrize(("said", "models", "names"), ORDERS.values(), ids=ORDERS)
def test_the_order(said: TaskRouteSpec, models: list[RouteModel], names: list[str]) -> None:
    assert [model.name for model in chosen(said, models)] == names


READY = {
    "answers": (spec(), [SMALL, BIG], (True, "Ready", "ready: small, big")),
    "one is down": (spec(), [SMALL, candidate("big", state="NotReady")], (True, "Ready", "ready: small; not ready: big")),
    "asleep": (spec(), [candidate("small", state="Asleep")], (True, "Asleep", "the gateway wakes small when it is asked for")),
    "all down": (spec(), [candidate("small", state="NotReady")], (False, "NoModelReady", "none of small answers")),
    "nobody": (spec(), [OTHER], (False, "NoCandidate", "no model of the namespace has task language")),
    "too poor": (
        spec(minQuality=0.99),
        [SMALL, BIG],
        (False, "QualityTooLow", "minQuality is 0.99; the best there is, big, has 0.95"),
    ),
}


@pytest.mark.parametrize(("said", "models", "ready"), READY.values(), ids=READY)
def test_whether_it_answers(said: TaskRouteSpec, models: list[RouteModel], ready: tuple[bool, str, str]) -> None:
    assert judged(said, *models)["Ready"] == ready


def test_what_cannot_be_understood_is_said() -> None:
    facts = judged(None, refusal=Refusal("InvalidSpec", "spec.task: is required"))
    assert facts["Accepted"] == (False, "InvalidSpec", "spec.task: is required")
    assert facts["Ready"][:2] == (False, "NotAccepted")


REFUSED = {
    "a circle": ({"spec": spec(fallback="b"), "fallbacks": {"languages": "b", "b": "languages"}}, "FallbackCycle"),
    "itself": ({"spec": spec(fallback="languages"), "fallbacks": {"languages": "languages"}}, "FallbackCycle"),
    "leads into a circle": ({"spec": spec(fallback="b"), "fallbacks": {"languages": "b", "b": "c", "c": "b"}}, "FallbackCycle"),
    "no gateway": ({"spec": spec(), "gateway": False}, "NoGateway"),
    "every answer escalates": (
        {"spec": spec(escalation={"when": [{"output": "SCORE", "below": 0.8}, {"output": "SCORE", "above": 0.2}]})},
        "InvalidSpec",
    ),
}


@pytest.mark.parametrize(("said", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_served_is_refused(said: dict[str, Any], reason: str) -> None:
    facts = judged(said.pop("spec"), SMALL, **said)
    assert facts["Accepted"][:2] == (False, reason)
    assert facts["Ready"][:2] == (False, "NotAccepted")
    assert facts["Accepted"][2]


def test_rules_that_leave_something_standing_are_none() -> None:
    apart = spec(escalation={"when": [{"output": "SCORE", "below": 0.2}, {"output": "SCORE", "above": 0.8}]})
    assert judged(apart, SMALL)["Accepted"][0] is True


def test_what_is_only_missing_yet_is_said() -> None:
    facts = judged(spec(fallback="later", order=["small", "gone"]), SMALL)
    assert facts["Accepted"] == (
        True,
        "Accepted",
        "fallback later is not there; not a model of task language that it selects: gone",
    )


def test_how_a_circle_is_told() -> None:
    assert fallback_cycle("a", {"a": "b", "b": "c", "c": "b"}) == ["a", "b", "c", "b"]
    assert fallback_cycle("a", {"a": "b", "b": None}) == []


LOWERED = Allowed(0.1, "watts", "budget watts gives way: 10% may escalate")
ESCALATION = {
    "unlimited": (spec(), RouteFigures(1.0, wished_rate=0.4), None, (True, "Unlimited")),
    "less than the most": (spec(escalation={"maxRate": 0.5}), RouteFigures(1.0, wished_rate=0.4), None, (True, "Unlimited")),
    "more than the most": (spec(escalation={"maxRate": 0.2}), RouteFigures(1.0, wished_rate=0.4), None, (False, "AtMaxRate")),
    "a budget": (spec(), RouteFigures(1.0, wished_rate=0.4), LOWERED, (False, "LoweredByBudget")),
    "nothing seen": (spec(), None, None, (True, "Unlimited")),
}


@pytest.mark.parametrize(("said", "figures", "allowed", "expected"), ESCALATION.values(), ids=ESCALATION)
def test_how_much_escalates(
    said: TaskRouteSpec, figures: RouteFigures | None, allowed: Allowed | None, expected: tuple[bool, str]
) -> None:
    assert judged(said, SMALL, BIG, figures=figures, allowed=allowed)["FullEscalation"][:2] == expected


def test_the_figures() -> None:
    figures = RouteFigures(12.3456, 0.25, 0.25, 3.21987, 0.91234)
    view = RouteView(KEY, spec(), models=(BIG, SMALL), figures=figures, service="ergon-gateway.ergon.svc")
    _, body = route_status(view)
    assert body == {
        "endpoint": "http://ergon-gateway.ergon.svc:8000/team/languages",
        "candidates": [
            {"model": "small", "quality": 0.8, "joulesPerRequest": 0.25, "provenance": "assumed", "state": "Ready"},
            {"model": "big", "quality": 0.95, "joulesPerRequest": 40.0, "provenance": "assumed", "state": "Ready"},
        ],
        "requestsPerSecond": 12.3,
        "allowedRate": 1.0,
        "escalationRate": 0.25,
        "joulesPerRequest": 3.22,
        "quality": 0.912,
    }
