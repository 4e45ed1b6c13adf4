"""TaskRoutes in the engine: what gateways count of them, how much may escalate, and their statuses."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from ergon.api.conditions import merge
from ergon.api.types import API_VERSION
from ergon.demand.cascade import Cascades, RouteFigures
from ergon.energy.escalation import STEP, STEP_SECONDS, Allowed, allowed_rate, quality_at
from ergon.energy.expected import expected_joules
from ergon.energy.verdict import Verdict
from ergon.engine.cache import Cache, ModelRecord
from ergon.engine.cached_routes import RouteRecord
from ergon.engine.compare import covers
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.engine.first_answers import FirstAnswers
from ergon.engine.fleet import Planner
from ergon.engine.queue import KeyedQueue
from ergon.fleet.types import Model, ModelKey, Pool, Replica
from ergon.kube.client import KubeClient
from ergon.kube.errors import NotFound
from ergon.kube.events import EventRecorder
from ergon.reconcile.budgets import covers_models, gives_way, step_fits
from ergon.reconcile.figures import keep_figures, same_wording
from ergon.reconcile.routes import RouteModel, RouteView, State, chosen, route_status, takes
from ergon.telemetry.gateway_page import GatewayPages

log = logging.getLogger("ergon.routes")

_BUDGET = re.compile(r"\bbudget ([a-z0-9.-]*[a-z0-9])")
"""How a route's condition names the budget that lowered it."""
Object = dict[str, Any]

SCRAPE_SECONDS = 5.0
TOLD_SECONDS = 30.0
"""Between two looks at whether a route's status says something else of its figures."""
_AT_FIRST = ("NoCandidate", "NoModelReady")
"""What a new route may say until its models are there too: the status shows it, no event does."""
FIGURES = ("requestsPerSecond", "escalationRate", "joulesPerRequest", "quality")


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at many routes shares: every model is reckoned once, and only where a route may ask it.

    1,000 models cost 0.1 s to reckon; once for each of 100 routes, the process that leads would do nothing else for 10 s.
    """

    records: Mapping[str, list[ModelRecord]]
    fallbacks: Mapping[str, Mapping[str, str | None]]
    pools: tuple[Pool, ...]
    models: dict[ModelKey, RouteModel] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Expected:
    """A request's joules by operating points, and all that they were reckoned from."""

    model: Model
    placed: tuple[Replica, ...]
    pools: tuple[Pool, ...]
    joules: float | None


class RouteKeeper:
    """What is known of every route beside its spec. `now`: a clock that never steps back, in seconds since the epoch."""

    def __init__(
        self,
        cache: Cache,
        planner: Planner,
        demand: DemandKeeper,
        energy: EnergyKeeper,
        service: str,
        can_wake: Callable[[], bool],
        answering: Callable[[ModelKey], int],
        first_answered: Callable[[ModelKey, float], None],
        now: Callable[[], float],
    ) -> None:
        self._cache, self._planner, self._demand, self._energy = cache, planner, demand, energy
        self._service, self._gateway_stands, self._answering, self._now = service, can_wake, answering, now
        self._first_answered, self._first_answers = first_answered, FirstAnswers()
        self.cascades = Cascades()
        self._samples: dict[ModelKey, dict[float, float]] = {}
        self._allowed: dict[ModelKey, Allowed] = {}
        self._expected: dict[ModelKey, _Expected] = {}
        self._stepped_at = now()
        self._told_at = now()

    async def scrape(self, session: aiohttp.ClientSession) -> None:
        """Until cancelled: read every gateway again and again. A round that fails is logged, and the next one comes."""
        pages = GatewayPages(session)
        while True:
            await asyncio.sleep(SCRAPE_SECONDS)
            try:
                await self._round(pages)
            except Exception:
                log.exception("reading the gateways failed; it is tried again in %g s", SCRAPE_SECONDS)

    async def _round(self, pages: GatewayPages) -> None:
        gateways = self._cache.gateways
        answers = await asyncio.gather(*(pages.read(pod.ip) for pod in gateways))
        read = {pod.uid: page for pod, page in zip(gateways, answers, strict=True) if page is not None}
        self.cascades.keep(self._cache.routes, (pod.uid for pod in gateways))
        self.cascades.observe(self._now(), {uid: page.routes for uid, page in read.items()})
        self._first_answers.keep(pod.uid for pod in gateways)
        for key, seconds in self._first_answers.look({uid: page.first_answers for uid, page in read.items()}).items():
            self._first_answered(key, seconds)
        if read:
            self._samples = _means([page.samples for page in read.values()])
        await self._step()

    def least_work(self) -> Mapping[ModelKey, tuple[float, str]]:
        """Work per second that routes foresee for their models, and why."""
        return self.cascades.least_work(self._now(), STEP_SECONDS, self._demand.observed_work, self._demand.token_requests)

    def look(self) -> Callable[[RouteRecord], RouteView]:
        """For one pass over routes: gives all that is decided from for each."""
        look = self._look()
        return lambda record: self._view(record, look)

    def _look(self) -> _Look:
        records: dict[str, list[ModelRecord]] = {}
        for key, record in self._cache.models.items():
            if record.model is not None:
                records.setdefault(key.namespace, []).append(record)
        fallbacks: dict[str, dict[str, str | None]] = {}
        for key, route in self._cache.routes.items():
            fallbacks.setdefault(key.namespace, {})[key.name] = route.spec.fallback if route.spec is not None else None
        return _Look(records, fallbacks, tuple(pool.pool for pool in self._cache.pools.values() if pool.pool is not None))

    def _view(self, record: RouteRecord, look: _Look) -> RouteView:
        return RouteView(
            key=record.key,
            spec=record.spec,
            refusal=record.refusal,
            models=tuple(self._models(record, look)),
            fallbacks=look.fallbacks.get(record.key.namespace, {}),
            gateway=self._gateway_stands(),
            service=self._service,
            figures=self.figures(record.key),
            allowed=self._allowed_of(record),
        )

    def _allowed_of(self, record: RouteRecord) -> Allowed | None:
        """What may escalate; before the first step what an operator before this one allowed, so that no status says otherwise."""
        if record.spec is None:
            return None
        if record.key not in self._allowed:
            self._allowed[record.key] = _as_told(record, record.spec.escalation.max_rate)
        return self._allowed[record.key]

    def _models(self, route: RouteRecord, look: _Look) -> Iterable[RouteModel]:
        """The models that the route may ask, each reckoned once a look."""
        if route.spec is None:
            return
        for record in look.records.get(route.key.namespace, ()):
            if takes(route.spec, record.task, record.labels):
                found = look.models.get(record.key)
                if found is None:
                    found = look.models[record.key] = self._model(record, look.pools)
                yield found

    def figures(self, key: ModelKey) -> RouteFigures | None:
        """What was counted of a route, with its quality where it has samples."""
        samples = self._samples.get(key, {})
        figures = self.cascades.figures(key, samples)
        if figures is None:
            return None
        quality = quality_at(samples, figures.escalation_rate) if figures.escalation_rate is not None else None
        return replace(figures, quality=quality)

    def state(self, key: ModelKey) -> State:
        """Whether a model answers now, would after waking, or does not."""
        if self._answering(key):
            return "Ready"
        return "Asleep" if self._demand.asleep(key) and self._cache.gateways else "NotReady"

    async def _step(self) -> None:
        """Once a minute: lower or raise what may escalate; now and then have statuses looked at."""
        now = self._now()
        if now - self._stepped_at >= STEP_SECONDS:
            self._stepped_at = now
            look = self._look()
            for key, record in list(self._cache.routes.items()):
                await asyncio.sleep(0)
                try:
                    self._step_route(key, record, look)
                except Exception:
                    log.exception("what may escalate of route %s could not be told; the others go on", key)
            self._expected = {key: each for key, each in self._expected.items() if key in self._cache.models}
        if now - self._told_at >= TOLD_SECONDS:
            self._told_at = now
            self._cache.wake(routes=self._cache.routes)
        self._allowed = {key: allowed for key, allowed in self._allowed.items() if key in self._cache.routes}

    def _step_route(self, key: ModelKey, record: RouteRecord, look: _Look) -> None:
        spec = record.spec
        if spec is None:
            self._allowed.pop(key, None)
            return
        most, figures = spec.escalation.max_rate, self.figures(key)
        before = self._allowed_of(record) or Allowed(most)
        wished = figures.wished_rate if figures is not None else None
        samples = self._samples.get(key, {})
        models, budgets = chosen(spec, self._models(record, look)), list(self._budgets_over(record, look))
        giving_way = next((name for name, verdict, binds in budgets if binds), "")
        more = STEP * (figures.requests_per_second if figures is not None else 0.0) * _next_joules(models)
        full = next((name for name, verdict, _ in budgets if not step_fits(verdict, more)), "")
        after = allowed_rate(before, most, wished, giving_way, samples, spec.min_quality, full=full)
        self._allowed[key] = after
        if after.rate != before.rate:
            log.info("route %s: %s may escalate, before %s. %s", key, f"{after.rate:.0%}", f"{before.rate:.0%}", after.message)
            self._cache.wake(routes=[key])

    def _budgets_over(self, record: RouteRecord, look: _Look) -> Iterable[tuple[str, Verdict, bool]]:
        """The enforced budgets that cover any of the route's models where they are placed, and whether each gives way now."""
        assert record.spec is not None
        namespace = record.key.namespace
        candidates = chosen(record.spec, self._models(record, look))
        pools = {
            replica.server.pool for model in candidates for replica in self._planner.placements(ModelKey(namespace, model.name))
        }
        labels = self._cache.namespaces.get(namespace, {"kubernetes.io/metadata.name": namespace})
        placed_on = [pool.pool.labels for name, pool in self._cache.pools.items() if name in pools and pool.pool is not None]
        for name, budget in sorted(self._cache.budgets.items()):
            verdict = self._energy.verdict(name)
            if budget.spec is not None and verdict is not None and covers_models(budget.spec, labels, placed_on):
                yield name, verdict, gives_way(budget.spec, verdict)

    def _model(self, record: ModelRecord, pools: tuple[Pool, ...]) -> RouteModel:
        model = record.model
        assert model is not None
        placed = self._planner.placements(record.key)
        variants = [variant for replica in placed if (variant := model.variant(replica.variant)) is not None]
        joules, provenance = self._joules(record, placed, pools)
        return RouteModel(
            name=record.key.name,
            task=record.task,
            labels=record.labels,
            quality=max((variant.quality for variant in variants or model.variants), default=0.0),
            state=self.state(record.key),
            joules=joules,
            provenance=provenance,
        )

    def _joules(self, record: ModelRecord, placed: tuple[Replica, ...], pools: tuple[Pool, ...]) -> tuple[float | None, str]:
        """A request's joules: as the ledger has them, else by the operating points of where it is placed, or could be."""
        measured = self._energy.model(record.key)
        if measured is not None and measured.joules_per_request is not None:
            return measured.joules_per_request, measured.provenance
        model = record.model
        assert model is not None
        known = self._expected.get(record.key)
        if known is None or known.model is not model or known.placed != placed or known.pools != pools:
            known = self._expected[record.key] = _Expected(model, placed, pools, _expected(model, placed, pools))
        return known.joules, "assumed"


def _next_joules(candidates: list[RouteModel]) -> float:
    """What one more escalation takes at most, in joules; 0 where nobody knows."""
    return max((model.joules for model in candidates[1:] if model.joules is not None), default=0.0)


def _expected(model: Model, placed: Iterable[Replica], pools: Iterable[Pool]) -> float | None:
    by_name = {pool.name: pool for pool in pools}
    here = [(model.variant(replica.variant), by_name.get(replica.server.pool)) for replica in placed]
    stands = [(variant, pool) for variant, pool in here if variant is not None and pool is not None]
    could = [(v, p) for v in model.variants for p in by_name.values() if p.accelerator_class in v.accelerators]
    return expected_joules(stands or could)


def _as_told(record: RouteRecord, most: float) -> Allowed:
    """What an operator before this one allowed, by the route's status."""
    rate = record.status.get("allowedRate")
    told = next((c for c in record.status.get("conditions") or () if c.get("reason") == "LoweredByBudget"), None)
    if told is None or not isinstance(rate, int | float):
        return Allowed(most)
    message = str(told.get("message", ""))
    named = _BUDGET.search(message)
    return Allowed(min(float(rate), most), named[1] if named is not None else "of before", message)


def _means(pages: Iterable[Mapping[ModelKey, Mapping[float, float]]]) -> dict[ModelKey, dict[float, float]]:
    """By route and rate the mean over the gateways that say it."""
    said: dict[ModelKey, dict[float, list[float]]] = {}
    for page in pages:
        for key, by_rate in page.items():
            for rate, quality in by_rate.items():
                said.setdefault(key, {}).setdefault(rate, []).append(quality)
    return {key: {rate: sum(values) / len(values) for rate, values in by_rate.items()} for key, by_rate in said.items()}


class RouteWriter:
    """Brings the statuses of routes to what was last decided for them, and tells events."""

    def __init__(self, client: KubeClient, cache: Cache, events: EventRecorder, now_text: Callable[[], str]) -> None:
        self._client, self._cache, self._events, self._now_text = client, cache, events, now_text
        self._views: dict[ModelKey, RouteView] = {}
        self.queue: KeyedQueue[ModelKey] = KeyedQueue(self._sync, 2, "write route")

    def wish(self, view: RouteView) -> None:
        """Take over what a route is judged from; its status is written soon where it differs."""
        record = self._cache.routes.get(view.key)
        if record is not None:
            self._views[view.key] = view
            if self._status(record, view) is not None:
                self.queue.add(view.key)

    def forget(self, key: ModelKey) -> None:
        """The route is gone."""
        self._views.pop(key, None)

    def _status(self, record: RouteRecord, view: RouteView) -> Object | None:
        """The status to write; None where it stands already."""
        previous = record.status
        facts, body = route_status(view)
        told = previous.get("conditions") or ()
        kept = {**body, **keep_figures(body, previous, FIGURES)}
        if "candidates" in body:
            kept["candidates"] = _kept(body["candidates"], previous.get("candidates") or [])
        as_told = [replace(fact, message=_as_it_stands(fact.type, fact.reason, fact.message, told)) for fact in facts]
        conditions = merge(told, as_told, generation=record.generation, now=self._now_text())
        status = {**kept, "observedGeneration": record.generation, "conditions": conditions}
        if covers(previous, status) and len(told) == len(conditions) and set(previous) <= set(status):
            return None
        # It is written anyway: then with all its figures as they are now, and not some of now and some of before.
        conditions = merge(told, facts, generation=record.generation, now=self._now_text())
        return {**body, "observedGeneration": record.generation, "conditions": conditions}

    async def _sync(self, key: ModelKey) -> None:
        record, view = self._cache.routes.get(key), self._views.get(key)
        status = self._status(record, view) if record is not None and view is not None else None
        if record is None or status is None:
            return
        subject = {"apiVersion": API_VERSION, "kind": "TaskRoute", "metadata": {"namespace": key.namespace, "name": key.name}}
        try:
            answer = await self._client.apply_status({**subject, "status": status})
        except NotFound:
            return
        self._tell(record, status)
        if self._cache.routes.get(key) is record:
            record.status = answer.get("status") or {}

    def _tell(self, record: RouteRecord, status: Object) -> None:
        """An event where a condition's status or reason changed."""
        before = {c["type"]: (c["status"], c["reason"]) for c in record.status.get("conditions") or ()}
        for condition in status["conditions"]:
            now = condition["status"], condition["reason"]
            was = before.get(condition["type"])
            if now == was or (was is None and (condition["status"] == "True" or condition["reason"] in _AT_FIRST)):
                continue
            subject = {
                "apiVersion": API_VERSION,
                "kind": "TaskRoute",
                "metadata": {"namespace": record.key.namespace, "name": record.key.name, "uid": record.uid},
            }
            level = "Normal" if condition["status"] == "True" else "Warning"
            self._events.record(subject, level, condition["reason"], condition["message"] or condition["reason"])


def _kept(candidates: list[Object], previous: list[Object]) -> list[Object]:
    """The candidates with the joules that stand, while those of none have changed much and all else is the same."""
    names = ("model", "quality", "provenance", "state")
    if [[c.get(n) for n in names] for c in candidates] != [[c.get(n) for n in names] for c in previous]:
        return candidates
    figures = [keep_figures(new, old, ("joulesPerRequest",)) for new, old in zip(candidates, previous, strict=True)]
    return [{**new, **kept} for new, kept in zip(candidates, figures, strict=True)]


def _as_it_stands(kind: str, reason: str, message: str, conditions: Iterable[Object]) -> str:
    """The message that stands, where the new one differs from it in figures alone."""
    stands = next((c.get("message", "") for c in conditions if c["type"] == kind and c["reason"] == reason), message)
    return stands if same_wording(stands, message) else message
