"""The one writer: waits for a change, takes a snapshot, lets the pure rooms decide, hands the effects on."""

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from ergon.engine.actions import Executor
from ergon.engine.budgets import BudgetWriter
from ergon.engine.cache import Cache, ModelRecord, PoolRecord
from ergon.engine.cached_routes import RouteRecord
from ergon.engine.cold_starts import ColdStarts
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.engine.fleet import Planner
from ergon.engine.models import ModelWriter, Wish
from ergon.engine.pods import Pods
from ergon.engine.pools import PoolWriter
from ergon.engine.routes import RouteWriter
from ergon.engine.servers import Servers
from ergon.engine.settings import Settings
from ergon.fleet.types import ModelKey, ServerKey
from ergon.reconcile.budgets import budget_status
from ergon.reconcile.decide import DrainPolicy, decide
from ergon.reconcile.observed import ModelView, ServerView
from ergon.reconcile.pools import RELEASED, PoolView, decide_pool, pool_status, refused_pool
from ergon.reconcile.routes import RouteView
from ergon.reconcile.status import model_status
from ergon.telemetry.figures import BudgetFigures

log = logging.getLogger("ergon.engine")

IDLE_WINDOW_SECONDS = 0.02
LONGEST_WINDOW_SECONDS = 0.25
POOL_CHECK_SECONDS = 10.0
PLAN_SECONDS = 0.05
"""How long the loop waits for a plan before it goes on by the last one."""
FIRST_PLAN_SECONDS = 3.0
SETTLING_SECONDS = 10.0
"""After a start: how long a server may take to be read before its models' statuses say that it does not answer."""


class Engine:
    """Brings the cluster and its servers to what people asked for, again and again. Run it while leading, in one event loop."""

    def __init__(
        self,
        cache: Cache,
        settings: Settings,
        planner: Planner,
        demand: DemandKeeper,
        energy: EnergyKeeper,
        servers: Servers,
        executor: Executor,
        models: ModelWriter,
        pools: PoolWriter,
        budgets: BudgetWriter,
        routes: RouteWriter,
        observe: Callable[[str, float], None],
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._planner = planner
        self._demand = demand
        self._energy = energy
        self._servers = servers
        self._executor = executor
        self._models = models
        self._pools = pools
        self._budgets = budgets
        self._routes = routes
        self.look_at_routes: Callable[[], Callable[[RouteRecord], RouteView]] = lambda: _plainly
        self._answers: dict[ModelKey, tuple[bool, bool]] = {}
        self._observe = observe
        self._timers: list[tuple[float, ModelKey]] = []
        self._timer_of: dict[ModelKey, float] = {}
        self._pools_checked_at = 0.0
        self._started_at = 0.0
        self._views_by_key: dict[ServerKey, ServerView] = {}
        self._views_by_uid: dict[str, ServerView] = {}
        self._drain = DrainPolicy(settings.quiet_seconds)
        self._pod_views = Pods(cache, servers, pools.template_refused, pools.keys, lambda: asyncio.get_running_loop().time())
        self._cold_starts = ColdStarts(demand.cold_started)

    async def run(self) -> None:
        """Until cancelled. An error in one object's decision is logged with its name and does not stop the others."""
        loop = asyncio.get_running_loop()
        self._started_at = loop.time()
        known = {*self._cache.models, *self._cache.children}
        self._cache.wake(models=known, pools=self._cache.pools, budgets=self._cache.budgets, routes=self._cache.routes, plan=True)
        while True:
            await self._wait(loop)
            began = loop.time()
            if began - self._pools_checked_at >= POOL_CHECK_SECONDS:
                self._pools_checked_at = began
                self._cache.dirty_pools.update(self._cache.pools)
                self._pod_views.forget_the_gone()
            self._servers.follow(self._cache, self._pools.keys)
            self._due(began)
            self._cache.dirty_models.update(self._demand.tick())
            if self._energy.tick():
                self._cache.dirty_budgets.update(self._cache.budgets)
                self._cache.dirty_models.update(self._energy.telling())
            await self._plan()
            self._decide_pools()
            await self._decide_models()
            self._decide_budgets()
            await self._decide_routes()
            self._observe("pass", loop.time() - began)

    def waited(self, key: ModelKey) -> float:
        """Seconds for which a model was planned and no replica of it answered."""
        return self._cold_starts.waited(key, asyncio.get_running_loop().time())

    def started(self, key: ModelKey, seconds: float) -> None:
        """A model took so long from planned to loaded."""
        self._cold_starts.started(key, seconds)

    def answering(self, key: ModelKey) -> int:
        """Servers that its Service should point at now."""
        return self._models.answering(key)

    def look_again(self, key: ModelKey, at_seconds: float) -> None:
        """Have the loop decide for a model at that time (monotonic seconds) at the latest."""
        if at_seconds < self._timer_of.get(key, float("inf")):
            self._timer_of[key] = at_seconds
            heapq.heappush(self._timers, (at_seconds, key))

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until something changed or a timer is due; then a short window, so that a storm of changes becomes one pass."""
        until_pools = self._pools_checked_at + POOL_CHECK_SECONDS
        until = min(
            self._timers[0][0] if self._timers else until_pools, until_pools, self._demand.next_look_at, self._energy.next_tick_at
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._cache.changed.wait(), max(0.0, until - loop.time()))
        ends_at = loop.time() + LONGEST_WINDOW_SECONDS
        while self._cache.changed.is_set() and loop.time() < ends_at:
            self._cache.changed.clear()
            await asyncio.sleep(IDLE_WINDOW_SECONDS)
        self._cache.changed.clear()

    def _due(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            at, key = heapq.heappop(self._timers)
            if self._timer_of.get(key) == at:
                del self._timer_of[key]
                self._cache.dirty_models.add(key)

    async def _plan(self) -> None:
        """Have a plan made where its grounds changed. One that takes long is made beside the loop, which goes on by the last."""
        self._planner.begin()
        if self._planner.busy:
            changed = await self._planner.settle(PLAN_SECONDS if self._planner.made_once else FIRST_PLAN_SECONDS)
            if self._planner.busy:
                return
            self._cache.dirty_models.update(changed)
            self._cache.dirty_pools.update(self._cache.pools)
            self._cache.dirty_budgets.update(self._cache.budgets)

    # Models

    async def _decide_models(self) -> None:
        dirty, self._cache.dirty_models = self._cache.dirty_models, set()
        self._views_by_key = {view.key: view for view in self._servers.views()}
        self._views_by_uid = {view.pod_uid: view for view in self._views_by_key.values()}
        self._drain = self._drain_policy()
        for count, key in enumerate(sorted(dirty)):
            if count % 50 == 49:
                await asyncio.sleep(0)
            try:
                self._decide_model(key)
            except Exception:
                log.exception("deciding for model %s failed; the others go on", key)

    def _decide_model(self, key: ModelKey) -> None:
        now = asyncio.get_running_loop().time()
        record = self._cache.models.get(key)
        if record is not None and record.model is not None:
            self._servers.note_memory(record.model)
        view = self._view(key, record)
        decision = decide(view, now, self._drain)
        failed = any(replica.failure is not None for replica in view.replicas)
        self._cold_starts.decided(key, now, cold=bool(view.planned) and not decision.endpoints, failed=failed)
        for action in decision.actions:
            self._executor.carry_out(key, action)
        if decision.look_again_at_seconds is not None:
            self.look_again(key, decision.look_again_at_seconds)
        if record is None:
            self._models.forget(key)
            self._servers.forget(key)
            self._demand.forget(key)
            self._cold_starts.forget(key)
            self._answers.pop(key, None)
            return
        self._note_answers(key, (bool(decision.endpoints), view.asleep))
        gateways = self._cache.gateways if decision.through_gateway else None
        if self._too_early(view, now):
            self._models.wish(key, Wish(decision.endpoints, placed=bool(view.planned), gateways=gateways))
            self.look_again(key, self._started_at + SETTLING_SECONDS)
            return
        facts, body = model_status(view, decision)
        self._models.wish(key, Wish(decision.endpoints, facts, body, placed=bool(view.planned), gateways=gateways))

    def _too_early(self, view: ModelView, now: float) -> bool:
        """Whether, just after a start, a server of the model is yet to be read: until then its status is left as it stands."""
        return now - self._started_at < SETTLING_SECONDS and any(
            s.pod_ready and not s.deleting and not s.synced for s in view.servers
        )

    def _view(self, key: ModelKey, record: ModelRecord | None) -> ModelView:
        agents = self._servers.holding(key)
        views = tuple(view for agent in agents if (view := agent.replica(key)) is not None)
        planned = self._planner.placements(key) if record is not None else ()
        refusal = record.refusal or self._models.refusal(key) if record is not None else None
        kept = self._models.kept_pod_uids(key)
        servers = {self._views_by_key[replica.server] for replica in planned if replica.server in self._views_by_key}
        servers |= {self._views_by_uid[uid] for uid in kept if uid in self._views_by_uid}
        return ModelView(
            model=record.model if record is not None else None,
            planned=planned,
            missing_replicas=self._planner.missing(key),
            alternatives=self._planner.alternatives(key),
            replicas=views,
            servers=tuple(sorted(servers, key=lambda server: server.key)),
            refusal=refusal,
            kept_pod_uids=kept,
            cold_start=self._servers.cold_start(key, planned),
            route_message=self._models.route_message(key),
            planned_once=self._planner.knows(key),
            demand=self._demand.view(key),
            energy=self._energy.model(key),
            can_wake=self._demand.can_wake(),
            gateway_ready=bool(self._cache.gateways),
            asleep=record is not None and self._demand.asleep(key),
        )

    def _drain_policy(self) -> DrainPolicy:
        timeouts = {
            name: record.pool.drain_timeout_seconds for name, record in self._cache.pools.items() if record.pool is not None
        }
        return DrainPolicy(self._settings.quiet_seconds, timeouts)

    # Pools

    def _decide_pools(self) -> None:
        dirty, self._cache.dirty_pools = self._cache.dirty_pools, set()
        for name in sorted(dirty):
            record = self._cache.pools.get(name)
            try:
                if record is None:
                    self._pools.forget(name)
                else:
                    self._decide_pool(record)
            except Exception:
                log.exception("deciding for pool %s failed; the others go on", name)

    def _decide_pool(self, record: PoolRecord) -> None:
        if record.pool is None or record.spec is None:
            if record.refusal is not None:
                # What an older version took and this one does not can still be deleted: emptied first, like any other.
                emptied = record.deleting and self._servers.emptied(record.name)
                self._pools.wish(record.name, RELEASED if emptied else None, refused_pool(record.refusal), {})
            return
        placed = self._planner.on_pool(record.name)
        pods = self._pod_views.of(record)
        held = [pod.ordinal for pod in pods if pod.occupied] + [replica.server.ordinal for replica in placed]
        view = PoolView(
            pool=record.pool,
            planned_servers=self._planner.servers(record.name),
            highest_held=max(held, default=-1),
            pods=pods,
            running=int(
                (self._cache.statefulsets.get(record.name) or {}).get("spec", {}).get("replicas", record.pool.servers_min)
            ),
            models_placed=len(placed),
            used_bytes=self._planner.used_bytes(record.name),
            template_refused=self._pools.template_refused.get(record.name, ""),
            name_taken=record.name in self._pools.name_taken,
            busy_share=self._demand.busy_share(record.name),
            energy=self._energy.pool(record.name),
            planned_on=frozenset(replica.server.ordinal for replica in placed),
            lacking=self._planner.short,
        )
        decision = decide_pool(view)
        for pod in pods:
            reason = "PoolDeleted" if record.deleting else pod.leaving if pod.ordinal in decision.unavailable else ""
            self._servers.set_leaving(record.name, pod.ordinal, reason)
        self._planner.set_unavailable(record.name, decision.unavailable)
        facts, body = pool_status(view, decision)
        self._pools.wish(record.name, decision, facts, body)

    # Routes

    def _note_answers(self, key: ModelKey, answers: tuple[bool, bool]) -> None:
        """Have routes looked at where a model begins or ceases to answer, or falls asleep."""
        if self._answers.get(key) != answers:
            self._answers[key] = answers
            self._cache.wake(routes=self._cache.routes_of(key.namespace))

    async def _decide_routes(self) -> None:
        dirty, self._cache.dirty_routes = self._cache.dirty_routes, set()
        if not dirty:
            return
        view = self.look_at_routes()
        for key in sorted(dirty):
            await asyncio.sleep(0)
            record = self._cache.routes.get(key)
            try:
                if record is None:
                    self._routes.forget(key)
                else:
                    self._routes.wish(view(record))
            except Exception:
                log.exception("deciding for route %s failed; the others go on", key)

    # Budgets

    def budget_figures(self) -> dict[str, BudgetFigures]:
        """Every budget that was judged, for metrics."""
        found = {}
        for name, record in self._cache.budgets.items():
            verdict = self._energy.verdict(name)
            if verdict is not None and record.spec is not None:
                shed = len(self._planner.budget(name, record.spec, None).shed)
                tightest = verdict.tightest
                found[name] = BudgetFigures(
                    tightest.limit, tightest.used, tightest.projected, verdict.within, verdict.feasible, shed
                )
        return found

    def _decide_budgets(self) -> None:
        dirty, self._cache.dirty_budgets = self._cache.dirty_budgets, set()
        for name in sorted(dirty):
            record = self._cache.budgets.get(name)
            if record is None:
                self._budgets.forget(name)
            else:
                refusal = record.refusal or self._energy.refusal(name)
                view = self._planner.budget(name, record.spec if refusal is None else None, refusal)
                self._budgets.wish(name, *budget_status(replace(view, verdict=self._energy.verdict(name))))


def _plainly(record: RouteRecord) -> RouteView:
    return RouteView(record.key, record.spec, record.refusal)


def now_text() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
