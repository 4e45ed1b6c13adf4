"""What a Triton server says about itself and its models, as plain values."""

from dataclasses import dataclass
from enum import StrEnum


class RepositoryState(StrEnum):
    """A model's state in the repository index. ABSENT: Triton lists the name without a state, so it was never loaded."""

    UNKNOWN = "UNKNOWN"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"
    ABSENT = "ABSENT"

    @classmethod
    def _missing_(cls, value: object) -> "RepositoryState":
        return cls.UNKNOWN if value else cls.ABSENT


@dataclass(frozen=True)
class ModelState:
    """One model in the repository index.

    `versions` are those in `state`. `reason` is Triton's in one line: "unloaded" after an unload, the error after a failed
    first load, empty otherwise. A failed reload leaves no trace here; only the load's own answer tells it.
    """

    name: str
    versions: tuple[str, ...]
    state: RepositoryState
    reason: str


@dataclass(frozen=True)
class LoadedModel:
    """What of a model is loaded: the revision that `compose` wrote into its configuration (None: it has none), and instances."""

    revision: str | None
    instances: int


@dataclass(frozen=True)
class BatchStatistics:
    """Executions of one batch size. `compute_infer_ns` counts each execution once, so the sum over sizes is busy time."""

    batch_size: int
    executions: int
    compute_infer_ns: int


@dataclass(frozen=True)
class ModelStatistics:
    """Counts of one model since it was loaded, summed over its versions; a hot reload starts them at 0.

    `success_count` and `failure_count` are requests; `inference_count` is rows. `queue_ns` and `request_ns` are summed over
    successful requests, `failure_ns` over failed ones. `last_inference_ms` is milliseconds since the epoch by the server's
    clock, 0 before the first one.
    """

    name: str
    inference_count: int
    execution_count: int
    success_count: int
    failure_count: int
    queue_ns: int
    request_ns: int
    failure_ns: int
    batches: tuple[BatchStatistics, ...]
    last_inference_ms: int

    @property
    def busy_ns(self) -> int:
        """Nanoseconds inside the backend, each execution once, summed over instances; executions that raised are in it."""
        return sum(batch.compute_infer_ns for batch in self.batches)


@dataclass(frozen=True)
class ServerMetadata:
    """Triton's name, version and protocol extensions."""

    name: str
    version: str
    extensions: tuple[str, ...]
