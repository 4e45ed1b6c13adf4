"""From what servers count to what a plan must hold: feeds the book of demand, and asks it every plan, and for what is urgent."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ergon.demand import BatchCounters, Book, Counters, Demand, Limits, Seen, ServerView, Tenant, Window
from ergon.demand.cascade import FIGURES_SECONDS
from ergon.engine.cache import Cache
from ergon.engine.server import ServerAgent
from ergon.fleet.types import Model, ModelKey, ServerKey
from ergon.planning import Plan
from ergon.reconcile.figures import DemandView, demand_status, keep
from ergon.reconcile.observed import IndexState
from ergon.triton.metrics import ModelMetrics
from ergon.triton.observed import ModelStatistics

log = logging.getLogger("ergon.demand")

LOOK_SECONDS = 5.0
"""Between two looks for what is urgent: more is planned for within two of them."""
SHOWN_SECONDS = 300.0
"""Over which a status says what was asked."""
BUSY_SECONDS = 60.0
"""Over which a pool's busy share is a mean."""
CHANGED = 0.02
"""Of a model's demand: what changes by less is no ground for another plan."""
NO_POINTS = "without operating points it has its least replicas; ergon profile measures what one of them serves"


@dataclass(frozen=True, slots=True)
class Counted:
    """One reading of a server, by model: its counters, what was done since the reading before, and instances there."""

    readings: Mapping[ModelKey, Counters]
    windows: Mapping[ModelKey, Window]
    instances: Mapping[ModelKey, int]

    @property
    def busy_share(self) -> float:
        """The share of the server's time that its models together keep it executing."""
        return min(1.0, sum(window.busy_share(self.instances[key]) for key, window in self.windows.items()))


class DemandKeeper:
    """Holds the book, and the demand that plans are made for. `now` is the event loop's clock, `epoch_seconds` the time at start.

    `version` grows when the demand has changed enough to plan anew.
    """

    def __init__(
        self,
        cache: Cache,
        now: Callable[[], float],
        epoch_seconds: float,
        *,
        plan_seconds: float,
        stabilise_seconds: float,
    ) -> None:
        self.book = Book(stabilise_seconds)
        self.version = 0
        self._cache = cache
        self._now = now
        self._epoch_seconds = epoch_seconds - now()
        self._plan_seconds = plan_seconds
        self._demand: dict[ModelKey, Demand] = {}
        self._planned_for: dict[ModelKey, float] = {}
        self._busy: dict[ServerKey, float] = {}
        self._latency: dict[ModelKey, dict[ServerKey, float]] = {}
        self._unserved: Mapping[ModelKey, float] = {}
        self._capacity: Mapping[ModelKey, float] = {}
        self._cold_start_seconds: dict[ModelKey, float] = {}
        self._token_requests: dict[ModelKey, deque[tuple[float, int]]] = {}
        self._look_at = self._plan_at = now()
        self._known_at = now() + stabilise_seconds
        self._was_settled = False
        self.can_wake: Callable[[], bool] = lambda: False
        self.at_least: Callable[[], Mapping[ModelKey, tuple[float, str]]] = dict
        self._could_wake = False
        self._resting: set[ModelKey] = set()

    @property
    def next_look_at(self) -> float:
        """When `tick` has something to do again, by the loop's clock."""
        return self._look_at

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what an operator before this one learned."""
        self.book.take_state(state, self._clock())

    def pieces(self) -> Iterator[dict[str, Any]]:
        """What another process needs to go on, in pieces to be united."""
        return self.book.pieces()

    @property
    def settled(self) -> bool:
        """Whether this process has seen enough to take replicas away: what it does not know is not nothing."""
        return self._now() >= self._known_at

    # In

    def counted(
        self, agent: ServerAgent, statistics: Mapping[str, ModelStatistics], metrics: Mapping[str, ModelMetrics]
    ) -> Counted:
        """Take in one reading of a server; what its models did since the last one."""
        pool = self._cache.pools.get(agent.key.pool)
        if pool is None or pool.pool is None:
            return Counted({}, {}, {})
        tenants = dict(self._tenants(agent))
        view = ServerView(agent.key, pool.pool.product, pool.pool.accelerator_class, tenants)
        at = self._clock()
        readings = {
            key: counters_of(statistics[name], metrics.get(name), at, self._epoch_of(agent, key))
            for key in tenants
            if (name := key.served_name) in statistics
        }
        windows = self.book.observe(view, readings, at)
        counted = Counted(readings, windows, {key: tenant.instances for key, tenant in tenants.items()})
        self._busy[agent.key] = _smoothed(self._busy.get(agent.key), counted)
        for key, window in windows.items():
            self._note_requests(key, window, at)
        for key in tenants:
            self._note_latency(agent.key, key, metrics.get(key.served_name))
        return counted

    def _tenants(self, agent: ServerAgent) -> Iterator[tuple[ModelKey, Tenant]]:
        for key, facts in agent.facts.items():
            record = self._cache.models.get(key)
            model = record.model if record is not None else None
            if model is None or facts.index is not IndexState.READY or facts.loaded_revision is None:
                continue
            variant = model.loaded_as(facts.loaded_revision)
            if variant is not None:
                yield key, Tenant(variant, facts.instances)

    def _epoch_of(self, agent: ServerAgent, key: ModelKey) -> str:
        return f"{agent.pod.uid}/{agent.facts[key].loaded_revision}"

    def _note_requests(self, key: ModelKey, window: Window, at: float) -> None:
        model = self._model(key)
        if model is not None and model.counts_tokens:
            noted = self._token_requests.setdefault(key, deque())
            noted.append((at, window.completed))
            while noted[0][0] <= at - FIGURES_SECONDS:
                noted.popleft()

    def _note_latency(self, server: ServerKey, key: ModelKey, metrics: ModelMetrics | None) -> None:
        model = self._model(key)
        if model is None or model.slo_latency_seconds is None:
            return
        latency = metrics.latency_at(model.slo_percentile) if metrics is not None else None
        by_server = self._latency.setdefault(key, {})
        if latency is None:
            by_server.pop(server, None)
        else:
            by_server[server] = latency

    def server_gone(self, server: ServerKey) -> None:
        """A server ended, and what it counted with it."""
        self.book.server_gone(server)
        self._busy.pop(server, None)
        for by_server in self._latency.values():
            by_server.pop(server, None)

    def cold_started(self, key: ModelKey, seconds: float) -> None:
        """A model took so long from placed to ready: what is asked of it is foreseen for as long at least."""
        self._cold_start_seconds[key] = max(seconds, 0.5 * self._cold_start_seconds.get(key, 0.0))

    def planned(self, plan: Plan) -> None:
        """A plan was taken over: what it cannot serve is urgent."""
        self._unserved = {key: work for key, work in plan.unserved.items() if work > 0}
        capacity: dict[ModelKey, float] = {}
        for replica, load in plan.loads.items():
            if load.most_per_second > 0:
                capacity[replica.model] = capacity.get(replica.model, 0.0) + load.most_per_second
        self._capacity = capacity

    def forget(self, key: ModelKey) -> None:
        """A model is gone."""
        if key in self._demand or key in self._latency or key in self._cold_start_seconds:
            self.book.forget(key)
        for known in (self._demand, self._planned_for, self._latency, self._cold_start_seconds, self._token_requests):
            known.pop(key, None)
        self._resting.discard(key)

    # Sleep

    def asleep(self, key: ModelKey) -> bool:
        """Whether a model has no replica until somebody asks for it."""
        demand, record = self._demand.get(key), self._cache.models.get(key)
        return demand is not None and demand.asleep and record is not None and record.may_sleep

    def wake(self, key: ModelKey) -> bool:
        """Somebody asks for a model without a replica; whether it slept, and is to be planned for at once."""
        now, model = self._clock(), self._model(key)
        if model is None or not self.asleep(key):
            self.book.asked(key, now)
            return False
        self.book.wake(key, now)
        self._demand.update(self.book.urgent(now, {key: Limits.of(model, can_wake=True)}))
        log.info("%s: %s", key, self._demand[key].reason)
        self.version += 1
        self._cache.wake(models=[key])
        return True

    def _rest(self, key: ModelKey, status: Mapping[str, Any]) -> None:
        """Once, before anything is decided of it: a model that slept when this process began goes on sleeping."""
        if key not in self._resting:
            self._resting.add(key)
            if any(c.get("type") == "Ready" and c.get("reason") == "Asleep" for c in status.get("conditions") or ()):
                self.book.rest(key, self._clock())

    # Out

    def tick(self) -> list[ModelKey]:
        """Look, when it is time, for what is urgent, and every plan interval at all; the models whose status is to say more."""
        now = self._now()
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_SECONDS
        if self.settled and not self._was_settled:
            self._was_settled = True
            self.version += 1  # what stood at the start need not stand any longer
        self._tell_seen()
        if self.can_wake() != self._could_wake:
            self._could_wake, self._plan_at = not self._could_wake, now  # who may sleep is another question now
        if now >= self._plan_at:
            self._plan_at = now + self._plan_seconds
            return self._plan_anew()
        return self._add_urgent()

    def _plan_anew(self) -> list[ModelKey]:
        limits, before = self._limits(), self._demand
        horizons = {key: max(self._plan_seconds, seconds) for key, seconds in self._cold_start_seconds.items()}
        self._demand = self.book.demand(self._clock(), limits, horizons, all_read=self.settled)
        for finding in self.book.findings:
            log.warning("%s", finding.message)
        for key, (work, why) in self.at_least().items():
            demand = self._demand.get(key)
            if demand is not None and not demand.asleep and work > demand.work_per_second:
                self._demand[key] = replace(demand, work_per_second=work, reason=why)
        slept, sleep = _asleep(before), _asleep(self._demand)
        for key, demand in self._demand.items():
            if key not in slept & sleep:
                self._say(key, demand)
        turned = slept ^ sleep
        self.version += bool(turned)
        self._note_change()
        return [*turned, *(key for key in self._demand if self._status_changed(key))]

    def _add_urgent(self) -> list[ModelKey]:
        awake = {key: limits for key, limits in self._limits().items() if not self.asleep(key)}
        urgent = self.book.urgent(self._clock(), awake)
        for key, demand in urgent.items():
            self._demand[key] = demand
            self._say(key, demand)
        self._note_change()
        return list(urgent)

    def _limits(self) -> dict[ModelKey, Limits]:
        """Of the models that were ever served, and of those that may sleep; what else never was is asked for nothing."""
        models = ((key, self._model(key)) for key in self.book.forecaster)
        can_wake = self.can_wake()
        limits = {key: Limits.of(model, can_wake=can_wake) for key, model in models if model is not None}
        for key, record in self._cache.models.items():
            if can_wake and record.may_sleep and record.model is not None:
                self._rest(key, record.status)
                limits[key] = Limits.of(record.model, can_wake=True)
        return limits

    def _tell_seen(self) -> None:
        for key in self._limits():
            model = self._model(key)
            assert model is not None
            latencies = self._latency.get(key)
            self.book.seen(
                key,
                Seen(self._unserved.get(key, 0.0), max(latencies.values()) if latencies else None, model.slo_latency_seconds),
            )

    def _note_change(self) -> None:
        """Ask for another plan where the demand is no longer what the last one was made for."""
        wanted = {
            key: demand.work_per_second
            for key, demand in self._demand.items()
            if demand.work_per_second > 0 and self._has_points(key)
        }
        if any(_differs(wanted.get(key, 0.0), self._planned_for.get(key, 0.0)) for key in wanted.keys() | self._planned_for):
            self._planned_for = wanted
            self.version += 1

    def work_per_second(self) -> dict[ModelKey, float]:
        """What plans are made for."""
        return dict(self._planned_for)

    def observed_work(self, key: ModelKey, seconds: float) -> float | None:
        """Work per second that a model did in the last seconds, as far as it was seen; None where there is no such model."""
        return self.book.forecaster.observed(key, self._clock(), seconds) if self._model(key) is not None else None

    def token_requests(self, key: ModelKey, seconds: float) -> float | None:
        """Requests per second in the last seconds, 300 at most, of a model whose work is tokens; None of any other."""
        model = self._model(key)
        if model is None or not model.counts_tokens:
            return None
        since = self._clock() - seconds
        return sum(requests for at, requests in self._token_requests.get(key, ()) if at > since) / seconds

    def peaks(self) -> dict[ModelKey, float]:
        """Work per second that models which generate must have places for, where known: the peak, and the forecast's p90."""
        return {key: rate for key, rate in self.book.places.known().items() if key in self._planned_for}

    def corrected(self, model: Model) -> Model:
        """The model with operating points as they were learned."""
        return self.book.corrected(model)

    def view(self, key: ModelKey) -> DemandView | None:
        """What a model's status says of its demand; None before it was ever asked."""
        demand, model = self._demand.get(key), self._model(key)
        if demand is None or model is None:
            return None
        return DemandView(
            unit="tokens" if model.counts_tokens else "requests",
            observed=self.book.forecaster.observed(key, self._clock(), SHOWN_SECONDS),
            forecast=demand.work_per_second,
            capacity=self._capacity.get(key),
            method=demand.method,
            message=demand.reason if self._has_points(key) else NO_POINTS,
        )

    def asked(self) -> dict[ModelKey, tuple[float, float]]:
        """Work per second that was seen of late, and that is planned for, by model."""
        return {key: (demand.observed, demand.work_per_second) for key, demand in self._demand.items()}

    def busy_share(self, pool: str) -> float | None:
        """The mean over a pool's servers of their busy share of the last minute; None where nothing was counted."""
        shares = [share for server, share in self._busy.items() if server.pool == pool]
        return sum(shares) / len(shares) if shares else None

    def _status_changed(self, key: ModelKey) -> bool:
        view, record = self.view(key), self._cache.models.get(key)
        if view is None or record is None:
            return False
        new, old = demand_status(view), record.status.get("demand")
        return keep(new, old) is not old

    def _say(self, key: ModelKey, demand: Demand) -> None:
        if demand.direction not in ("Steady", "Fixed"):
            log.info("%s: %s", key, demand.reason)

    def _has_points(self, key: ModelKey) -> bool:
        """Whether any operating point says what the model can serve; without one, replicas say nothing about capacity."""
        model = self._model(key)
        return model is not None and any(variant.points for variant in model.variants)

    def _model(self, key: ModelKey) -> Model | None:
        record = self._cache.models.get(key)
        return record.model if record is not None else None

    def _clock(self) -> float:
        return self._epoch_seconds + self._now()


def counters_of(statistics: ModelStatistics, metrics: ModelMetrics | None, at_seconds: float, epoch: str) -> Counters:
    """Triton's statistics as the book takes them: nanoseconds become seconds."""
    return Counters(
        at_seconds=at_seconds,
        succeeded=statistics.success_count,
        failed=statistics.failure_count,
        executions=statistics.execution_count,
        rows=statistics.inference_count,
        queue_seconds=statistics.queue_ns / 1e9,
        request_seconds=statistics.request_ns / 1e9,
        batches=tuple(BatchCounters(b.batch_size, b.executions, b.compute_infer_ns / 1e9) for b in statistics.batches),
        pending=metrics.pending if metrics is not None else None,
        epoch=epoch,
    )


def _smoothed(before: float | None, counted: Counted) -> float:
    """The busy share of about the last minute: single readings of a few seconds are chance."""
    if before is None or not counted.readings:
        return counted.busy_share
    seconds = max((window.seconds for window in counted.windows.values()), default=0.0)
    return before + (1 - math.exp(-seconds / BUSY_SECONDS)) * (counted.busy_share - before)


def _asleep(demand: Mapping[ModelKey, Demand]) -> set[ModelKey]:
    return {key for key, each in demand.items() if each.asleep}


def _differs(one: float, other: float) -> bool:
    return abs(one - other) > CHANGED * max(one, other)
