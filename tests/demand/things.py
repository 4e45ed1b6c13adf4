"""Models, variants and counters to test with."""

from collections.abc import Mapping, Sequence

from ergon.demand import BatchCounters, Counters, ServerView, Tenant
from ergon.fleet.types import Model, ModelKey, OperatingPoint, ServerKey, Source, Variant

NER = ModelKey("finance", "ner")
CODE = ModelKey("finance", "code")
OTHER = ModelKey("legal", "other")


def point(batch: int = 8, rate: float = 80.0, **rest: object) -> OperatingPoint:
    """An operating point on a Xeon; 0.1 s an execution of 8 unless said otherwise."""
    said: dict[str, object] = {"product": "Xeon", "accelerator_class": None, "latency_seconds": 0.1} | rest
    return OperatingPoint(batch=batch, work_per_second=rate, **said)  # type: ignore[arg-type]


def variant(points: Sequence[OperatingPoint] = (), name: str = "cpu") -> Variant:
    """A variant with these points."""
    source = Source("file:///models/ner", "1", None)
    return Variant(name, frozenset({"cpu"}), "python", source, 1, 0.9, 600.0, "{}", "c", "l", tuple(points))


def model(key: ModelKey = NER, points: Sequence[OperatingPoint] = (), **rest: object) -> Model:
    """A model of one variant."""
    said: dict[str, object] = {"min_replicas": 1, "max_replicas": None, "fixed_replicas": None} | rest
    return Model(key, "uid", 1, 100, 0.0, None, variants=(variant(points),), **said)  # type: ignore[arg-type]


def server(tenants: Mapping[ModelKey, Tenant], ordinal: int = 0) -> ServerView:
    """A Xeon server with these tenants."""
    return ServerView(ServerKey("xeon", ordinal), "Xeon", "cpu", tenants)


class Server:
    """Counters of one replica that a test drives: what was executed in a window goes in, Triton's counters come out."""

    def __init__(self) -> None:
        """Just loaded."""
        self.requests = self.executions = self.failed = 0
        self.queue_seconds = self.request_seconds = 0.0
        self.batches: dict[int, tuple[int, float]] = {}

    def execute(self, requests: int, batch: int, seconds_each: float, queue_seconds: float = 0.0) -> None:
        """Some requests in executions of one batch size."""
        executions = -(-requests // batch)
        count, busy = self.batches.get(batch, (0, 0.0))
        self.batches[batch] = (count + executions, busy + executions * seconds_each)
        self.requests += requests
        self.executions += executions
        self.queue_seconds += requests * queue_seconds
        self.request_seconds += requests * (queue_seconds + seconds_each)

    def read(self, at: float, pending: int | None = 0) -> Counters:
        """The counters at a time."""
        batches = tuple(BatchCounters(size, count, busy) for size, (count, busy) in self.batches.items())
        return Counters(
            at,
            self.requests,
            self.failed,
            self.executions,
            self.requests,
            self.queue_seconds,
            self.request_seconds,
            batches,
            pending,
        )
