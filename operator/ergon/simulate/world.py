"""The fleet as it stands at a moment: nodes, servers and replicas, what they do next, and the power of all that is on.

The rules are the operator's: a replica is fetched, loaded, then answers; one that is no longer wanted serves until all that are
wanted of its model answer, leaves traffic, and stays loaded until it has been quiet; a pool drops only empty servers. A server
takes bootDelay to come; one that is given back draws its host and idle watts for offDelay more, and can be had again meanwhile.
"""

import math
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from ergon.fleet.types import Fleet, ModelKey, Pool, ServerKey
from ergon.fleet.types import Replica as Wanted
from ergon.simulate.curves import Place
from ergon.simulate.policies.base import Target
from ergon.simulate.settings import Settings

DRAIN_POLL_SECONDS = 1.0


class Power(IntEnum):
    """Of a server."""

    OFF = 0
    BOOTING = 1
    ON = 2
    STOPPING = 3


class State(IntEnum):
    """Of a replica."""

    PENDING = 0
    FETCHING = 1
    LOADING = 2
    READY = 3
    DRAINING = 4


Asked = tuple[float, float, int]
"""A request: when it came, its work, and the number of the model it asked for."""


class Server:
    """A server; the second half is what executes on it, kept by request mode.

    `virtual`: seconds of unhindered work that everything executing has been given so far. `speed`: how fast that grows.
    """

    __slots__ = (
        "awake", "awake_joules", "batches", "event", "execution_joules", "flowing", "key", "last", "loading", "ordinal", "pool",
        "power", "replicas", "slope", "speed", "used_bytes", "version", "virtual",
    )  # fmt: skip

    def __init__(self, pool: int, key: ServerKey) -> None:
        self.pool, self.key, self.ordinal = pool, key, key.ordinal
        self.power = Power.OFF
        self.version = 0
        self.replicas: dict[int, Replica] = {}
        self.used_bytes = 0
        self.loading = 0
        self.virtual = self.last = 0.0
        self.speed = 1.0
        self.awake = self.slope = 0.0
        self.awake_joules = self.execution_joules = 0.0
        self.batches: list[tuple[float, int, Replica, int, list[Asked]]] = []
        self.flowing: list[Replica] = []
        self.event = 0


class Replica:
    """A model's variant on one server, and the requests it has."""

    __slots__ = (
        "answered", "busy_seconds", "flow", "in_flight", "joules", "model", "outstanding", "place", "rate", "running", "server",
        "state", "timer", "version", "virtual", "waiting", "wanted",
    )  # fmt: skip

    def __init__(self, model: int, place: Place, server: Server, wanted: Wanted) -> None:
        self.model, self.place, self.server, self.wanted = model, place, server, wanted
        self.state = State.PENDING
        self.version = 0
        self.waiting: deque[Asked] = deque()
        self.running = 0
        self.in_flight = 0
        self.outstanding = 0
        self.answered: deque[tuple[float, int]] = deque()
        self.virtual = self.rate = 0.0
        self.flow: list[tuple[float, int]] = []
        self.busy_seconds = self.joules = 0.0
        self.timer = -math.inf

    @property
    def idle(self) -> bool:
        """Whether no request is here."""
        return not (self.waiting or self.running or self.in_flight)


Timer = Callable[[float, Callable[[float], None]], None]
"""Has a function called at a time, with that time."""


class World:
    """All servers and replicas. `ready[m]`: replicas of the m-th model that take traffic; `changes` counts changes of it."""

    def __init__(
        self, fleet: Fleet, places: dict[tuple[ModelKey, str, str], Place], settings: Settings, now: float, timer: Timer
    ) -> None:
        self.pools: tuple[Pool, ...] = fleet.pools
        self.models = fleet.models
        self._places, self._settings, self._timer = places, settings, timer
        self._pool_of = {pool.name: number for number, pool in enumerate(self.pools)}
        self._model_of = {model.key: number for number, model in enumerate(self.models)}
        self.servers = [
            [Server(p, ServerKey(pool.name, n)) for n in range(pool.servers_max)] for p, pool in enumerate(self.pools)
        ]
        self.ready: list[list[Replica]] = [[] for _ in self.models]
        self.replicas: list[dict[ServerKey, Replica]] = [{} for _ in self.models]
        self._wanted: list[dict[ServerKey, Wanted]] = [{} for _ in self.models]
        self._least: dict[str, int] = {}
        self.alone = False
        count = len(self.pools)
        self.host_joules, self.idle_joules, self.loading_joules = [0.0] * count, [0.0] * count, [0.0] * count
        self.host_watts, self.idle_watts, self.loading_watts = [0.0] * count, [0.0] * count, [0.0] * count
        self._last = now
        self.loads = self.unloads = self.boots = 0
        self.changes = 0
        self.became_ready: Callable[[Replica, float], None] = lambda replica, now: None
        self.gone: Callable[[Replica], None] = lambda replica: None
        for p in range(count):
            self._standing(p)

    def begin(self, target: Target, now: float) -> None:
        """Stand as the target says, all ready."""
        self._take(target)
        for m, wanted in enumerate(self._wanted):
            for key, replica in wanted.items():
                made = self._make(m, key, replica)
                if made is None:
                    continue
                made.server.power = Power.ON
                made.state = State.READY
                self.ready[m].append(made)
        for p, pool in enumerate(self.pools):
            for server in self.servers[p][: max(self._count(p), pool.servers_min)] if not self.alone else ():
                server.power = Power.ON
            self._standing(p)

    def apply(self, target: Target, now: float) -> None:
        """Go towards a target from now on."""
        self._take(target)
        self._settle(now)

    def advance(self, now: float) -> None:
        """Count host, idle and loading energy up to now."""
        passed = now - self._last
        if passed <= 0:
            return
        self._last = now
        for p in range(len(self.pools)):
            self.host_joules[p] += self.host_watts[p] * passed
            self.idle_joules[p] += self.idle_watts[p] * passed
            self.loading_joules[p] += self.loading_watts[p] * passed

    @property
    def present(self) -> frozenset[Wanted]:
        """Replicas that serve, or served and are not gone yet."""
        return frozenset(r.wanted for mine in self.replicas for r in mine.values() if r.state >= State.READY)

    @property
    def moving(self) -> frozenset[ModelKey]:
        """Models of which a replica is neither at rest nor serving."""
        return frozenset(
            model.key
            for model, mine in zip(self.models, self.replicas, strict=True)
            if any(r.state is not State.READY for r in mine.values())
        )

    def servers_on(self, p: int) -> int:
        """Servers of a pool that draw power."""
        return sum(server.power is not Power.OFF for server in self.servers[p])

    def _take(self, target: Target) -> None:
        self._least = dict(target.servers)
        for m, model in enumerate(self.models):
            self._wanted[m] = {replica.server: replica for replica in target.placements.get(model.key, ())}

    def _make(self, m: int, key: ServerKey, wanted: Wanted) -> Replica | None:
        place = self._places.get((wanted.model, wanted.variant, key.pool))
        p = self._pool_of.get(key.pool)
        if place is None or p is None or key.ordinal >= len(self.servers[p]):
            return None
        server = self.servers[p][key.ordinal]
        made = Replica(m, place, server, wanted)
        server.replicas[m] = made
        server.used_bytes += place.memory_bytes
        self.replicas[m][key] = made
        return made

    def _settle(self, now: float) -> None:
        """Do all that can be done now, until nothing more can."""
        self.advance(now)
        for m in range(len(self.models)):
            self._settle_model(m, now)
        for p in range(len(self.pools)):
            self._settle_pool(p, now)
            self._standing(p)

    def _settle_model(self, m: int, now: float) -> None:
        wanted, mine = self._wanted[m], self.replicas[m]
        for key, replica in wanted.items():
            there = mine.get(key)
            if there is None:
                if self._has_room(key, replica):
                    self._make(m, key, replica)
            elif there.wanted.variant == replica.variant and there.state is State.DRAINING:
                there.state = State.READY
                there.version += 1
                self.ready[m].append(there)
                self.changes += 1
        serving = sum(r.state is State.READY for r in mine.values())
        for key, here in sorted(mine.items(), reverse=True):
            if here.wanted == wanted.get(key):
                self._bring_up(here, now)
            elif here.state < State.READY:
                self._remove(here)
            elif here.state is State.READY and serving > len(wanted) - (key in wanted):
                self._drain(here, now)
                serving -= 1

    def _has_room(self, key: ServerKey, wanted: Wanted) -> bool:
        place = self._places.get((wanted.model, wanted.variant, key.pool))
        p = self._pool_of.get(key.pool)
        if place is None or p is None or key.ordinal >= len(self.servers[p]):
            return False
        pool, server = self.pools[p], self.servers[p][key.ordinal]
        fits = server.used_bytes + place.memory_bytes <= pool.memory_bytes
        return fits and (pool.max_models is None or len(server.replicas) < pool.max_models)

    def _bring_up(self, replica: Replica, now: float) -> None:
        server = replica.server
        if replica.state is not State.PENDING or server.power is not Power.ON:
            return
        replica.state = State.FETCHING
        self.loads += 1
        version, size = replica.version, replica.place.memory_bytes

        def fetched(at: float) -> None:
            if replica.version == version and replica.state is State.FETCHING:
                self.advance(at)
                replica.state = State.LOADING
                server.loading += 1
                self._standing(server.pool)
                self._timer(at + self._settings.loading_seconds(size), loaded)

        def loaded(at: float) -> None:
            if replica.version == version and replica.state is State.LOADING:
                self.advance(at)
                server.loading -= 1
                replica.state = State.READY
                self.ready[replica.model].append(replica)
                self.changes += 1
                self.became_ready(replica, at)
                self._settle(at)

        self._timer(now + self._settings.fetch_seconds(size), fetched)

    def _drain(self, replica: Replica, now: float) -> None:
        replica.state = State.DRAINING
        replica.version += 1
        self.ready[replica.model].remove(replica)
        self.changes += 1
        version = replica.version
        ends = now + self.pools[replica.server.pool].drain_timeout_seconds

        def quiet(at: float) -> None:
            if replica.version != version or replica.state is not State.DRAINING:
                return
            if replica.idle or at >= ends + 3600:  # Triton finishes what it has, also past the timeout
                self._remove(replica)
                self._settle(at)
            else:
                self._timer(at + DRAIN_POLL_SECONDS, quiet)

        self._timer(now + min(self._settings.quiet_seconds, ends - now), quiet)

    def _remove(self, replica: Replica) -> None:
        server = replica.server
        if replica.state is State.LOADING:
            server.loading -= 1
        if replica.state >= State.FETCHING:
            self.unloads += 1
        replica.version += 1
        self.gone(replica)
        del server.replicas[replica.model]
        del self.replicas[replica.model][server.key]
        server.used_bytes -= replica.place.memory_bytes

    def _count(self, p: int) -> int:
        """How many servers of a pool are to be on: up to the highest that is wanted or holds anything."""
        pool = self.pools[p]
        wanted = [key.ordinal for mine in self._wanted for key in mine if key.pool == pool.name]
        held = [server.ordinal for server in self.servers[p] if server.replicas]
        highest = max((*wanted, *held), default=-1) + 1
        return min(max(highest, pool.servers_min, self._least.get(pool.name, 0)), pool.servers_max)

    def _settle_pool(self, p: int, now: float) -> None:
        count = self._count(p)
        wanted = {key.ordinal for mine in self._wanted for key in mine if key.pool == self.pools[p].name} if self.alone else set()
        for server in self.servers[p]:
            needed = (server.ordinal in wanted or bool(server.replicas)) if self.alone else server.ordinal < count
            if needed and server.power in (Power.OFF, Power.STOPPING):
                self._start(server, now)
            elif not needed and server.power in (Power.ON, Power.BOOTING):
                self._stop(server, now)

    def _start(self, server: Server, now: float) -> None:
        pool = self.pools[server.pool]
        node_is_up = server.power is Power.STOPPING or any(
            self.servers[server.pool][n].power in (Power.ON, Power.STOPPING) for n in self._neighbours(server)
        )
        server.power = Power.BOOTING
        server.version += 1
        version = server.version
        self.boots += not node_is_up

        def booted(at: float) -> None:
            if server.version == version:
                server.power = Power.ON
                self._settle(at)

        self._timer(now + (self._settings.server_start_seconds if node_is_up else pool.boot_delay_seconds), booted)

    def _neighbours(self, server: Server) -> range:
        per_node = self.pools[server.pool].servers_per_node
        first = server.ordinal // per_node * per_node
        return range(first, min(first + per_node, len(self.servers[server.pool])))

    def _stop(self, server: Server, now: float) -> None:
        server.power = Power.STOPPING
        server.version += 1
        version = server.version

        def off(at: float) -> None:
            if server.version == version:
                self.advance(at)
                server.power = Power.OFF
                self._standing(server.pool)

        self._timer(now + self.pools[server.pool].off_delay_seconds, off)

    def _standing(self, p: int) -> None:
        """Find the standing watts of a pool anew."""
        pool, servers = self.pools[p], self.servers[p]
        on = [server.ordinal for server in servers if server.power is not Power.OFF]
        if pool.scale_in:
            nodes, running = len({ordinal // pool.servers_per_node for ordinal in on}), len(on)
        else:
            nodes, running = math.ceil(pool.servers_max / pool.servers_per_node), pool.servers_max
        self.host_watts[p] = pool.host_watts * nodes
        self.idle_watts[p] = pool.idle_watts * running
        busy = max(pool.busy_watts if pool.busy_watts is not None else pool.idle_watts, pool.idle_watts)
        self.loading_watts[p] = (busy - pool.idle_watts) * sum(server.loading > 0 for server in servers)
