"""From containers to the pod's status."""

import pytest

from ergon.local.node.status import Conditions, ContainerView, PodFacts, Running, State, Terminated, Waiting, build, phase


def view(state: State, *, last: Terminated | None = None, ready: bool = False) -> ContainerView:
    return ContainerView("c", "python", state=state, last=last, ready=ready)


def ended(code: int) -> Terminated:
    return Terminated(code, "Completed" if code == 0 else "Error", "t0", "t1")


@pytest.mark.parametrize(
    ("policy", "state", "last", "expected"),
    [
        ("Always", Waiting("ContainerCreating"), None, "Pending"),
        ("Always", Running("t0"), None, "Running"),
        ("Always", Waiting("CrashLoopBackOff"), ended(1), "Running"),
        ("Always", ended(0), None, "Running"),
        ("Never", ended(0), None, "Succeeded"),
        ("Never", ended(2), None, "Failed"),
        ("OnFailure", ended(0), None, "Succeeded"),
        ("OnFailure", ended(2), None, "Running"),
    ],
)
def test_phases(policy: str, state: State, last: Terminated | None, expected: str) -> None:
    assert phase(policy, True, False, [view(state, last=last)]) == expected


def facts(**changes: object) -> PodFacts:
    given = {
        "pod_address": "10.244.1.1",
        "node_address": "10.243.0.10",
        "started_at": "t0",
        "restart_policy": "Always",
        "volumes_ready": True,
        "initialised": True,
        "failed_init": False,
    }
    return PodFacts(**{**given, **changes})  # type: ignore[arg-type]


def conditions(status: dict) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in status["conditions"]}


def test_a_pod_is_ready_when_its_containers_and_gates_are() -> None:
    one = view(Running("t0"), ready=True)
    assert conditions(build(facts(), [], [one], Conditions(), {}))["Ready"] == "True"
    gated = build(facts(readiness_gates=("example.org/gate",)), [], [one], Conditions(), {})
    assert (conditions(gated)["ContainersReady"], conditions(gated)["Ready"]) == ("True", "False")
    opened = build(facts(readiness_gates=("example.org/gate",)), [], [one], Conditions(), {"example.org/gate": True})
    assert conditions(opened)["Ready"] == "True"


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    kept = Conditions()
    first = kept.render("Ready", False, "R")
    assert kept.render("Ready", False, "R") == first
    assert kept.render("Ready", True)["reason"] is None


def test_containers_show_state_last_state_and_restarts() -> None:
    one = view(Waiting("CrashLoopBackOff", "back-off 10s"), last=ended(3))
    one.restarts = 2
    (shown,) = build(facts(), [], [one], Conditions(), {})["containerStatuses"]
    assert shown["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert shown["lastState"]["terminated"]["exitCode"] == 3
    assert shown["restartCount"] == 2
