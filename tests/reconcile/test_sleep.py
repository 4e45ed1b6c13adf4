"""A model that sleeps: the gateway stands in for it before its replica goes, and until one answers again."""

from dataclasses import replace

import pytest

from ergon.fleet.types import ModelKey
from ergon.reconcile.decide import BringUp, Decision, StartDrain, StopDrain, Unload, decide
from ergon.reconcile.observed import Drain, IndexState, ModelView, Refusal, ReplicaView
from ergon.reconcile.status import model_status
from ergon.reconcile.waking import wake_answer
from tests.planning.test_planner import model
from tests.reconcile.test_decide import NOW, POLICY, at, ready, server, view

SLEEPY = model("m", replicas=0)
AWAKE = {"can_wake": True, "gateway_ready": True}
ASLEEP = {**AWAKE, "asleep": True}
DRAINING = Drain(NOW - 5, NOW - 5, 0)
DRAINED = Drain(NOW - 500, NOW - 500, 0)


def said(v: ModelView) -> dict[str, tuple[bool | None, str]]:
    facts, _ = model_status(v, decide(v, NOW, POLICY))
    return {fact.type: (fact.status, fact.reason) for fact in facts}


def decided(v: ModelView) -> Decision:
    return decide(v, NOW, POLICY)


def test_going_to_sleep_the_gateway_stands_in_before_the_replica_goes() -> None:
    first = decided(view(SLEEPY, (), ready(0), **ASLEEP))
    assert [type(action) for action in first.actions] == [StartDrain]
    assert first.endpoints == ()
    assert first.through_gateway
    then = decided(view(SLEEPY, (), ready(0, drain=DRAINING), **ASLEEP))
    assert then.actions == ()
    assert then.through_gateway
    last = decided(view(SLEEPY, (), ready(0, drain=DRAINED), **ASLEEP))
    assert [type(action) for action in last.actions] == [Unload]


def test_nothing_goes_to_sleep_while_no_gateway_answers() -> None:
    v = view(SLEEPY, (), ready(0, drain=DRAINED), **{**ASLEEP, "gateway_ready": False})
    decision = decided(v)
    assert [type(action) for action in decision.actions] == [StopDrain]
    assert decided(view(SLEEPY, (), ready(0), **{**ASLEEP, "gateway_ready": False})).endpoints == (server(0),)


def test_waking_the_gateway_stands_in_until_a_replica_answers() -> None:
    begun = decided(view(SLEEPY, (at(0),), ReplicaView(server(0)), **AWAKE))
    assert [type(action) for action in begun.actions] == [BringUp]
    assert begun.through_gateway
    there = decided(view(SLEEPY, (at(0),), ready(0), **AWAKE))
    assert there.endpoints == (server(0),)
    assert not there.through_gateway


def test_one_that_is_asked_for_while_it_drains_serves_on_at_once() -> None:
    decision = decided(view(SLEEPY, (at(0),), ready(0, drain=DRAINING), **AWAKE))
    assert [type(action) for action in decision.actions] == [StopDrain]


@pytest.mark.parametrize(
    ("v", "stands_in"),
    [
        (view(model("m"), (at(0),), ReplicaView(server(0)), **AWAKE), False),
        (view(model("m", replicas=0, fixed_replicas=0), (), **AWAKE), False),
        (view(SLEEPY, (), refusal=Refusal("NameTaken", ""), **ASLEEP), False),
        (view(SLEEPY, (at(0),), ReplicaView(server(0)), can_wake=False), False),
        (view(SLEEPY, (at(0),), ReplicaView(server(0)), **AWAKE), True),
    ],
    ids=["always on", "scaled to zero", "refused", "no gateway", "may sleep"],
)
def test_the_gateway_stands_in_only_for_models_that_may_sleep(v: ModelView, stands_in: bool) -> None:
    assert decided(v).through_gateway is stands_in


def test_a_status_says_asleep_and_what_would_wake_it() -> None:
    quiet = said(view(SLEEPY, (), **ASLEEP))
    assert quiet["Ready"] == (True, "Asleep")
    assert quiet["Accepted"] == (True, "Accepted")
    assert "Reconciling" not in quiet
    assert "Stalled" not in quiet
    going = said(view(SLEEPY, (), ready(0, drain=DRAINING), **ASLEEP))
    assert going["Ready"] == (True, "Asleep")
    assert going["Reconciling"] == (True, "Draining")
    stranded = said(view(SLEEPY, (), **{**ASLEEP, "gateway_ready": False}))
    assert stranded["Ready"] == (False, "NoGateway")
    waking = said(view(SLEEPY, (at(0),), ReplicaView(server(0), IndexState.LOADING), **AWAKE))
    assert waking["Ready"] == (False, "Queued")


WAKES = {
    "asleep": ([("Ready", "True", "Asleep")], 0, 202, "Waking", True),
    "answers": ([("Ready", "True", "Ready")], 1, 202, "Ready", True),
    "just made": ([], 0, 202, "Waking", True),
    "no room": ([("Placed", "False", "NoRoom"), ("Stalled", "True", "NoRoom")], 0, 409, "NoRoom", True),
    "shed": ([("Placed", "False", "ShedByBudget"), ("Stalled", "True", "ShedByBudget")], 0, 409, "ShedByBudget", True),
    "does not load": ([("Placed", "True", "Placed"), ("Stalled", "True", "LoadFailed")], 0, 409, "LoadFailed", True),
    "refused": ([("Accepted", "False", "NameTaken"), ("Stalled", "True", "NameTaken")], 0, 409, "NameTaken", False),
}


@pytest.mark.parametrize(("conditions", "answering", "code", "word", "wakes"), WAKES.values(), ids=WAKES)
def test_a_wake_is_answered_by_what_is_known(
    conditions: list[tuple[str, str, str]], answering: int, code: int, word: str, wakes: bool
) -> None:
    stated = [{"type": t, "status": s, "reason": r, "message": "why"} for t, s, r in conditions]
    answer = wake_answer(ModelKey("team", "m"), SLEEPY, stated, answering)
    assert (answer.code, answer.wakes) == (code, wakes)
    assert answer.body.get("state", answer.body.get("reason")) == word


def test_a_wake_of_nothing_and_of_what_is_scaled_to_zero() -> None:
    key = ModelKey("team", "m")
    assert wake_answer(key, None, None, 0).code == 404
    zero = wake_answer(key, replace(SLEEPY, fixed_replicas=0), [], 0)
    assert (zero.code, zero.body["reason"], zero.wakes) == (409, "ScaledToZero", False)
