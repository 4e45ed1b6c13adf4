"""From the cache to a plan: takes the snapshot, has it planned off the event loop, and remembers what stands."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.budget import Needs
from ergon.engine.cache import Cache
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.engine.needs import held_to, left_out, needs_of, outright, with_left_out, with_plan, without
from ergon.engine.servers import Servers
from ergon.engine.settings import Settings
from ergon.fleet.types import Fleet, Model, ModelKey, Replica, ServerKey
from ergon.planning import Alternative, Effort, Plan
from ergon.reconcile import rearranging
from ergon.reconcile.budgets import BudgetView, scope_of, shed_in
from ergon.reconcile.observed import Refusal

log = logging.getLogger("ergon.planner")


RETRY_SECONDS = 5.0
STAGE_SECONDS = 5.0
"""Of quiet between the stages of a rearrangement that has begun."""
EXPLAINED_AT_ONCE = 2000
"""Models times pools up to which all verdicts are compared with each plan: about half a second of a core."""
IMPROVING_AT_MOST = 20.0
"""Times what the last search for better places took that the next one waits: however large the fleet, 5 % of a core."""

_Failing = tuple[frozenset[tuple[ModelKey, str, ServerKey]], frozenset[tuple[ModelKey, str, ServerKey]]]
"""What must not be sent to a server again, and what keeps failing there."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A plan, and what it was made from."""

    plan: Plan
    changed: set[ModelKey]
    improves: bool
    improvable: bool
    needs: Mapping[str, Needs]
    outright: frozenset[str]
    snapshot: Fleet
    version: int
    demand: int
    budgets: int
    failing: _Failing
    seconds: float


class Planner:
    """Holds the current plan. The first plan after a start is made from what statuses and servers say, so that nothing moves."""

    def __init__(
        self,
        cache: Cache,
        servers: Servers,
        demand: DemandKeeper,
        energy: EnergyKeeper,
        settings: Settings,
        now: Callable[[], float],
        observe: Callable[[str, float], None],
    ) -> None:
        self._cache = cache
        self._now = now
        self._observe = observe
        self._making: asyncio.Task[_Made] | None = None
        self._abandoned: asyncio.Task[_Made] | None = None
        self._improving = False
        self._retry_at = self._changed_at = self._improve_not_before = 0.0
        self._improvable = self._rearranging = False
        self._servers = servers
        self._demand = demand
        self._energy = energy
        self._operator_namespace = settings.operator_namespace
        self._improve_after_seconds = settings.improve_after_seconds
        self._plan: Plan | None = None
        self._outright: frozenset[str] = frozenset()
        self._found: dict[ModelKey, tuple[int, int]] | None = None
        self._snapshot: Fleet | None = None
        self._planned_version = self._planned_demand = self._planned_budgets = -1
        self._unavailable: dict[str, frozenset[int]] = {}
        self._failing: _Failing = (frozenset(), frozenset())
        self._on_pool: dict[str, list[Replica]] = {}
        self._on_server: dict[ServerKey, list[ModelKey]] = {}
        self._used_bytes: dict[str, int] = {}

    @property
    def outdated(self) -> bool:
        """Whether what the plan was made from has changed."""
        return (
            self._planned_version != self._cache.plan_version
            or self._planned_demand != self._demand.version
            or self._planned_budgets != self._energy.version
            or self._now_failing() != self._failing
        )

    @property
    def busy(self) -> bool:
        """Whether a plan is being made."""
        return self._making is not None

    @property
    def made_once(self) -> bool:
        """Whether there is a plan."""
        return self._plan is not None

    @property
    def short(self) -> bool:
        """Whether the plan has no room for something."""
        return self._plan is not None and self._plan.short

    def knows(self, key: ModelKey) -> bool:
        """Whether the plan was made with this model in it."""
        return self._plan is not None and key in self._plan.placements

    def placements(self, key: ModelKey) -> tuple[Replica, ...]:
        """Where the model's replicas belong."""
        return self._plan.placements.get(key, ()) if self._plan is not None else ()

    def missing(self, key: ModelKey) -> int:
        """Replicas that could not be placed."""
        return self._plan.missing_replicas.get(key, 0) if self._plan is not None else 0

    def alternatives(self, key: ModelKey) -> tuple[Alternative, ...]:
        """Why here, and why not there."""
        return self._plan.alternatives.get(key, ()) if self._plan is not None else ()

    def servers(self, pool: str) -> int | None:
        """How many servers of the pool are on in the plan; None before the first."""
        return self._plan.servers.get(pool) if self._plan is not None else None

    def on_pool(self, pool: str) -> list[Replica]:
        """All replicas planned on a pool."""
        return self._on_pool.get(pool, [])

    def on_server(self, server: ServerKey) -> list[ModelKey]:
        """All models planned on a server."""
        return self._on_server.get(server, [])

    def used_bytes(self, pool: str) -> int:
        """Memory that the planned replicas of a pool declare."""
        return self._used_bytes.get(pool, 0)

    def budget(self, name: str, spec: EnergyBudgetSpec | None, refusal: Refusal | None) -> BudgetView:
        """A budget beside the plan."""
        if spec is None or self._plan is None or self._snapshot is None:
            return BudgetView(spec, refusal)
        shed = shed_in(scope_of(name, spec), self._snapshot, self._plan)
        return BudgetView(spec, refusal, over_watts=self._plan.over_limit_watts.get(name, 0.0), shed=shed)

    def set_unavailable(self, pool: str, ordinals: frozenset[int]) -> None:
        """Ordinals the next plan goes round."""
        if self._unavailable.get(pool, frozenset()) != ordinals:
            self._unavailable[pool] = ordinals
            self._cache.wake(plan=True)

    def begin(self) -> None:
        """Have a plan made in a thread, if one is due and none is under way; the loop is woken when it is there.

        What changed is mended at once and in little time, hardly anything moves; better places are sought when all is quiet.
        """
        if self._making is not None and self._improving and self.outdated:
            self._abandoned, self._making = self._making, None  # its thread ends by itself; what it finds is out of date
        if self._making is not None or self._now() < self._retry_at:
            return
        improve = self._plan is not None and self._improvable and self._quiet()
        if not self.outdated and not (improve and (self._abandoned is None or self._abandoned.done())):
            return
        self._improving = improve = improve and not self.outdated
        version, demand, budgets = self._cache.plan_version, self._demand.version, self._energy.version
        failing, limits = self._now_failing(), self._energy.limits()
        scopes = {name: budget.spec for name, budget in self._cache.budgets.items() if budget.spec is not None}
        snapshot = self._take_snapshot(failing)
        how = _How(improve, self._demand.settled and version == self._planned_version, self._moving())

        async def make() -> _Made:
            began = self._now()
            parts = await asyncio.to_thread(_make, snapshot, self._plan, how, scopes, limits, self._outright)
            new, changed, better, needs, outright = parts
            seconds = self._now() - began
            return _Made(new, changed, improve, better, needs, outright, snapshot, version, demand, budgets, failing, seconds)

        self._making = asyncio.create_task(make(), name="plan")
        self._making.add_done_callback(lambda _: self._cache.changed.set())

    async def settle(self, seconds: float) -> set[ModelKey]:
        """Wait so long for the plan under way; once it is there, take it over. The models whose part of it changed."""
        if self._making is None:
            return set()
        await asyncio.wait({self._making}, timeout=seconds)
        if not self._making.done():
            return set()
        made, self._making = self._making, None
        try:
            return self._take(made.result())
        except Exception:
            log.exception("no plan could be made; the last one stands, and another is tried in %g s", RETRY_SECONDS)
            self._retry_at = self._now() + RETRY_SECONDS
            return set()

    async def close(self) -> None:
        """Stop planning."""
        tasks = {task for task in (self._making, self._abandoned) if task is not None}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _quiet(self) -> bool:
        """Whether nothing has changed for a while, and nothing is on its way."""
        under_way = bool(self._moving())
        soon = self._rearranging or self.short
        enough = min(STAGE_SECONDS, self._improve_after_seconds) if soon else self._improve_after_seconds
        now = self._now()
        return not under_way and now - self._changed_at >= enough and now >= self._improve_not_before

    def _moving(self) -> frozenset[ModelKey]:
        """Models of which a replica is on its way, in or out."""
        return frozenset(
            key
            for agent in self._servers.all()
            for key, facts in agent.facts.items()
            if facts.job is not None or facts.drain is not None
        )

    def _take(self, made: "_Made") -> set[ModelKey]:
        old, new = self._plan, made.plan
        if self._planned_version != made.version or made.improves or (old is not None and old.placements != new.placements):
            self._changed_at = self._now()
        if made.improves:
            self._improve_not_before = self._now() + IMPROVING_AT_MOST * made.seconds
        self._rearranging = made.improves and made.improvable
        self._plan, self._planned_version, self._failing, self._improvable = new, made.version, made.failing, made.improvable
        self._planned_demand, self._planned_budgets = made.demand, made.budgets
        self._outright = made.outright
        self._demand.planned(new)
        self._energy.planned(made.needs)
        self._observe("plan", made.seconds)
        self._snapshot = made.snapshot
        self._index(made.snapshot)
        for note in new.notes if old is None or new.notes != old.notes else ():
            log.info("the plan: %s", note)
        if old is None:
            return set(self._cache.models) | self._servers.models()
        self._say(old, new)
        return made.changed

    def _now_failing(self) -> _Failing:
        return self._servers.refused(), self._servers.avoided()

    def _take_snapshot(self, failing: _Failing) -> Fleet:
        pools = tuple(
            replace(record.pool, unavailable=self._unavailable.get(name, frozenset()))
            for name, record in self._cache.pools.items()
            if record.pool is not None
        )
        standing = self._servers.standing(record.model for record in self._cache.models.values() if record.model is not None)
        current = self._current(standing)
        models = tuple(
            self._demand.corrected(self._as_found(self._woken(record.model), current))
            for record in self._cache.models.values()
            if record.model is not None
        )
        return Fleet(
            pools,
            models,
            dict(self._cache.namespaces),
            self._operator_namespace,
            tuple(current),
            failing[0],
            demand=self._demand.work_per_second(),
            avoided=failing[1],
            leaving=self._leaving(current, standing),
            peaks=self._demand.peaks(),
            measured=self._servers.measured.known(models),
        )

    def _woken(self, model: Model) -> Model:
        """The model as it is planned: with a replica at least, unless it sleeps."""
        may_sleep = model.min_replicas == 0 and model.fixed_replicas is None
        return replace(model, min_replicas=1) if may_sleep and not self._demand.asleep(model.key) else model

    def _leaving(self, current: list[Replica], standing: Mapping[ModelKey, list[Replica]]) -> tuple[Replica, ...]:
        """Replicas that are loaded and belong nowhere any more: they take their room until they are gone."""
        if self._plan is None:
            return ()
        wanted = set(current)
        return tuple(replica for replicas in standing.values() for replica in replicas if replica not in wanted)

    def _as_found(self, model: Model, current: list[Replica]) -> Model:
        """A model with no fewer replicas than stood when this process began, until it knows what is asked of it.

        Only as long as nobody changes the model: then its spec speaks for itself.
        """
        if self._found is None:
            standing = Counter(replica.model for replica in current)
            records = self._cache.models
            self._found = {key: (records[key].generation, count) for key, count in standing.items() if key in records}
        generation, replicas = self._found.get(model.key, (-1, 0))
        if self._demand.settled or model.generation != generation or model.fixed_replicas is not None:
            return model
        if self._demand.asleep(model.key):
            return model
        held = replicas if model.max_replicas is None else min(replicas, model.max_replicas)
        return replace(model, min_replicas=max(model.min_replicas, held))

    def _current(self, standing: Mapping[ModelKey, list[Replica]]) -> list[Replica]:
        """Where replicas are: by the last plan, and for models it does not know by their servers and their status."""
        current: list[Replica] = []
        for key, record in self._cache.models.items():
            placed = self._plan.placements.get(key) if self._plan is not None else None
            if placed or (placed is not None and (not record.may_sleep or self._demand.asleep(key))):
                current += placed
            elif record.model is not None:
                current += (loaded := standing[key])
                known = {replica.server for replica in loaded}
                for placement in record.status.get("placements") or ():
                    server = ServerKey(placement["pool"], placement["server"])
                    if server not in known and placement["state"] != "Draining":
                        current.append(Replica(key, placement["variant"], server))
        return current

    def _index(self, snapshot: Fleet) -> None:
        assert self._plan is not None
        memory = {(m.key, v.name): v.memory_bytes for m in snapshot.models for v in m.variants}
        self._on_pool, self._on_server, self._used_bytes = {}, {}, {}
        for replicas in self._plan.placements.values():
            for replica in replicas:
                pool = replica.server.pool
                self._on_pool.setdefault(pool, []).append(replica)
                self._on_server.setdefault(replica.server, []).append(replica.model)
                self._used_bytes[pool] = self._used_bytes.get(pool, 0) + memory.get((replica.model, replica.variant), 0)

    def _say(self, old: Plan, new: Plan) -> None:
        for key, replicas in new.placements.items():
            before = old.placements.get(key, ())
            if replicas == before or not replicas:
                continue
            where = ", ".join(f"{replica.server} ({replica.variant})" for replica in replicas)
            was = ", ".join(str(replica.server) for replica in before)
            log.info("%s is placed on %s%s", key, where, f", before on {was}" if was else "")


@dataclass(frozen=True, slots=True)
class _How:
    """How a plan is to be made. `lean`: what nothing needs may go; not while a spec has just changed, or demand is not known."""

    improve: bool
    lean: bool
    moving: frozenset[ModelKey]


def _make(
    fleet: Fleet,
    old: Plan | None,
    how: _How,
    budgets: Mapping[str, EnergyBudgetSpec],
    limits: Mapping[str, float | None],
    outright_before: frozenset[str],
) -> tuple[Plan, set[ModelKey], bool, Mapping[str, Needs], frozenset[str]]:
    """A plan, the models whose part of it differs from the old one, whether a better one may be found later, what each budget's
    scope asks for, and the budgets that have room for nothing but what is protected.

    Improving goes by stages: so many moves at once, each before what it replaces goes, and the next when all is quiet again.
    """
    needs = needs_of(fleet, budgets)
    full = outright(budgets, limits, needs, outright_before)
    whole, shed = fleet, left_out(fleet, budgets, full)
    fleet = without(replace(fleet, watt_limits=held_to(budgets, limits, needs)), shed)
    if how.improve:
        way = rearranging.improve(fleet, old, Effort.normal(), how.moving)
        new, improvable = way.plan, way.moving
    else:
        new, improvable = rearranging.mend(fleet, old, how.moving, lean=how.lean), True
    new = with_left_out(new, whole, shed, budgets)
    needs = {name: with_plan(need, budgets[name], name, whole, new) for name, need in needs.items()}
    changed = _changed(whole, new, old, how.improve) if old is not None else set()
    return new, changed, improvable, needs, full


def _changed(fleet: Fleet, new: Plan, old: Plan, improve: bool) -> set[ModelKey]:
    """The models whose part of the plan differs; of a large fleet those that move or lack something, and all when all is quiet.

    Why each model is where it is takes ten times as long to say as to plan: it is said here, beside the loop.
    """
    keys = {*new.placements, *old.placements}
    if len(fleet.models) * len(fleet.pools) <= EXPLAINED_AT_ONCE:
        return {key for key in keys if _part(new, key) != _part(old, key)}
    if improve:
        for key in new.placements:
            _part(new, key)
        return keys
    changed = {key for key in keys if new.placements.get(key) != old.placements.get(key)}
    changed |= {*new.missing_replicas, *old.missing_replicas, *new.unserved, *old.unserved} & keys
    for key in changed:
        _part(new, key)
    return changed


def _part(plan: Plan, key: ModelKey) -> tuple[object, ...]:
    """What a model's status tells of a plan; figures in messages are none of it."""
    verdicts = [(a.pool, a.variant, a.verdict, a.reason) for a in plan.alternatives.get(key, ())]
    return plan.placements.get(key), plan.missing_replicas.get(key), verdicts
