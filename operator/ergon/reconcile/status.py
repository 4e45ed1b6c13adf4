"""The truth about a model, as a status: a chain of small checks, each giving one condition."""

from dataclasses import dataclass, replace
from typing import Any

from ergon.api.model import MOST_PLACEMENTS
from ergon.fleet.types import Model
from ergon.planning.plan import Alternative
from ergon.reconcile.decide import Decision
from ergon.reconcile.figures import demand_status, energy_status
from ergon.reconcile.observed import ColdStart, IndexState, JobKind, JobPhase, ModelView, ReplicaView, ServerView

TELLING_ALTERNATIVES = 16
_VERDICTS = {"Chosen": 0, "Feasible": 1, "Rejected": 2}
_TROUBLE = {"Failed": 0, "Ready": 2}
_WAITING = {"ServerUnavailable", "StoreUnavailable"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One condition before it is stamped with time and generation."""

    type: str
    status: bool | None
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica as a person is shown it."""

    pool: str
    server: int
    variant: str
    state: str
    message: str = ""
    reason: str = ""
    revision: str = ""
    old_serves: bool = False


def model_status(view: ModelView, decision: Decision) -> tuple[list[Fact], dict[str, Any]]:
    """The conditions, and the rest of the status without times. `view.model` may be None only with a refusal."""
    replicas = replica_statuses(view, decision)
    accepted = _accepted(view)
    placed = _placed(view) if accepted.status else Fact("Placed", False, "NotAccepted", accepted.message)
    loaded = _loaded(view, decision, replicas) if accepted.status else _still_loaded(decision)
    ready = _ready(view, decision, accepted, placed, loaded, replicas)
    facts = [accepted, placed, loaded, ready, *_abnormal(view, decision, replicas, accepted, placed)]
    model = view.model
    body: dict[str, Any] = {
        "replicas": len(view.planned),
        "readyReplicas": len(decision.endpoints),
        "placements": [
            {
                "pool": r.pool,
                "server": r.server,
                "variant": r.variant,
                "state": r.state,
                **({"message": r.message} if r.message else {}),
                **({"revision": r.revision} if r.revision else {}),
            }
            for r in _most_telling(replicas)
        ],
        "alternatives": [
            {"pool": a.pool, "variant": a.variant, "verdict": a.verdict, "reason": str(a.reason), "message": a.message[:512]}
            for a in telling(view.alternatives)
        ],
    }
    if model is not None:
        body["selector"] = f"ergon.dev/model={model.key.name}"
        body["endpoint"] = f"http://{model.key.name}.{model.key.namespace}.svc:8000/v2/models/{model.key.served_name}"
    if view.demand is not None:
        body["demand"] = demand_status(view.demand)
    if view.energy is not None:
        body["energy"] = energy_status(view.energy)
    if view.cold_start is not None:
        body["coldStart"] = {
            "fetchSeconds": round(view.cold_start.fetch_seconds, 2),
            "loadSeconds": round(view.cold_start.load_seconds, 2),
            "totalSeconds": round(view.cold_start.total_seconds, 2),
            "serverSeconds": round(view.cold_start.server_seconds, 2),
            **_first_answer(view.cold_start),
        }
    return facts, body


def _first_answer(cold_start: ColdStart) -> dict[str, float]:
    seconds = cold_start.first_answer_seconds
    return {} if seconds is None else {"firstAnswerSeconds": round(seconds, 3)}


def telling(alternatives: tuple[Alternative, ...]) -> list[Alternative]:
    """The alternatives a status keeps: what was chosen, what could be, then what cannot, at most 16."""
    ranked = sorted(alternatives, key=lambda a: (_VERDICTS[a.verdict], a.pool, a.variant))
    return ranked[:TELLING_ALTERNATIVES]


def _most_telling(replicas: list[ReplicaStatus]) -> list[ReplicaStatus]:
    """As many replicas as a status can show, in their order; where there are more, those in trouble or on their way are kept."""
    if len(replicas) <= MOST_PLACEMENTS:
        return replicas
    ranked = sorted(replicas, key=lambda r: _TROUBLE.get(r.state, 1))
    return sorted(ranked[:MOST_PLACEMENTS], key=lambda r: (r.pool, r.server))


def replica_statuses(view: ModelView, decision: Decision) -> list[ReplicaStatus]:
    """Every replica that is planned or still stands, by pool and ordinal."""
    known = {replica.server.key: replica for replica in view.replicas}
    serving = {server.pod_uid for server in decision.endpoints}
    servers = {server.key: server for server in view.servers}
    shown = []
    for planned in view.planned:
        shown.append(
            _planned_status(
                view.model,
                planned.variant,
                known.get(planned.server),
                servers.get(planned.server),
                planned.server.pool,
                planned.server.ordinal,
                serving,
            )
        )
    planned_servers = {planned.server for planned in view.planned}
    for key, replica in known.items():
        if key in planned_servers or replica.empty:
            continue
        state, message = (
            ("Ready", "serves until enough others are ready") if replica.server.pod_uid in serving else ("Draining", "")
        )
        shown.append(ReplicaStatus(key.pool, key.ordinal, _variant_name(view.model, replica), state, message))
    return sorted(shown, key=lambda r: (r.pool, r.server))


def _variant_name(model: Model | None, replica: ReplicaView) -> str:
    variant = model.loaded_as(replica.loaded_revision) if model is not None else None
    return variant.name if variant is not None else "unknown"


def _planned_status(
    model: Model | None,
    variant_name: str,
    replica: ReplicaView | None,
    server: ServerView | None,
    pool: str,
    ordinal: int,
    serving: set[str],
) -> ReplicaStatus:
    def shown(state: str, reason: str, message: str = "") -> ReplicaStatus:
        return ReplicaStatus(pool, ordinal, variant_name, state, message[:1024], reason)

    if server is None:
        return shown("Pending", "WaitingForServer", f"server {pool}-{ordinal} is not there yet")
    if not server.workable:
        return shown("Pending", "WaitingForServer", f"server {pool}-{ordinal} {_why_not_workable(server)}")
    if replica is None:
        return shown("Pending", "Queued")
    variant = model.variant(variant_name) if model is not None else None
    revision = variant.load_revision if variant is not None else None
    if server.pod_uid in serving and replica.loaded_revision == revision:
        return replace(shown("Ready", "Loaded"), revision=variant.source.revision if variant is not None else "")
    if replica.job is not None and replica.job.kind is JobKind.BRING_UP and replica.job.revision == revision:
        match replica.job.phase:
            case JobPhase.DOWNLOADING:
                return shown("Downloading", "Downloading", replica.job.message)
            case JobPhase.LOADING:
                return shown("Loading", "Loading")
            case JobPhase.QUEUED:
                return shown("Pending", "Queued", replica.job.message)
    failure = replica.failure
    if failure is not None and failure.revision == revision:
        old = "; the old revision serves on" if replica.answers else ""
        state = "Pending" if failure.reason in _WAITING else "Failed"
        return replace(shown(state, failure.reason, failure.message + old), old_serves=replica.answers)
    if not replica.healthy:
        return shown("Failed", "Unhealthy", "its process died; it is being loaded again")
    if replica.index is IndexState.UNLOADING:
        return shown("Draining", "Unloading")
    return shown("Pending", "Queued")


def _why_not_workable(server: ServerView) -> str:
    if server.deleting:
        return "is being replaced"
    if not server.pod_ready:
        return "is starting"
    return "does not answer" if not server.answering else "is being read"


def _accepted(view: ModelView) -> Fact:
    if view.refusal is not None:
        return Fact("Accepted", False, view.refusal.reason, view.refusal.message)
    if view.model is not None and view.model.fixed_replicas is None and view.model.min_replicas == 0 and not view.can_wake:
        return Fact("Accepted", True, "NoGateway", "no gateway can wake a sleeping model, so minReplicas 0 counts as 1")
    return Fact("Accepted", True, "Accepted", view.route_message)


def _placed(view: ModelView) -> Fact:
    if view.asleep:
        return Fact("Placed", True, "ScaledToZero", "asleep")
    wanted = view.wanted_replicas
    if wanted == 0:
        return Fact("Placed", True, "ScaledToZero", "spec.replicas is 0")
    where = ", ".join(sorted({f"{r.server.pool} ({r.variant})" for r in view.planned}))
    if not view.planned_once:
        return Fact("Placed", None, "Planning", "the first plan after a start is being made")
    if view.missing_replicas == 0:
        return Fact("Placed", True, "Placed", f"{_count(len(view.planned), 'replica')} on {where}")
    if view.planned:
        return Fact(
            "Placed", True, "PartiallyPlaced", f"{len(view.planned)} of {wanted} replicas on {where}; {_why_nowhere(view)}"
        )
    reasons = {str(a.reason) for a in view.alternatives}
    if "WattLimit" in reasons:
        return Fact("Placed", False, "ShedByBudget", _why_nowhere(view))
    return Fact("Placed", False, "NoRoom" if "NoRoom" in reasons else "NoPoolFits", _why_nowhere(view))


def _why_nowhere(view: ModelView) -> str:
    rejected = sorted(
        (a for a in view.alternatives if a.verdict == "Rejected"),
        key=lambda a: str(a.reason) in ("AcceleratorMismatch", "PoolNotSelected"),
    )
    if not view.alternatives:
        return "there is no AcceleratorPool"
    shown = "; ".join(f"{a.pool}/{a.variant}: {a.reason} ({a.message})" for a in rejected[:4])
    more = f"; and {len(rejected) - 4} more" if len(rejected) > 4 else ""
    none = "no further pool fits" if view.planned else "no pool fits"
    return f"{none}: {shown}{more}"[:1024] if rejected else none


def _loaded(view: ModelView, decision: Decision, replicas: list[ReplicaStatus]) -> Fact:
    if view.model is not None and view.wanted_replicas == 0:
        return Fact("Loaded", True, "ScaledToZero", "asleep" if view.asleep else "no replica is wanted")
    worst = next((r for r in replicas if r.state == "Failed"), None)
    if decision.endpoints:
        note = f"; {worst.pool}-{worst.server}: {worst.message}" if worst is not None else ""
        return Fact("Loaded", True, "Loaded", (_count(len(decision.endpoints), "replica") + " answering" + note)[:1024])
    if worst is not None:
        return Fact("Loaded", False, worst.reason, worst.message)
    telling_replica = next((r for state in ("Loading", "Downloading", "Pending") for r in replicas if r.state == state), None)
    if telling_replica is None:
        return Fact("Loaded", False, "NotPlaced", "no replica is placed")
    return Fact("Loaded", False, telling_replica.reason, telling_replica.message)


def _still_loaded(decision: Decision) -> Fact:
    if decision.endpoints:
        return Fact("Loaded", True, "Loaded", "what was loaded before still answers")
    return Fact("Loaded", False, "NotAccepted", "")


def _ready(
    view: ModelView, decision: Decision, accepted: Fact, placed: Fact, loaded: Fact, replicas: list[ReplicaStatus]
) -> Fact:
    for fact, reason in ((accepted, "NotAccepted"), (placed, "NotPlaced"), (loaded, "NotLoaded")):
        if fact.status is not True:
            return Fact("Ready", fact.status and None, reason if fact.reason in (reason, "") else fact.reason, fact.message)
    if view.asleep and not view.gateway_ready:
        return Fact("Ready", False, "NoGateway", "asleep, and no pod of the gateway is ready that could wake it")
    if view.asleep:
        return Fact("Ready", True, "Asleep", "the gateway wakes it when it is asked for")
    wanted = view.wanted_replicas
    if wanted == 0:
        return Fact("Ready", True, "ScaledToZero", "no replica is wanted")
    stuck = next((r for r in replicas if r.state == "Failed" and r.old_serves), None)
    if stuck is not None:
        return Fact("Ready", True, "OldRevisionServes", stuck.message)
    if len(decision.endpoints) < wanted:
        return Fact("Ready", True, "PartiallyReady", f"{len(decision.endpoints)} of {wanted} replicas are ready")
    return Fact("Ready", True, "Ready", _count(len(decision.endpoints), "replica") + " ready")


def _abnormal(view: ModelView, decision: Decision, replicas: list[ReplicaStatus], accepted: Fact, placed: Fact) -> list[Fact]:
    """Reconciling and Stalled, which stand only while they are true (kstatus)."""
    if accepted.status is False:
        return [Fact("Stalled", True, accepted.reason, accepted.message)]
    failed = [r for r in replicas if r.state == "Failed"]
    wanted = view.wanted_replicas
    if failed and (not decision.endpoints or failed[0].old_serves):
        return [Fact("Stalled", True, failed[0].reason, failed[0].message)]
    if wanted and view.missing_replicas == wanted and view.planned_once:
        return [Fact("Stalled", True, placed.reason, "no pool takes it, see status.alternatives")]
    if any(r.state != "Ready" for r in replicas) or len(decision.endpoints) < wanted:
        moving = next((r for r in replicas if r.state != "Ready"), None)
        return [Fact("Reconciling", True, moving.state if moving else "Waiting", moving.message if moving else "")]
    return []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
