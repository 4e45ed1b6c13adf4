"""From what a node knows about a pod's containers to the pod's status, as the API shows it. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Waiting:
    """A container that does not run yet, or not now."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Running:
    """A container whose program was executed."""

    started_at: str


@dataclass(frozen=True)
class Terminated:
    """A container that ended."""

    exit_code: int
    reason: str
    started_at: str
    finished_at: str
    message: str = ""


State = Waiting | Running | Terminated


@dataclass
class ContainerView:
    """What the status says of one container."""

    name: str
    image: str
    container_id: str = ""
    state: State = field(default_factory=lambda: Waiting("PodInitializing"))
    last: Terminated | None = None
    restarts: int = 0
    started: bool = False
    ready: bool = False


def now() -> str:
    """The current time as the API writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def phase(restart_policy: str, initialised: bool, failed_init: bool, views: Sequence[ContainerView]) -> str:
    """The pod's phase, by the kubelet's rules."""
    if failed_init:
        return "Failed"
    if not initialised:
        return "Pending"
    if any(isinstance(view.state, Waiting) and view.last is None for view in views):
        return "Pending"
    if all(isinstance(view.state, Terminated) for view in views) and restart_policy != "Always":
        codes = [view.state.exit_code for view in views if isinstance(view.state, Terminated)]
        if all(code == 0 for code in codes):
            return "Succeeded"
        if restart_policy == "Never":
            return "Failed"
    return "Running"


@dataclass(frozen=True)
class PodFacts:
    """What a status is made from, beside its containers."""

    pod_address: str
    node_address: str
    started_at: str
    restart_policy: str
    volumes_ready: bool
    initialised: bool
    failed_init: bool
    readiness_gates: tuple[str, ...] = ()


class Conditions:
    """The pod's conditions with the times at which they last changed."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[bool, str]] = {}

    def render(self, kind: str, status: bool, reason: str = "", message: str = "") -> Object:
        before = self._since.get(kind)
        if before is None or before[0] != status:
            self._since[kind] = (status, now())
        rendered: Object = {
            "type": kind,
            "status": "True" if status else "False",
            "lastProbeTime": None,
            "lastTransitionTime": self._since[kind][1],
        }
        return rendered | ({"reason": reason, "message": message} if not status else {"reason": None, "message": None})


def build(
    facts: PodFacts,
    init: Sequence[ContainerView],
    main: Sequence[ContainerView],
    conditions: Conditions,
    gates: dict[str, bool],
) -> Object:
    """The status to patch; `gates` are the conditions that others set for the pod's readiness gates."""
    unready = [view.name for view in main if not view.ready]
    current = phase(facts.restart_policy, facts.initialised, facts.failed_init, main)
    words = f"containers with unready status: [{' '.join(unready)}]"
    ready_reason, ready_message = ("PodCompleted", "") if current == "Succeeded" else ("ContainersNotReady", words)
    open_gates = [gate for gate in facts.readiness_gates if not gates.get(gate)]
    ready = not unready and not open_gates
    if not unready and open_gates:
        ready_reason, ready_message = "ReadinessGatesNotReady", f"conditions not true: {' '.join(open_gates)}"
    incomplete = [view.name for view in init if not isinstance(view.state, Terminated) or view.state.exit_code]
    return {
        "phase": current,
        "hostIP": facts.node_address,
        "hostIPs": [{"ip": facts.node_address}],
        "podIP": facts.pod_address,
        "podIPs": [{"$patch": "replace"}, {"ip": facts.pod_address}],
        "startTime": facts.started_at,
        "conditions": [
            conditions.render("PodReadyToStartContainers", facts.volumes_ready),
            conditions.render(
                "Initialized",
                facts.initialised,
                "ContainersNotInitialized",
                f"containers with incomplete status: [{' '.join(incomplete)}]",
            ),
            conditions.render("ContainersReady", not unready, ready_reason, ready_message),
            conditions.render("Ready", ready, ready_reason, ready_message),
        ],
        "initContainerStatuses": [_container(view) for view in init],
        "containerStatuses": [_container(view) for view in main],
    }


def _container(view: ContainerView) -> Object:
    return {
        "name": view.name,
        "image": view.image,
        "imageID": f"local://{view.image}",
        "containerID": view.container_id,
        "state": _state(view.state),
        "lastState": _state(view.last) if view.last else {},
        "ready": view.ready,
        "started": view.started,
        "restartCount": view.restarts,
    }


def _state(state: State) -> Object:
    if isinstance(state, Waiting):
        return {"waiting": {"reason": state.reason} | ({"message": state.message} if state.message else {})}
    if isinstance(state, Running):
        return {"running": {"startedAt": state.started_at}}
    rendered = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "startedAt": state.started_at,
        "finishedAt": state.finished_at,
    }
    return {"terminated": rendered | ({"message": state.message} if state.message else {})}
