"""From what servers did and meters told to joules by account, and to what each budget leaves: ledger and budgets, fed."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ergon.demand.counters import Window
from ergon.demand.learning import points_for
from ergon.demand.work import counts_tokens, token_work
from ergon.energy.budget import Needs
from ergon.energy.ledger import POOL_ACCOUNTS, Booked, DeviceTick, Ledger, ModelFigures, PoolTick, ReplicaTick, gap_seconds
from ergon.energy.meters import NOTHING, Reading
from ergon.energy.on import OnTracker
from ergon.energy.power import PowerCurve, ReplicaLoad, device_watts, nameplate_watts, power_curve
from ergon.energy.verdict import Verdict
from ergon.engine.booked import BookedCounters
from ergon.engine.budget_book import BudgetBook
from ergon.engine.cache import Cache, PoolRecord
from ergon.engine.demand import Counted
from ergon.engine.kept_energy import read_energy
from ergon.engine.load_seconds import LoadSeconds
from ergon.engine.server import ServerAgent
from ergon.engine.servers import Servers
from ergon.fleet.types import ModelKey, Pool, ServerKey, Variant
from ergon.reconcile.figures import EnergyView, PoolEnergy, energy_status, keep
from ergon.reconcile.observed import Refusal
from ergon.telemetry.figures import PoolFigures

log = logging.getLogger("ergon.energy")

TICK_SECONDS = 10.0
"""Between two bookings: the guard's short mean."""
POOL_READING = "all"
"""The accelerator's name where one query covers a whole pool."""


@dataclass(slots=True)
class _Done:
    """What a replica did since the last booking, and how it last executed."""

    variant: Variant | None = None
    busy_seconds: float = 0.0
    requests: float = 0.0
    work: float = 0.0
    batch: float = 1.0
    loading_seconds: float = 0.0


@dataclass(slots=True)
class _Server:
    """What a server did since the last booking. `read`: whether its statistics were seen in that time. `reaches_back`: it is
    what was done since the last booking of an operator before this one.
    """

    done: dict[ModelKey, _Done] = field(default_factory=dict)
    read: bool = False
    reaches_back: bool = False
    reading: Reading = NOTHING


class EnergyKeeper:
    """Holds the ledger and every budget. `now` is the event loop's clock, `wall_seconds` the time since the epoch."""

    def __init__(
        self,
        cache: Cache,
        servers: Servers,
        now: Callable[[], float],
        wall_seconds: Callable[[], float],
    ) -> None:
        self.ledger = Ledger()
        self.budgets = BudgetBook(cache)
        self._booked_counters = BookedCounters()
        self._unseen_seconds = 0.0
        self.pool_readings: dict[str, Reading] = {}
        self.intensity: dict[str, float] = {}
        self._cache, self._agents = cache, servers
        self._now, self._wall_seconds = now, wall_seconds
        self._servers: dict[ServerKey, _Server] = {}
        self._on: dict[str, OnTracker] = {}
        self._curves: dict[tuple[str, str | None, int], PowerCurve] = {}
        self._booked: dict[str, Booked] = {}
        self._figures: dict[ModelKey, ModelFigures] = {}
        self._told: set[tuple[str, str]] = set()
        self._ticked_at = now()
        self._loads = LoadSeconds()

    @property
    def version(self) -> int:
        """Grows when what a budget leaves has changed enough to plan anew."""
        return self.budgets.version

    @property
    def next_tick_at(self) -> float:
        """When `tick` has something to do again, by the loop's clock."""
        return self._ticked_at + TICK_SECONDS

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what an operator before this one booked, as `to_state` gave it; what cannot be read is left out.

        What was booked since this process began is booked once more from there, by the counters: it is not counted twice.
        """
        kept = read_energy(state)
        if kept.ledger is not None:
            self._ticked_at = self._now()
            self._servers.clear()
            self.ledger = Ledger.from_state(kept.ledger, self._wall_seconds())
            self._booked_counters = BookedCounters.from_state(kept.counters)
            self._unseen_seconds = gap_seconds(kept.ledger, self._wall_seconds())
        self.budgets.restore(kept.budgets)

    def to_state(self) -> dict[str, Any]:
        """What another process needs to go on from the last booking, as `packed` makes JSON of it."""
        booked_at = self._wall_seconds() - (self._now() - self._ticked_at) - self._unseen_seconds
        return {
            "ledger": self.ledger.to_state(booked_at),
            "budgets": self.budgets.to_state(),
            "counters": self._booked_counters.to_state(),
        }

    # In

    def counted(self, agent: ServerAgent, counted: Counted, reading: Reading) -> None:
        """A server was read: what its models did since the last time, and what its own meters say."""
        pool = self._pool(agent.key.pool)
        if pool is None:
            return
        server = self._servers.setdefault(agent.key, _Server())
        server.read, server.reading = True, reading
        before = self._booked_counters.read(agent.key, counted.readings, counted.instances)
        server.reaches_back = server.reaches_back or bool(before)
        for key, window in (dict(counted.windows) | before).items():
            facts, done = agent.facts.get(key), server.done.setdefault(key, _Done())
            variant = self._variant(key, facts.loaded_revision if facts is not None else None)
            instances = facts.instances if facts is not None else 1
            done.variant = variant or done.variant
            # Of the server's time: instances that execute at once keep it busy once.
            done.busy_seconds += window.busy_share(instances) * window.spread_seconds
            done.requests += window.completed
            done.work += _work(window, variant, pool, instances)
            done.batch = window.achieved_batch or done.batch

    def planned(self, needs: Mapping[str, Needs]) -> None:
        """A plan was taken over: what each budget's scope asks for."""
        self.budgets.planned(needs)

    def server_gone(self, server: ServerKey) -> None:
        """A server ended."""
        self._servers.pop(server, None)
        self._booked_counters.server_gone(server)
        self._loads.server_gone(server)

    # Out

    def tick(self) -> bool:
        """Book what happened since the last time, when it is time; whether anything was booked."""
        now = self._now()
        if now < self.next_tick_at:
            return False
        seconds, self._ticked_at = now - self._ticked_at, now
        for server, key, loading_seconds in self._loads.since(self._agents.all(), seconds):
            self._servers.setdefault(server, _Server()).done.setdefault(key, _Done()).loading_seconds += loading_seconds
        pools = [record for record in self._cache.pools.values() if record.pool is not None]
        booked = self.ledger.record([self._pool_tick(record, seconds, now) for record in pools])
        self._booked_counters.book()
        self._unseen_seconds = 0.0
        booked += self.ledger.forget(self._cache.models.keys(), {record.name for record in pools})
        self._booked = {one.pool: one for one in booked}
        self._figures = self.ledger.figures()
        for one in booked:
            for finding in one.findings:
                self._tell_once((finding.device, str(finding.doubt)), f"power of {finding.device}: {finding.message}")
        self.budgets.judge(seconds, booked, self.intensity, self._wall_seconds())
        return True

    def pool(self, name: str) -> PoolEnergy | None:
        """A pool's power; None before anything was booked."""
        booked, accounts = self._booked.get(name), self.ledger.pools.get(name)
        if booked is None or accounts is None:
            return None
        record = self._cache.pools.get(name)
        metered = record is not None and record.spec is not None and record.spec.power.source != "Profile"
        measured = metered and booked.joules > 0 and booked.assumed_joules <= 0.5 * booked.joules
        return PoolEnergy(booked.watts, "measured" if measured else "assumed")

    def model(self, key: ModelKey) -> EnergyView | None:
        """A model's energy for its status; None before it took any."""
        figures, record = self._figures.get(key), self._cache.models.get(key)
        if figures is None or figures.joules <= 0 or record is None or record.model is None:
            return None
        tokens = figures.joules_per_thousand_work if record.model.counts_tokens else None
        return EnergyView(figures.watts, figures.joules_per_request, tokens, str(figures.provenance))

    def pool_figures(self) -> dict[str, PoolFigures]:
        """Every pool's watts and accounts."""
        return {
            name: PoolFigures(
                self._booked[name].watts if name in self._booked else 0.0,
                {account: getattr(accounts, account).joules for account in POOL_ACCOUNTS if account != "device"},
            )
            for name, accounts in self.ledger.pools.items()
        }

    def model_figures(self) -> dict[ModelKey, tuple[float, float]]:
        """Watts of the last hour and joules, by model."""
        return {key: (figures.watts, figures.joules) for key, figures in self._figures.items()}

    def telling(self) -> list[ModelKey]:
        """Models whose status says something else of their energy than what was booked since."""
        found = []
        for key in self._figures:
            view, record = self.model(key), self._cache.models.get(key)
            if view is not None and record is not None:
                new, old = energy_status(view), record.status.get("energy")
                found += [key] if keep(new, old) is not old else []
        return found

    def verdict(self, name: str) -> Verdict | None:
        """What was last decided of a budget."""
        return self.budgets.verdict(name)

    def refusal(self, name: str) -> Refusal | None:
        """Why a budget cannot be held as it is."""
        return self.budgets.refusal(name)

    def limits(self) -> dict[str, float | None]:
        """Watts that each budget leaves its scope; None: nothing binds."""
        return self.budgets.limits()

    # Booking

    def _pool_tick(self, record: PoolRecord, seconds: float, now: float) -> PoolTick:
        pool = record.pool
        assert pool is not None
        pods = [key for key in self._cache.pods if key.pool == pool.name]
        tracker = self._on.setdefault(pool.name, OnTracker(pool.off_delay_seconds))
        tracker.off_delay_seconds = pool.off_delay_seconds
        on = tracker.observe(pool, len(pods), now)
        running = sorted(key for key in pods if self._agents.agent(key) is not None)
        source = record.spec.power.source if record.spec is not None else "Profile"
        devices = [self._device(pool, key, seconds, source) for key in running]
        standing = max(0, on.servers - len(running))
        if source == "Prometheus":
            # The query covers every node of the pool that is on, those of servers that boot or shut down included.
            devices = [self._as_one(pool, devices, standing)] if devices or standing else []
            standing = 0
        return PoolTick(
            pool.name,
            seconds,
            tuple(devices),
            host_watts=pool.host_watts * on.nodes,
            standing_watts=pool.idle_watts * standing,
            pue=pool.pue,
        )

    def _device(self, pool: Pool, key: ServerKey, seconds: float, source: str) -> DeviceTick:
        server = self._servers.get(key) or _Server()
        span = seconds + self._unseen_seconds if server.reaches_back else seconds
        after = self._servers[key] = _Server()
        replicas, loads, variants = [], [], []
        for model, done in server.done.items():
            curve = self._curve(done.variant, pool)
            # Readings do not end where intervals do: what is more than this one holds belongs to the next.
            busy_seconds = min(done.busy_seconds, span)
            if done.busy_seconds > busy_seconds:
                after.done[model] = _Done(done.variant, min(done.busy_seconds - busy_seconds, seconds), batch=done.batch)
            loads.append(ReplicaLoad(busy_seconds / span, done.batch, curve))
            variants += [done.variant] if done.variant is not None else []
            replicas.append(
                ReplicaTick(
                    model,
                    busy_seconds=busy_seconds,
                    executing_watts=curve.executing_watts(done.batch),
                    requests=done.requests,
                    work=done.work,
                    loading_seconds=done.loading_seconds,
                    load_watts=pool.busy_watts if pool.busy_watts is not None else pool.idle_watts,
                )
            )
        expected = device_watts(pool.idle_watts, loads)
        loading = sum(replica.loading_seconds for replica in replicas)
        if loading > 0:  # a load draws like work, for the time it takes
            most = max(replica.load_watts for replica in replicas)
            expected = max(expected, pool.idle_watts + min(1.0, loading / span) * (most - pool.idle_watts))
        return DeviceTick(
            str(key),
            pool.idle_watts,
            expected,
            tuple(replicas) if server.read else None,
            reading=server.reading if source == "Triton" else None,
            nameplate_watts=nameplate_watts(pool, variants),
            covers_gap=server.reaches_back,
        )

    def _as_one(self, pool: Pool, devices: list[DeviceTick], standing: int) -> DeviceTick:
        """All servers of a pool behind one query, as one device; of them so many that only stand there."""
        nameplates = [*(device.nameplate_watts for device in devices), *[nameplate_watts(pool, ())] * standing]
        known = [most for most in nameplates if most is not None]
        read = [device.replicas for device in devices if device.replicas is not None]
        standing_watts = standing * pool.idle_watts
        return DeviceTick(
            pool.name,
            sum(device.idle_watts for device in devices) + standing_watts,
            sum(device.expected_watts for device in devices) + standing_watts,
            tuple(replica for replicas in read for replica in replicas) if read or not devices else None,
            reading=self.pool_readings.get(pool.name, NOTHING),
            nameplate_watts=sum(known) if len(known) == len(nameplates) else None,
            covers_gap=bool(devices) and all(device.covers_gap for device in devices),
        )

    # What is known

    def _pool(self, name: str) -> Pool | None:
        record = self._cache.pools.get(name)
        return record.pool if record is not None else None

    def _variant(self, key: ModelKey, load_revision: str | None) -> Variant | None:
        record = self._cache.models.get(key)
        return record.model.loaded_as(load_revision) if record is not None and record.model is not None else None

    def _curve(self, variant: Variant | None, pool: Pool) -> PowerCurve:
        place = (pool.name, variant.load_revision if variant is not None else None, pool.generation)
        if place not in self._curves:
            if len(self._curves) > 10_000:
                self._curves.clear()
            self._curves[place] = power_curve(variant, pool)
        return self._curves[place]

    def _tell_once(self, what: tuple[str, str], text: str) -> None:
        if what not in self._told:
            if len(self._told) > 1000:
                self._told.clear()
            self._told.add(what)
            log.warning("%s", text)


def _work(window: Window, variant: Variant | None, pool: Pool, instances: int) -> float:
    """Requests, or for generative models weighted tokens."""
    points = points_for(variant.points, pool.product, pool.accelerator_class) if variant is not None else ()
    return token_work(window, points, instances) if counts_tokens(points) else float(window.completed)
