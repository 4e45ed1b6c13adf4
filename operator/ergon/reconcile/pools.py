"""The story of one pool: how many servers, which pods are given up, and what its status says."""

from dataclasses import dataclass
from typing import Any

from ergon.api.quantities import format_bytes
from ergon.fleet.types import Pool
from ergon.reconcile.figures import PoolEnergy, rounded
from ergon.reconcile.observed import Refusal
from ergon.reconcile.status import Fact

UNSCHEDULED_SECONDS = 60.0
DOWN_SECONDS = 60.0
"""Neither Ready nor answering for so long: whatever such a server holds answers nobody. A restart of Triton takes some 10 s."""
AWAY_SECONDS = 120.0
"""Down for so long, a server is gone round: its Triton hangs, its container ends again and again, its image cannot be had."""
BACK_SECONDS = 300.0
"""Up again for so long, it is counted on again; at once where something lacks room."""
AWAY_AT_ONCE = 3
"""Servers of a pool gone round because they are down; where more are, the reason is likely the pool's: its image, its driver."""
ROLLING_AT_ONCE = 1


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod of the pool. `outdated`: its template is not the pool's; `old_keys`: nor are its keys; `condemned`: why it must be
    replaced.

    `up`: it is Ready, or its Triton answers the operator, and does not refuse its key; `down_seconds`: for how long it was not,
    though it should be. `back_seconds`: how long ago it came back from having been away; None where it was not.
    """

    ordinal: int
    uid: str
    name: str
    ready: bool
    deleting: bool
    cordoned: bool
    outdated: bool
    old_keys: bool
    condemned: str
    holds_models: bool
    unscheduled_seconds: float | None
    up: bool
    down_seconds: float
    back_seconds: float | None
    node_lost: bool
    problem: str

    @property
    def leaving(self) -> str:
        """Why the pod is to be emptied and replaced; empty where it is not."""
        if self.condemned:
            return self.condemned
        if self.cordoned:
            return "its node is cordoned"
        if self.outdated:
            return "the pool's template changed"
        return "its keys are not those of the pool's Secret any more" if self.old_keys else ""

    @property
    def occupied(self) -> bool:
        """Whether it holds models that serve, or may serve again in a moment."""
        return self.holds_models and self.down_seconds < DOWN_SECONDS


@dataclass(frozen=True, slots=True)
class PoolView:
    """All that is decided from for one pool. `planned_servers` None: there is no plan yet; `energy`: nothing was booked yet.

    `template_refused`: why its servers cannot be made; with `name_taken`, since somebody else has a name that is theirs.
    `planned_on`: ordinals that the plan has something on; `lacking`: it has no room for something, here or elsewhere.
    """

    pool: Pool
    planned_servers: int | None
    highest_held: int
    pods: tuple[PodView, ...]
    running: int
    models_placed: int
    used_bytes: int
    template_refused: str = ""
    name_taken: bool = False
    busy_share: float | None = None
    energy: PoolEnergy | None = None
    planned_on: frozenset[int] = frozenset()
    lacking: bool = False


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """`servers`: pods to run; `give_up`: pods to delete now; `unavailable`: ordinals the next plan goes round."""

    servers: int
    give_up: tuple[PodView, ...]
    unavailable: frozenset[int]
    release: bool


RELEASED = PoolDecision(0, (), frozenset(), release=True)
"""A pool that is deleted and empty."""


def decide_pool(view: PoolView) -> PoolDecision:
    """A pool shrinks only past servers that hold nothing; a leaving pod is emptied first, then given up, one at a time."""
    wanted = view.running if view.planned_servers is None else view.planned_servers
    servers = max(wanted, view.highest_held + 1) if not view.pool.deleting else view.highest_held + 1
    servers = min(servers, max(view.pool.servers_max, view.highest_held + 1))
    leaving = sorted(
        (pod for pod in view.pods if pod.leaving and not pod.deleting), key=lambda pod: (not pod.condemned, pod.ordinal)
    )
    cordoned = [pod for pod in leaving if pod.cordoned or pod.condemned]
    rolling = [pod for pod in leaving if pod not in cordoned]
    on_their_way = sum(pod.deleting or (not pod.ready and not pod.leaving) for pod in view.pods)
    emptying = cordoned + rolling[: max(0, ROLLING_AT_ONCE - len(cordoned) - on_their_way)]
    give_up = tuple(pod for pod in emptying if not pod.occupied)
    unavailable = {pod.ordinal for pod in emptying}
    unavailable |= {pod.ordinal for pod in view.pods if pod.deleting or pod.node_lost}
    unavailable |= {pod.ordinal for pod in view.pods if (pod.unscheduled_seconds or 0.0) > UNSCHEDULED_SECONDS}
    unavailable |= _away(view) | _only_just_back(view)
    release = view.pool.deleting and view.highest_held < 0
    return PoolDecision(servers, give_up, frozenset(unavailable), release)


def _away(view: PoolView) -> set[int]:
    """Servers that are down for long, while others stand that may do better."""
    down = [pod for pod in view.pods if pod.down_seconds >= AWAY_SECONDS and not pod.deleting]
    down.sort(key=lambda pod: (-pod.down_seconds, pod.ordinal))
    return {pod.ordinal for pod in down[:AWAY_AT_ONCE]} if len(down) <= _standing(view) else set()


def _only_just_back(view: PoolView) -> set[int]:
    """Servers that may be away again soon, and that nothing waits for or is on its way to."""
    if view.lacking or _standing(view) < 2:
        return set()
    back = {pod.ordinal for pod in view.pods if pod.back_seconds is not None and pod.back_seconds < BACK_SECONDS}
    return back - view.planned_on


def _standing(view: PoolView) -> int:
    return sum(pod.up and not pod.deleting for pod in view.pods)


def pool_status(view: PoolView, decision: PoolDecision) -> tuple[list[Fact], dict[str, Any]]:
    """The pool's conditions and figures, without times."""
    ready = sum(pod.ready and not pod.deleting for pod in view.pods)
    body: dict[str, Any] = {
        "servers": {"desired": decision.servers, "ready": ready},
        "models": view.models_placed,
        "memory": {
            "allocatable": format_bytes(view.pool.memory_bytes * decision.servers).replace(" ", ""),
            "used": format_bytes(view.used_bytes).replace(" ", ""),
        },
    }
    if view.busy_share is not None:
        body["busyShare"] = rounded(view.busy_share)
    if view.energy is not None:
        body |= {"watts": rounded(view.energy.watts), "provenance": view.energy.provenance}
    return [_accepted(view), _ready(view, decision, ready)], body


def refused_pool(refusal: Refusal) -> list[Fact]:
    """The conditions of a pool that cannot be understood."""
    return [
        Fact("Accepted", False, refusal.reason, refusal.message),
        Fact("Ready", False, "NotAccepted", "servers are left as they are"),
    ]


def _accepted(view: PoolView) -> Fact:
    if view.template_refused:
        return Fact("Accepted", False, "NameTaken" if view.name_taken else "TemplateInvalid", view.template_refused[:1024])
    return Fact("Accepted", True, "Accepted")


def _ready(view: PoolView, decision: PoolDecision, ready: int) -> Fact:
    if view.pool.deleting:
        return Fact("Ready", False, "Deleting", f"{view.models_placed} replicas are still on it")
    leaving = next((pod for pod in view.pods if pod.leaving and pod.occupied), None)
    if ready >= decision.servers:
        note = f"server {leaving.ordinal} is being emptied: {leaving.leaving}" if leaving is not None else ""
        return Fact("Ready", True, "Ready", note or ("1 server is ready" if ready == 1 else f"{ready} servers are ready"))
    problem = next((pod for pod in view.pods if pod.problem), None)
    if problem is not None:
        reason = "ServersFailing" if problem.unscheduled_seconds is None else "PodUnschedulable"
        return Fact("Ready", False, reason, f"server {problem.ordinal}: {problem.problem}"[:1024])
    return Fact("Ready", False, "ServersPending", f"{ready} of {decision.servers} servers are ready")
