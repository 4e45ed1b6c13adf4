"""The operator's own metrics. Labels are bounded: phases, verbs, kinds, codes, pools; of models only so many (`figures`)."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ergon.telemetry.figures import FiguresCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """All series of one operator process, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.fleet = FiguresCollector()
        self.registry.register(self.fleet)
        self.phase_seconds = Histogram(
            "ergon_phase_seconds",
            "Seconds of a phase: of a cold start (server, fetch, load, first_answer), a pass of the loop, a plan.",
            ["phase"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.api_calls = Counter(
            "ergon_kubernetes_requests_total", "Calls to the API server.", ["verb", "kind", "code"], registry=self.registry
        )
        self.api_seconds = Histogram(
            "ergon_kubernetes_request_seconds",
            "Seconds of a call to the API server.",
            ["verb"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "ergon_queue_depth", "Objects waiting to be written, or being written.", ["queue"], registry=self.registry
        )
        self.jobs = Gauge("ergon_jobs", "Jobs under way on servers.", registry=self.registry)
        self.loop_lag_seconds = Gauge(
            "ergon_loop_lag_seconds", "How late the event loop woke up, at worst in 10 s.", registry=self.registry
        )
        self.leading = Gauge("ergon_leading", "1 while this process holds the Lease.", registry=self.registry)
        self.models = Gauge("ergon_models", "Models by what holds of them.", ["state"], registry=self.registry)
        self.servers = Gauge("ergon_servers", "Servers that answer.", ["pool"], registry=self.registry)
        self.events = Counter(
            "ergon_watch_events_total", "Events received from the API server.", ["kind"], registry=self.registry
        )

    def observe_phase(self, phase: str, seconds: float) -> None:
        """One phase took so long."""
        self.phase_seconds.labels(phase).observe(seconds)

    def observe_call(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """One call to the API server was answered, or not (code 0)."""
        self.api_calls.labels(verb, kind, str(code)).inc()
        self.api_seconds.labels(verb).observe(seconds)
