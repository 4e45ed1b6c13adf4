"""Routes as they are served: the cascade of one, its fallback where none of its models answers, and what is counted."""

from collections.abc import Callable
from typing import Generic, NamedTuple

from ergon.gateway.cascade import Ask, Cascade, R, Wish
from ergon.gateway.directory import MODEL, ROUTE, Directory
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.metrics import Metrics
from ergon.gateway.outcome import counted
from ergon.gateway.rate import EscalationRate
from ergon.gateway.routes import Route, spent


class Given(NamedTuple, Generic[R]):
    """What a route answered. `joules` with their provenance, where they are known."""

    reply: R
    route: Route
    model: str
    asked: tuple[str, ...]
    reasons: tuple[str, ...]
    joules: tuple[float, str] | None

    def headers(self) -> list[tuple[str, str]]:
        """What the answer says of how it came about."""
        said = [("ergon-models", ",".join(self.asked))]
        if self.reasons:
            said.append(("ergon-escalated", ",".join(self.reasons)))
        if self.joules is not None:
            said += [("ergon-joules", f"{self.joules[0]:.4g}"), ("ergon-joules-provenance", self.joules[1])]
        return said


class Tasks:
    """All routes of one gateway."""

    def __init__(self, directory: Directory, metrics: Metrics) -> None:
        self._directory, self._metrics = directory, metrics
        self._rates: dict[tuple[str, str], EscalationRate] = {}

    def route(self, namespace: str, name: str) -> Route:
        """A route that can be served. Raises Failure."""
        route = self._directory.route(namespace, name)
        if route is None:
            raise Failure(Kind.NOT_FOUND, f"there is no route {namespace}/{name}")
        if route.problem:
            raise Failure(Kind.UNAVAILABLE, f"route {namespace}/{name} cannot be served: {route.problem}", 10)
        return route

    def tidy(self) -> None:
        """Let go of what is kept and counted of routes and models that are gone."""
        routes = self._directory.names(ROUTE)
        for key in self._rates.keys() - routes:
            del self._rates[key]
        self._metrics.keep_only(routes, self._directory.names(MODEL))

    async def answer(self, route: Route, asker: Callable[[Route], Ask[R]], deadline: float, wish: Wish) -> Given[R]:
        """The answer of a route, or of the route that it falls back to. `asker` gives how a route's models are asked.

        Raises Failure. `deadline` in seconds of the loop's clock.
        """
        metrics, what = self._metrics.of(route.namespace, route.name), f"route {route.namespace}/{route.name}"
        async with counted(metrics, what, deadline) as outcome:
            given = await self._first_that_answers(route, asker, deadline, wish)
            outcome.name, outcome.model = "refused" if given.reply.refused else "answered", given.model
            outcome.joules = given.joules[0] if given.joules else 0.0
            return given

    async def _first_that_answers(self, route: Route, asker: Callable[[Route], Ask[R]], deadline: float, wish: Wish) -> Given[R]:
        seen: set[str] = set()
        asked: tuple[str, ...] = ()
        while True:
            seen.add(route.name)
            metrics = self._metrics.of(route.namespace, route.name)
            cascade = Cascade(route, asker(route), self._rate(route), metrics, deadline, wish)
            try:
                answered = await cascade.run()
            except Failure as failure:
                to = route.fallback
                hopeless = failure.kind.refused or failure.kind is Kind.EXPIRED
                if hopeless or to is None or to in seen or (further := self._sound(route.namespace, to)) is None:
                    raise
                asked += tuple(cascade.asked)
                route = further
                continue
            everything = asked + answered.asked
            return Given(
                answered.reply, route, answered.model, everything, answered.reasons, None if asked else spent(route, everything)
            )

    def _sound(self, namespace: str, name: str) -> Route | None:
        route = self._directory.route(namespace, name)
        return None if route is None or route.problem else route

    def _rate(self, route: Route) -> EscalationRate:
        key = (route.namespace, route.name)
        found = self._rates.get(key)
        if found is None:
            found = self._rates[key] = EscalationRate()
        return found
