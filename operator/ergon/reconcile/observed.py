"""What is known of a model on its servers, and of the servers themselves, at one moment."""

from dataclasses import dataclass
from enum import StrEnum

from ergon.fleet.types import Model, Replica, ServerKey
from ergon.planning.plan import Alternative
from ergon.reconcile.figures import DemandView, EnergyView


class IndexState(StrEnum):
    """Where Triton's repository index has a model."""

    ABSENT = "ABSENT"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class JobKind(StrEnum):
    """What the executor is doing with a replica."""

    BRING_UP = "BringUp"
    UNLOAD = "Unload"
    REMOVE = "Remove"


class JobPhase(StrEnum):
    """How far a bring-up has come."""

    QUEUED = "Queued"
    DOWNLOADING = "Downloading"
    LOADING = "Loading"


@dataclass(frozen=True, slots=True)
class Job:
    """Work under way for one replica."""

    kind: JobKind
    revision: str
    phase: JobPhase
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a revision is not loaded on a server; `retry_at_seconds` None: not tried again there."""

    revision: str
    reason: str
    message: str
    attempts: int
    retry_at_seconds: float | None


@dataclass(frozen=True, slots=True)
class Drain:
    """A replica on its way out: since when, and when its last request was seen (monotonic seconds)."""

    since_seconds: float
    last_request_seconds: float
    requests: int


@dataclass(frozen=True, slots=True)
class ServerView:
    """One server's pod. `synced`: index and store were both fully read; `answering`: its Triton answered of late.

    `silent`: its Triton did not answer for seconds, though it was asked; nobody has to wait for its pod to be marked not Ready.
    `crowded`: a replica that is planned there waits for the memory of those that are not.
    """

    key: ServerKey
    pod_name: str
    pod_uid: str
    ip: str
    node: str
    zone: str
    pod_ready: bool
    deleting: bool
    synced: bool
    answering: bool
    leaving: str = ""
    silent: bool = False
    crowded: bool = False

    @property
    def serving(self) -> bool:
        """Whether traffic may be sent there."""
        return self.pod_ready and not self.deleting and self.answering

    @property
    def workable(self) -> bool:
        """Whether actions may be taken there."""
        return self.serving and self.synced


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """A model on one server, as it is."""

    server: ServerView
    index: IndexState = IndexState.ABSENT
    loaded_revision: str | None = None
    has_files: bool = False
    healthy: bool = True
    job: Job | None = None
    failure: Failure | None = None
    drain: Drain | None = None

    @property
    def answers(self) -> bool:
        """Whether a request sent there now would be answered."""
        return self.index is IndexState.READY and self.healthy and self.server.serving

    @property
    def empty(self) -> bool:
        """Whether nothing of the model is there."""
        return self.index in (IndexState.ABSENT, IndexState.UNAVAILABLE) and not self.has_files and self.job is None


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds the last bring-up took, by phase. `server_seconds`: from planned until there was a server to begin on.

    `first_answer_seconds`: from the first server that the gateway saw to the first answer to who waited; None: nobody did.
    """

    fetch_seconds: float
    load_seconds: float
    total_seconds: float
    server_seconds: float = 0.0
    first_answer_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a model is not accepted."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """All that is decided from for one model. `model` None: there is no object; `refusal`: the object cannot be served as it is.

    `kept_pod_uids`: pods that the existing EndpointSlices name, believed while their server is not yet synced. `can_wake`:
    there is a gateway, so a model with minReplicas 0 may sleep; `gateway_ready`: one of its pods answers now; `asleep`: no
    replica is wanted until somebody asks.
    """

    model: Model | None
    planned: tuple[Replica, ...] = ()
    missing_replicas: int = 0
    alternatives: tuple[Alternative, ...] = ()
    replicas: tuple[ReplicaView, ...] = ()
    servers: tuple[ServerView, ...] = ()
    refusal: Refusal | None = None
    kept_pod_uids: frozenset[str] = frozenset()
    cold_start: ColdStart | None = None
    route_message: str = ""
    namespace_gone: bool = False
    planned_once: bool = True
    demand: DemandView | None = None
    energy: EnergyView | None = None
    can_wake: bool = False
    gateway_ready: bool = False
    asleep: bool = False

    @property
    def wanted_replicas(self) -> int:
        """Replicas that should answer now."""
        return 0 if self.model is None or self.asleep else self.model.wanted_replicas

    @property
    def may_sleep(self) -> bool:
        """Whether the gateway stands in for the model while no replica answers."""
        model = self.model
        return self.can_wake and model is not None and model.min_replicas == 0 and model.fixed_replicas is None
