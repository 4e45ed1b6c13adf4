"""Servers being filled: what is on each, what room is left, what one more replica would take. For simple planners."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.planning import law
from tests.planning.judge import recomputed_watts
from tests.planning.law import Law, Use

from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica, ServerKey
from ergon.planning import Load, Plan

LEAST_SLICE = 0.02
"""A busy share that is worth a replica, where more is left to serve."""


@dataclass(frozen=True, slots=True)
class Part:
    """A replica's variant, how it runs, and its busy share."""

    variant: str
    use: Use
    busy: float


@dataclass(slots=True)
class Server:
    """One server and what is on it."""

    key: ServerKey
    free_bytes: int
    free_places: float
    parts: dict[ModelKey, Part] = field(default_factory=dict)
    busy: float = 0.0
    rho: float = math.inf
    step: float = 0.0

    def recount(self) -> None:
        """Busy share, the least rho and the highest step, from what is left."""
        serving = [part for part in self.parts.values() if part.busy > 0]
        self.busy = math.fsum(part.busy for part in serving)
        self.rho = min((part.use.rho for part in serving), default=math.inf)
        self.step = max((part.use.awake_watts - part.use.idle_watts for part in serving), default=0.0)


@dataclass(frozen=True, slots=True)
class Option:
    """A server that can take a replica with a busy share, and the watts that adds."""

    server: Server
    pool: Pool
    variant: str
    use: Use
    busy: float
    added_watts: float

    @property
    def work_per_second(self) -> float:
        """What the replica would serve."""
        return self.busy * (self.use.work_per_second or 0.0)


class State:
    """All servers of a fleet. Pools open their servers from the lowest ordinal on."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.known = fleet, Law(fleet)
        hopeless = [limit for limit in fleet.watt_limits if law.hopeless_watts(limit, fleet) > 0]
        self.closed = {name for limit in hopeless for name in law.pools_in(limit, fleet)}
        self.limits = [(limit, law.pools_in(limit, fleet), law.models_in(limit, fleet)) for limit in fleet.watt_limits]
        self.limits = [entry for entry in self.limits if entry[0] not in hopeless]
        self.servers: dict[str, list[Server]] = {
            pool.name: [
                Server(ServerKey(pool.name, ordinal), pool.memory_bytes, pool.max_models or math.inf)
                for ordinal in range(pool.servers_max)
                if ordinal not in pool.unavailable
            ]
            for pool in fleet.pools
        }
        self.open: dict[str, int] = dict.fromkeys(self.servers, 0)
        self.drawn = [self._sunk(pools, models) for _, pools, models in self.limits]

    def _sunk(self, pools: frozenset[str], models: frozenset[ModelKey] | None) -> float:
        return 0.0 if models is not None else math.fsum(law.sunk_watts(self.known.pools[name]) for name in pools)

    def options(self, model: Model, wanted: float) -> Iterator[Option]:
        """Servers that can take one more replica of the model, serving up to `wanted` work per second."""
        for variant, name, use in self.known.candidates[model.key]:
            pool, servers = self.known.pools[name], self.servers[name]
            if name in self.closed or (wanted > 0 and use.work_per_second is None):
                continue
            revision = next(v.load_revision for v in model.variants if v.name == variant)
            for server in servers[: self.open[name] + 1]:
                if server.free_bytes < use.memory_bytes or server.free_places < 1 or model.key in server.parts:
                    continue
                if (model.key, revision, server.key) in self.fleet.refused:
                    continue
                share = wanted / use.work_per_second if use.work_per_second else 0.0
                busy = min(share, min(use.rho, server.rho) - server.busy)
                if wanted > 0 and busy < min(share, LEAST_SLICE):
                    continue
                option = self._within_limits(model.key, Option(server, pool, variant, use, max(0.0, busy), 0.0))
                if option is not None:
                    yield option

    def _within_limits(self, model: ModelKey, option: Option) -> Option | None:
        standing, slope = self._added(option)
        busy = option.busy
        for (limit, pools, models), drawn in zip(self.limits, self.drawn, strict=True):
            if option.pool.name not in pools or (models is not None and model not in models):
                continue
            room = (law.LIMIT_SHARE * limit.watts) * (1 - 1e-10) - drawn - (standing if models is None else 0.0)
            if room < 0:
                return None
            if slope * busy > room:
                busy = room / slope
        if option.busy > 0 and busy < min(option.busy, LEAST_SLICE):
            return None
        return Option(option.server, option.pool, option.variant, option.use, busy, standing + slope * busy)

    def _added(self, option: Option) -> tuple[float, float]:
        """Watts that one more replica adds at once, and by busy share."""
        pool, use = option.pool, option.use
        now, then = self.count(pool), max(self.count(pool), option.server.key.ordinal + 1)
        standing = law.standing_watts(pool, then) - law.standing_watts(pool, now) if then > now else 0.0
        step = max(0.0, use.awake_watts - use.idle_watts - option.server.step) if option.busy > 0 else 0.0
        return pool.pue * (standing + step), pool.pue * (use.watts - use.awake_watts)

    def count(self, pool: Pool) -> int:
        """Servers that the pool runs now."""
        opened = self.open[pool.name]
        return max(pool.servers_min, self.servers[pool.name][opened - 1].key.ordinal + 1 if opened else 0)

    def take(self, model: ModelKey, option: Option) -> None:
        """Put the replica there."""
        for number, (_, pools, models) in enumerate(self.limits):
            if option.pool.name in pools and (models is None or model in models):
                slope = option.pool.pue * (option.use.watts - option.use.awake_watts) * option.busy
                self.drawn[number] += option.added_watts if models is None else slope
        server = option.server
        self.put(server, model, Part(option.variant, option.use, option.busy))
        self.open[option.pool.name] = max(self.open[option.pool.name], self.servers[option.pool.name].index(server) + 1)

    def put(self, server: Server, model: ModelKey, part: Part) -> None:
        """Put a part on a server, limits left aside."""
        server.parts[model] = part
        server.free_bytes -= part.use.memory_bytes
        server.free_places -= 1
        server.recount()

    def remove(self, server: Server, model: ModelKey) -> Part:
        """Take a part off a server, limits left aside."""
        part = server.parts.pop(model)
        server.free_bytes += part.use.memory_bytes
        server.free_places += 1
        server.recount()
        return part

    def plan(self) -> Plan:
        """What is placed, as a plan; it explains nothing."""
        placements: dict[ModelKey, list[Replica]] = {key: [] for key in self.known.models}
        made = Plan(servers={pool.name: self.count(pool) for pool in self.fleet.pools})
        for servers in self.servers.values():
            for server in servers:
                for key, part in server.parts.items():
                    replica = Replica(key, part.variant, server.key)
                    placements[key].append(replica)
                    work = part.busy * (part.use.work_per_second or 0.0)
                    known = "profile" if part.use.work_per_second is not None else "assumed"
                    made.loads[replica] = Load(work, part.busy, part.use.memory_bytes, part.use.batch, known)
        for key, model in self.known.models.items():
            made.placements[key] = tuple(placements[key])
            self._shortfall(made, key, model)
        return self._with_figures(made)

    def _shortfall(self, made: Plan, key: ModelKey, model: Model) -> None:
        least, _ = law.least_and_most(model)
        if len(made.placements[key]) < least:
            made.missing_replicas[key] = least - len(made.placements[key])
        demand = law.demand_of(self.fleet, key)
        served = math.fsum(made.loads[replica].work_per_second for replica in made.placements[key])
        if demand - served > 1e-9 * demand:
            made.unserved[key] = demand - served

    def _with_figures(self, made: Plan) -> Plan:
        watts = recomputed_watts(self.fleet, made, self.known)
        pools = self.known.pools
        hopeless = {limit.name: law.hopeless_watts(limit, self.fleet) for limit in self.fleet.watt_limits}
        return Plan(
            placements=made.placements,
            servers=made.servers,
            missing_replicas=made.missing_replicas,
            loads=made.loads,
            unserved=made.unserved,
            over_limit_watts={name: above for name, above in hopeless.items() if above > 0},
            watts=math.fsum(watts.values()),
            price_per_hour=math.fsum(
                pool.price_per_server_hour * law.running(pool, made.servers[name]) for name, pool in pools.items()
            ),
            grams_per_hour=math.fsum(watts[name] / 1000 * pool.grams_per_kilowatt_hour for name, pool in pools.items()),
        )
