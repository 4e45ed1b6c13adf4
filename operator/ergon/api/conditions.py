"""Conditions: which there are, the closed set of reasons of each, and how a new set follows an old one. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

MESSAGE_CHARACTERS = 1024


class ModelAccepted(StrEnum):
    """Whether the model's spec can be served at all."""

    ACCEPTED = "Accepted"
    NO_GATEWAY = "NoGateway"
    INVALID_SPEC = "InvalidSpec"
    NAME_TAKEN = "NameTaken"


class ModelPlaced(StrEnum):
    """Whether every wanted replica has a server."""

    PLACED = "Placed"
    PARTIALLY_PLACED = "PartiallyPlaced"
    PLANNING = "Planning"
    NO_POOL_FITS = "NoPoolFits"
    NO_ROOM = "NoRoom"
    SCALED_TO_ZERO = "ScaledToZero"
    SHED_BY_BUDGET = "ShedByBudget"
    NOT_ACCEPTED = "NotAccepted"


class ModelLoaded(StrEnum):
    """Whether at least one replica answers, or none is wanted; if not, what stands in the way."""

    LOADED = "Loaded"
    SCALED_TO_ZERO = "ScaledToZero"
    NOT_ACCEPTED = "NotAccepted"
    NOT_PLACED = "NotPlaced"
    WAITING_FOR_SERVER = "WaitingForServer"
    QUEUED = "Queued"
    DOWNLOADING = "Downloading"
    LOADING = "Loading"
    UNLOADING = "Unloading"
    FETCH_FAILED = "FetchFailed"
    SOURCE_NOT_FOUND = "SourceNotFound"
    ACCESS_DENIED = "AccessDenied"
    SOURCE_INVALID = "SourceInvalid"
    SECRET_INVALID = "SecretInvalid"
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    DISK_FULL = "DiskFull"
    MEMORY_FULL = "MemoryFull"
    CONFIGURATION_INVALID = "ConfigurationInvalid"
    LOAD_FAILED = "LoadFailed"
    LOAD_HUNG = "LoadHung"
    UNHEALTHY = "Unhealthy"
    SERVER_UNAVAILABLE = "ServerUnavailable"
    SERVER_REFUSES_KEY = "ServerRefusesKey"
    STORE_UNAVAILABLE = "StoreUnavailable"


class ModelReady(StrEnum):
    """The sum of the others: whether a request to the model is answered, or would be after waking it."""

    READY = "Ready"
    PARTIALLY_READY = "PartiallyReady"
    OLD_REVISION_SERVES = "OldRevisionServes"
    SCALED_TO_ZERO = "ScaledToZero"
    ASLEEP = "Asleep"
    NOT_ACCEPTED = "NotAccepted"
    NOT_PLACED = "NotPlaced"
    NOT_LOADED = "NotLoaded"
    SHED_BY_BUDGET = "ShedByBudget"


class ModelMoving(StrEnum):
    """On the way to what was asked for: the state of a replica that is not there yet."""

    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    LOADING = "Loading"
    DRAINING = "Draining"
    FAILED = "Failed"
    WAITING = "Waiting"


class PoolAccepted(StrEnum):
    """Whether servers can be made from the pool's spec."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    NAME_TAKEN = "NameTaken"
    TEMPLATE_INVALID = "TemplateInvalid"


class PoolReady(StrEnum):
    """Whether as many servers answer as should."""

    READY = "Ready"
    SERVERS_PENDING = "ServersPending"
    SERVERS_FAILING = "ServersFailing"
    POD_UNSCHEDULABLE = "PodUnschedulable"
    DELETING = "Deleting"
    NOT_ACCEPTED = "NotAccepted"


class BudgetAccepted(StrEnum):
    """Whether the budget is held."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"


class BudgetWithin(StrEnum):
    """Whether what is taken, by measure or by plan, is within the limit."""

    WITHIN_LIMIT = "WithinLimit"
    GIVING_WAY = "GivingWay"
    OVER_LIMIT = "OverLimit"


class BudgetFeasible(StrEnum):
    """Whether what is protected fits the limits."""

    FEASIBLE = "Feasible"
    SERVERS_ALONE = "ServersAlone"
    PROTECTED_DEMAND = "ProtectedDemand"


class RouteAccepted(StrEnum):
    """Whether the route can be served as it is written."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    FALLBACK_CYCLE = "FallbackCycle"
    NO_GATEWAY = "NoGateway"


class RouteReady(StrEnum):
    """Whether a request to the route is answered, at the quality it asks for."""

    READY = "Ready"
    ASLEEP = "Asleep"
    NO_CANDIDATE = "NoCandidate"
    QUALITY_TOO_LOW = "QualityTooLow"
    NO_MODEL_READY = "NoModelReady"
    NOT_ACCEPTED = "NotAccepted"


class RouteEscalation(StrEnum):
    """Whether as much escalates as the route would like."""

    UNLIMITED = "Unlimited"
    AT_MAX_RATE = "AtMaxRate"
    LOWERED_BY_BUDGET = "LoweredByBudget"


class Finding(Protocol):
    """What becomes a condition. `status` None: Unknown. `reason` is of the closed set of the condition's type."""

    @property
    def type(self) -> str: ...

    @property
    def status(self) -> bool | None: ...

    @property
    def reason(self) -> str: ...

    @property
    def message(self) -> str: ...


@dataclass(frozen=True)
class Judged:
    """A finding as a plain value, with a reason from one of the enums above."""

    type: str
    status: bool | None
    reason: StrEnum
    message: str = ""


ABNORMAL = ("Reconciling", "Stalled")
"""Conditions that stand only while they are true; their reasons are those of the condition they come from."""
MODEL_REASONS: Mapping[str, tuple[type[StrEnum], ...]] = {
    "Accepted": (ModelAccepted,),
    "Placed": (ModelPlaced,),
    "Loaded": (ModelLoaded,),
    # Ready says the telling reason where it is not Ready, so that one column of kubectl get is enough.
    "Ready": (ModelReady, ModelAccepted, ModelPlaced, ModelLoaded),
    "Reconciling": (ModelMoving,),
    "Stalled": (ModelAccepted, ModelPlaced, ModelLoaded),
}
POOL_REASONS: Mapping[str, tuple[type[StrEnum], ...]] = {"Accepted": (PoolAccepted,), "Ready": (PoolReady,)}
BUDGET_REASONS: Mapping[str, tuple[type[StrEnum], ...]] = {
    "Accepted": (BudgetAccepted,),
    "WithinBudget": (BudgetWithin,),
    "Feasible": (BudgetFeasible,),
}
ROUTE_REASONS: Mapping[str, tuple[type[StrEnum], ...]] = {
    "Accepted": (RouteAccepted,),
    "Ready": (RouteReady,),
    "FullEscalation": (RouteEscalation,),
}
_WORDS = {True: "True", False: "False", None: "Unknown"}


def known(reasons: Mapping[str, tuple[type[StrEnum], ...]], condition: str, reason: str) -> bool:
    """Whether a condition of a kind may give this reason; `reasons` is one of the four maps above."""
    return any(reason in set(enum) for enum in reasons.get(condition, ()))


def merge(
    previous: Iterable[Mapping[str, Any]], current: Iterable[Finding], *, generation: int, now: str
) -> list[dict[str, Any]]:
    """The new list of conditions, in the form of metav1.Condition.

    `lastTransitionTime` stays while the status does. What is not in `current` goes, so Reconciling and Stalled vanish when they
    are over. `now` is an RFC 3339 time; messages are cut to what the schema takes.
    """
    before = {condition.get("type"): condition for condition in previous}
    merged = []
    for judged in current:
        status, old = _WORDS[judged.status], before.get(judged.type, {})
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        merged.append(
            {
                "type": judged.type,
                "status": status,
                "reason": str(judged.reason),
                "message": cut(judged.message),
                "lastTransitionTime": since or now,
                "observedGeneration": generation,
            }
        )
    return merged


def cut(message: str, characters: int = MESSAGE_CHARACTERS) -> str:
    """A message that the schema takes, with a sign where something was left out."""
    return message if len(message) <= characters else message[: characters - 1] + "…"
