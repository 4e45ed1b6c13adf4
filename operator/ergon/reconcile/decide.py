"""The story of one model: which of its replicas are brought up, drained, unloaded or removed next, and who gets traffic."""

from dataclasses import dataclass, field

from ergon.fleet.types import Replica, Variant
from ergon.reconcile.observed import IndexState, JobKind, ModelView, ReplicaView, ServerView

DELETED_QUIET_SECONDS = 1.0
DELETED_DRAIN_SECONDS = 5.0
POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    """When a replica that was taken out of traffic may be unloaded: after `quiet_seconds` without a request, or the timeout."""

    quiet_seconds: float
    timeout_seconds: dict[str, float] = field(default_factory=dict)

    def timeout(self, pool: str) -> float:
        """Seconds to wait at most in that pool."""
        return self.timeout_seconds.get(pool, 600.0)


@dataclass(frozen=True, slots=True)
class BringUp:
    """Fetch, configure and load a variant on a server."""

    server: ServerView
    variant: Variant
    why: str


@dataclass(frozen=True, slots=True)
class StartDrain:
    """Take the replica out of traffic and watch who still asks for it."""

    server: ServerView
    why: str


@dataclass(frozen=True, slots=True)
class StopDrain:
    """The replica is wanted again."""

    server: ServerView


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload the model, then remove its files. `still_asked`: requests seen since it left traffic."""

    server: ServerView
    why: str
    still_asked: int = 0


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the model's files."""

    server: ServerView


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the job that is under way: it works on what is no longer wanted."""

    server: ServerView
    why: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Unload and load again: the model is READY in the index and answers nobody."""

    server: ServerView
    variant: Variant


Action = BringUp | StartDrain | StopDrain | Unload | Remove | Cancel | Repair


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do for a model now, whom to send its traffic to, and when to look again (monotonic seconds; None: on events).

    `through_gateway`: no server answers, and the gateway holds requests until one does.
    """

    actions: tuple[Action, ...]
    endpoints: tuple[ServerView, ...]
    look_again_at_seconds: float | None
    through_gateway: bool = False


def decide(view: ModelView, now_seconds: float, drain: DrainPolicy) -> Decision:
    """Decide for one model.

    Rules: a planned replica is brought up; what is not planned serves on until enough others are ready, until its room is waited
    for and the plan has no other place for it, or until the gateway stands in for a model that goes to sleep; then it drains, is
    unloaded and removed; a server that is not fully read is not touched; an object that cannot be understood changes nothing.
    """
    steps = [_step(view, replica, now_seconds, drain) for replica in view.replicas]
    steps += [_missing(view, replica) for replica in view.planned if all(replica.server != r.server.key for r in view.replicas)]
    actions = tuple(action for action, _ in steps if action is not None)
    starting = {action.server.pod_uid for action in actions if isinstance(action, StartDrain)}
    repairing = {action.server.pod_uid for action in actions if isinstance(action, Repair)}
    endpoints = [
        replica.server
        for replica in view.replicas
        if replica.answers and replica.drain is None and replica.server.pod_uid not in starting | repairing
    ]
    known = {server.pod_uid for server in endpoints}
    endpoints += [
        server
        for server in view.servers
        if not (server.synced or server.silent or server.deleting)
        and server.pod_ready
        and server.pod_uid in view.kept_pod_uids - known
    ]
    times = [at for _, at in steps if at is not None]
    through_gateway = not endpoints and view.may_sleep and view.refusal is None
    ordered = tuple(sorted(endpoints, key=lambda server: server.key))
    return Decision(actions, ordered, min(times, default=None), through_gateway)


_Step = tuple[Action | None, float | None]


def _step(view: ModelView, replica: ReplicaView, now: float, drain: DrainPolicy) -> _Step:
    if not replica.server.workable or view.refusal is not None:
        return None, None
    planned = next((p for p in view.planned if p.server == replica.server.key), None)
    variant = view.model.variant(planned.variant) if view.model is not None and planned is not None else None
    if variant is not None:
        return _towards(replica, variant, now)
    if not view.planned_once and view.model is not None:
        return None, None
    return _away(view, replica, now, drain)


def _missing(view: ModelView, planned: Replica) -> _Step:
    server = next((server for server in view.servers if server.key == planned.server), None)
    variant = view.model.variant(planned.variant) if view.model is not None else None
    if server is None or variant is None or not server.workable or view.refusal is not None:
        return None, None
    return BringUp(server, variant, "it is planned there"), None


def _towards(replica: ReplicaView, variant: Variant, now: float) -> _Step:
    if replica.job is not None:
        if replica.job.kind is JobKind.BRING_UP and replica.job.revision != variant.load_revision:
            return Cancel(replica.server, "its specification changed"), None
        return None, None
    if replica.index is IndexState.READY and replica.loaded_revision == variant.load_revision:
        if not replica.healthy:
            return _repair(replica, variant, now)
        return (StopDrain(replica.server), None) if replica.drain is not None else (None, None)
    failure = replica.failure
    if failure is not None and failure.revision == variant.load_revision:
        if failure.retry_at_seconds is None:
            return None, None
        if now < failure.retry_at_seconds:
            return None, failure.retry_at_seconds
    changed = replica.loaded_revision is not None and replica.loaded_revision != variant.load_revision
    return BringUp(replica.server, variant, "its specification changed" if changed else "it is planned there"), None


def _repair(replica: ReplicaView, variant: Variant, now: float) -> _Step:
    pause_ends_at = replica.failure.retry_at_seconds if replica.failure is not None else None
    if pause_ends_at is not None and now < pause_ends_at:
        return None, pause_ends_at
    return Repair(replica.server, variant), None


def _away(view: ModelView, replica: ReplicaView, now: float, drain: DrainPolicy) -> _Step:
    if replica.job is not None:
        return (
            (Cancel(replica.server, "it is no longer planned there"), None)
            if replica.job.kind is JobKind.BRING_UP
            else (None, None)
        )
    match replica.index:
        case IndexState.LOADING | IndexState.UNLOADING:
            return None, now + POLL_SECONDS
        case IndexState.READY:
            return _retire(view, replica, now, drain)
    return (Remove(replica.server), None) if replica.has_files else (None, None)


def _retire(view: ModelView, replica: ReplicaView, now: float, policy: DrainPolicy) -> _Step:
    why = _why_retire(view, replica)
    if why is None:
        return (StopDrain(replica.server), None) if replica.drain is not None else (None, None)
    if not replica.healthy:
        return Unload(replica.server, why), None
    if replica.drain is None:
        return StartDrain(replica.server, why), now + POLL_SECONDS
    timeout = DELETED_DRAIN_SECONDS if view.model is None else policy.timeout(replica.server.key.pool)
    quiet = DELETED_QUIET_SECONDS if view.model is None else min(policy.quiet_seconds, timeout)
    quiet_at = max(replica.drain.since_seconds, replica.drain.last_request_seconds) + quiet
    ends_at = replica.drain.since_seconds + timeout
    if now >= quiet_at or now >= ends_at:
        return Unload(replica.server, why, replica.drain.requests if now < quiet_at else 0), None
    return None, min(now + POLL_SECONDS, quiet_at, ends_at)


def _why_retire(view: ModelView, replica: ReplicaView) -> str | None:
    """Why a replica that is not planned may go now; None while it is still needed."""
    model = view.model
    if model is None:
        return "the model was deleted"
    if model.wanted_replicas == 0:
        return "the model is scaled to zero"
    if view.asleep:
        return "the model goes to sleep" if view.gateway_ready else None
    planned = {replica.server for replica in view.planned}
    serving = {other.server.key for other in view.replicas if other.answers and other.drain is None} - {replica.server.key}
    others = len(serving & planned)
    # Of those that are not planned the highest goes first, as others come: never more at once than there are others for.
    older = sum(key < replica.server.key for key in serving - planned)
    if others + older >= max(len(planned), model.wanted_replicas):
        return "enough other replicas are ready"
    if others < len(view.planned):
        return None
    if replica.server.leaving == "PoolDeleted":
        return "its pool is being deleted"
    if replica.server.crowded:
        return "its room is planned for another model, and nowhere else is any"
    return None
