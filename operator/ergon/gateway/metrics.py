"""The gateway's own metrics, which the operator reads from every gateway every few seconds."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ergon.gateway.rules import Reason

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WAKE_SECONDS = (0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300)
_ROUTE = ["namespace", "route"]
Names = set[tuple[str, str]]


class Metrics:
    """Counters by namespace, route and model. Nothing that a client may invent becomes a label."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = self.registry
        self.requests = Counter(
            "ergon_gateway_requests",
            "Requests by the model that answered and what came of them; route is empty for a model's own requests.",
            [*_ROUTE, "model", "outcome"],
            registry=of,
        )
        self.asked = Counter("ergon_gateway_asked", "How often a model of the route was asked.", [*_ROUTE, "model"], registry=of)
        self.escalations = Counter(
            "ergon_gateway_escalations",
            "How often the next model was asked, and why.",
            [*_ROUTE, "model", "to", "reason"],
            registry=of,
        )
        self.wished = Counter(
            "ergon_gateway_wished_escalations",
            "Requests that would have escalated by their answer; those the rate held back included.",
            _ROUTE,
            registry=of,
        )
        self.seconds = Histogram(
            "ergon_gateway_request_seconds",
            "From a request's head to the end of its answer.",
            _ROUTE,
            buckets=_REQUEST_SECONDS,
            registry=of,
        )
        self.held = Gauge("ergon_gateway_held_requests", "Requests that wait for a model.", ["namespace", "model"], registry=of)
        self.wake_seconds = Histogram(
            "ergon_gateway_wake_seconds",
            "From the first request that waits for a model to its first server.",
            ["namespace", "model"],
            buckets=_WAKE_SECONDS,
            registry=of,
        )
        self.first_answer_seconds = Histogram(
            "ergon_gateway_first_answer_seconds",
            "From a woken model's first server to its first answer to those that waited.",
            ["namespace", "model"],
            buckets=_REQUEST_SECONDS,
            registry=of,
        )
        self.joules = Counter("ergon_gateway_joules", "Joules of the models that were asked, as known.", _ROUTE, registry=of)
        self.sample_quality = Gauge(
            "ergon_gateway_sample_quality",
            "Share of the route's samples answered right when at most `rate` of them escalate.",
            [*_ROUTE, "rate"],
            registry=of,
        )
        self._kept: dict[tuple[str, str], RouteMetrics] = {}
        self._known: tuple[Names, Names] = (set(), set())

    def of(self, namespace: str, route: str) -> "RouteMetrics":
        """The metrics of one route, whose labelled children are looked up once."""
        found = self._kept.get((namespace, route))
        if found is None:
            found = self._kept[namespace, route] = RouteMetrics(self, namespace, route)
        return found

    def keep_only(self, routes: Names, models: Names) -> None:
        """What was counted of other routes and models goes. Both are names with their namespaces before them."""
        (routes_before, models_before), self._known = self._known, (routes, models)
        of_routes = (self.requests, self.asked, self.escalations, self.wished, self.seconds, self.joules, self.sample_quality)
        for namespace, route in routes_before - routes:
            for metric in of_routes:
                metric.remove_by_labels({"namespace": namespace, "route": route})
            self._kept.pop((namespace, route), None)
        for namespace, model in models_before - models:
            waking = (self.held, self.wake_seconds, self.first_answer_seconds)
            for metric in (self.requests, self.asked, self.escalations, *waking):
                metric.remove_by_labels({"namespace": namespace, "model": model})
            self.escalations.remove_by_labels({"namespace": namespace, "to": model})
            for kept in self._kept.values():
                kept.forget()


class RouteMetrics:
    """What is counted of one route; of models' own requests where the route's name is empty."""

    def __init__(self, metrics: Metrics, namespace: str, route: str) -> None:
        self._metrics, self._names = metrics, (namespace, route)
        self._requests: dict[tuple[str, str], Counter] = {}
        self._asked: dict[str, Counter] = {}
        self._seconds = metrics.seconds.labels(namespace, route)
        self._joules = metrics.joules.labels(namespace, route)
        self._wished = metrics.wished.labels(namespace, route)

    def ended(self, model: str, outcome: str, seconds: float, joules: float = 0.0) -> None:
        """A request is over. `outcome`: answered, failed, refused, expired or cancelled."""
        key = (model, outcome)
        counter = self._requests.get(key)
        if counter is None:
            counter = self._requests[key] = self._metrics.requests.labels(*self._names, model, outcome)
        counter.inc()
        self._seconds.observe(seconds)
        if joules:
            self._joules.inc(joules)

    def asked(self, model: str) -> None:
        """A model of the route is asked."""
        counter = self._asked.get(model)
        if counter is None:
            counter = self._asked[model] = self._metrics.asked.labels(*self._names, model)
        counter.inc()

    def escalated(self, model: str, to: str, reason: Reason) -> None:
        """The next model is asked."""
        self._metrics.escalations.labels(*self._names, model, to, str(reason)).inc()

    def forget(self) -> None:
        """Look up what is counted by model anew."""
        self._requests.clear()
        self._asked.clear()

    def wished(self) -> None:
        """A request would escalate by its answer."""
        self._wished.inc()
