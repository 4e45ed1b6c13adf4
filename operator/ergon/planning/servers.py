"""The servers while a plan is made: who stands where, what is free, and what one more replica would cost.

The only mutable thing in planning. Servers are numbered across pools; a pool's servers are its ordinals that can be had,
lowest first. Every change can be taken back.
"""

import bisect
from dataclasses import dataclass, field

import numpy as np

from ergon.planning.arrays import Floats, Ints
from ergon.planning.limits import Limit
from ergon.planning.problem import Problem

ROUNDING = 1e-12
"""Busy shares that differ by less are the same."""


@dataclass(frozen=True, slots=True)
class Table:
    """The problem's candidates and pools as plain lists, which are read one number at a time."""

    model: list[int]
    pool: list[int]
    mu: list[float]
    rho: list[float]
    memory: list[float]
    cost: list[float]
    awake: list[float]
    may_carry: list[bool]
    useful: list[bool]
    standing_only: list[bool]
    first: list[int]
    demand: list[float]
    lowest: list[int]
    highest: list[int]
    least: list[int]
    most: list[int]
    per_node: list[int]
    server_cost: list[float]
    node_cost: list[float]
    watt_cost: list[float]
    server_watts: list[float]
    node_watts: list[float]
    pue: list[float]
    slope: list[float]

    @classmethod
    def of(cls, problem: Problem) -> "Table":
        """The lists of a problem."""
        c, on = problem.candidates, problem.on
        return cls(
            model=c.model.tolist(),
            pool=c.pool.tolist(),
            mu=c.mu.tolist(),
            rho=c.rho.tolist(),
            memory=c.memory_bytes.tolist(),
            cost=c.cost.tolist(),
            awake=c.awake_watts.tolist(),
            may_carry=((c.mu > 0) & (problem.demand[c.model] > 0)).tolist(),
            useful=c.useful.tolist(),
            standing_only=c.standing_only.tolist(),
            first=problem.first.tolist(),
            demand=problem.demand.tolist(),
            lowest=np.minimum(problem.lowest, problem.highest).tolist(),
            highest=problem.highest.tolist(),
            least=on.least.tolist(),
            most=on.most.tolist(),
            per_node=on.per_node.tolist(),
            server_cost=on.server_cost.tolist(),
            node_cost=on.node_cost.tolist(),
            watt_cost=on.watt_cost.tolist(),
            server_watts=on.server_watts.tolist(),
            node_watts=on.node_watts.tolist(),
            pue=on.pue.tolist(),
            slope=c.slope_watts.tolist(),
        )


@dataclass(slots=True)
class Servers:
    """Replicas on servers. `homes[m]`: server to candidate; `residents[s]`: model to candidate; `share[m]`: server to busy share.

    `limit` is the least rho of a server's replicas of models with demand, whether they carry some now or not, so that a plan's
    shares can be found again from its replicas; `awake` its watts above idle. `total` is J of what executes
    and of servers in use, `opening` that of one more server of each pool, `drawn` the watts in the scope of each limit.
    """

    problem: Problem
    table: Table
    start: list[int]
    free_bytes: Floats
    free_slots: Floats
    load: Floats
    limit: Floats
    awake: Floats
    homes: list[dict[int, int]]
    share: list[dict[int, float]]
    residents: list[dict[int, int]]
    count: Ints
    occupied: list[int]
    pool_of: list[int]
    limits: tuple[Limit, ...] = ()
    drawn: list[float] = field(default_factory=list)
    opening: Floats = field(default_factory=lambda: np.zeros(0))
    total: float = 0.0
    journal: list[tuple[int, int, int, float]] = field(default_factory=list)

    @classmethod
    def empty(cls, problem: Problem, limits: tuple[Limit, ...]) -> "Servers":
        """All servers, with nothing on them."""
        counts = problem.on.most
        start = [0, *np.cumsum(counts).tolist()]
        total = start[-1]
        made = cls(
            problem=problem,
            table=Table.of(problem),
            start=start,
            free_bytes=np.repeat(problem.on.memory_bytes, counts),
            free_slots=np.repeat(problem.on.slots.astype(float), counts),
            load=np.zeros(total),
            limit=np.full(total, np.inf),
            awake=np.zeros(total),
            homes=[{} for _ in problem.models],
            share=[{} for _ in problem.models],
            residents=[{} for _ in range(total)],
            count=np.zeros(total, np.int64),
            occupied=[0] * len(problem.pools),
            pool_of=np.repeat(np.arange(len(counts)), counts).tolist(),
            limits=limits,
            drawn=[limit.always_watts for limit in limits],
        )
        made.total = sum(made.cost_of_count(p, 0) for p in range(len(problem.pools)))
        made.opening = np.array([made.cost_of_one_more(p) for p in range(len(problem.pools))])
        return made

    def put(self, c: int, s: int, u: float) -> None:
        """Place a replica with that busy share."""
        table = self.table
        m = table.model[c]
        if not self.residents[s]:
            self._switch(self.pool_of[s], 1)
        self.homes[m][s] = c
        self.share[m][s] = u
        self.residents[s][m] = c
        self.free_bytes[s] -= table.memory[c]
        self.free_slots[s] -= 1
        self.count[s] += 1
        self.journal.append((0, c, s, u))
        if u > 0:
            self._carry(c, s, u)
        elif table.may_carry[c]:
            self.limit[s] = min(float(self.limit[s]), table.rho[c])

    def _switch(self, p: int, servers: int) -> None:
        """One more, or one fewer, server of a pool in use."""
        before = self.watts_of_count(p, self.occupied[p]) if self.limits else 0.0
        self.total -= self.cost_of_count(p, self.occupied[p])
        self.occupied[p] += servers
        self.total += self.cost_of_count(p, self.occupied[p])
        self.opening[p] = self.cost_of_one_more(p)
        for number, limit in enumerate(self.limits):
            if limit.whole_pools and limit.pools[p]:
                self.drawn[number] += self.watts_of_count(p, self.occupied[p]) - before

    def _meter(self, c: int, s: int, u: float, awake: float) -> None:
        """Count what more (or less) executes on a server towards the limits."""
        pue = self.table.pue[self.pool_of[s]]
        for number, limit in enumerate(self.limits):
            if limit.candidates[c]:
                self.drawn[number] += pue * u * self.table.slope[c]
            if limit.whole_pools and limit.pools[self.pool_of[s]]:
                self.drawn[number] += pue * awake

    def _carry(self, c: int, s: int, u: float) -> None:
        table = self.table
        self.load[s] += u
        if table.rho[c] < self.limit[s]:
            self.limit[s] = table.rho[c]
        rise = max(0.0, table.awake[c] - float(self.awake[s]))
        self.total += table.cost[c] * u
        if rise:
            self.awake[s] = table.awake[c]
            self.total += rise * table.watt_cost[self.pool_of[s]]
        if self.limits:
            self._meter(c, s, u, rise)

    def take(self, m: int, s: int) -> float:
        """Remove a replica; the busy share it had."""
        table = self.table
        c = self.homes[m].pop(s)
        u = self.share[m].pop(s)
        del self.residents[s][m]
        if not self.residents[s]:
            self._switch(self.pool_of[s], -1)
        self.free_bytes[s] += table.memory[c]
        self.free_slots[s] += 1
        self.count[s] -= 1
        self.journal.append((1, c, s, u))
        if table.may_carry[c]:
            self._recount(s, c, -u)
        return u

    def change(self, m: int, s: int, u: float) -> None:
        """Give a replica another busy share."""
        c, before = self.homes[m][s], self.share[m][s]
        self.journal.append((2, c, s, before))
        self.share[m][s] = u
        self._recount(s, c, u - before)

    def _recount(self, s: int, changed: int, by: float) -> None:
        table = self.table
        load, limit, awake = 0.0, float("inf"), 0.0
        for m, c in self.residents[s].items():
            u = self.share[m][s]
            if table.may_carry[c]:
                limit = min(limit, table.rho[c])
            if u > 0:
                load += u
                awake = max(awake, table.awake[c])
        fall = awake - float(self.awake[s])
        self.total += table.cost[changed] * by + fall * table.watt_cost[self.pool_of[s]]
        if self.limits:
            self._meter(changed, s, by, fall)
        self.load[s], self.limit[s], self.awake[s] = load, limit, awake

    def undo(self, mark: int) -> None:
        """Take back everything since the journal was that long."""
        table = self.table
        while len(self.journal) > mark:
            kind, c, s, u = self.journal.pop()
            m = table.model[c]
            if kind == 0:
                self.take(m, s)
            elif kind == 1:
                self.put(c, s, u)
            else:
                self.change(m, s, u)
            self.journal.pop()

    def cost_of_count(self, p: int, count: int) -> float:
        """J of so many servers of a pool being on, and their nodes."""
        table = self.table
        on = max(count, table.least[p])
        return table.server_cost[p] * on + table.node_cost[p] * -(-on // table.per_node[p])

    def watts_of_count(self, p: int, count: int) -> float:
        """Watts of so many servers of a pool being on, and their nodes; none where they are on anyway."""
        table = self.table
        on = max(count, table.least[p])
        return table.server_watts[p] * on + table.node_watts[p] * -(-on // table.per_node[p])

    def spare(self, c: int, s: int, u: float) -> float:
        """Of a busy share that a candidate may get on a server, what the watt limits allow; negative: no replica at all."""
        table, p = self.table, self.pool_of[s]
        for number, limit in enumerate(self.limits):
            watts = limit.watts - self.drawn[number]
            if limit.whole_pools and limit.pools[p]:
                if not self.residents[s]:
                    watts -= self.watts_of_count(p, self.occupied[p] + 1) - self.watts_of_count(p, self.occupied[p])
                if u > 0:
                    watts -= table.pue[p] * max(0.0, table.awake[c] - float(self.awake[s]))
                if watts < -1e-9:
                    return -1.0
            slope = table.pue[p] * table.slope[c]
            if limit.candidates[c] and u * slope > max(0.0, watts):
                u = max(0.0, watts) / slope
        return u

    def cost_of_one_more(self, p: int) -> float:
        """J of one more server of a pool being on."""
        return self.cost_of_count(p, self.occupied[p] + 1) - self.cost_of_count(p, self.occupied[p])

    def served(self, m: int) -> float:
        """Work per second that the model's replicas serve."""
        table = self.table
        return sum(u * table.mu[self.homes[m][s]] for s, u in self.share[m].items())

    def ordinal(self, s: int) -> int:
        """The ordinal of a server in its pool."""
        p = self.pool_of[s]
        return self.problem.on.ordinals[p][s - self.start[p]]

    def number(self, p: int, ordinal: int) -> int:
        """The server of a pool's ordinal."""
        return self.start[p] + bisect.bisect_left(self.problem.on.ordinals[p], ordinal)


def lacking_work(servers: Servers, m: int) -> float:
    """Work per second of a model that nobody serves, of what could be served at all; what is only rounding is none."""
    lacking = servers.table.demand[m] - servers.served(m)
    return lacking if lacking > 1e-9 * servers.table.demand[m] else 0.0


def any_lacks(servers: Servers) -> bool:
    """Whether any model's demand is not met."""
    return any(lacking_work(servers, m) > 0 for m in range(len(servers.homes)))


def less_short(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> bool:
    """Whether the first shortfall is truly less than the other, priority by priority."""
    for mine, theirs in zip(one, other, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            if abs(a - b) > 1e-6 * max(a, b):
                return a < b
    return False


def shortfall(servers: Servers) -> tuple[Floats, Floats]:
    """By model: replicas missing, and work per second unserved."""
    table = servers.table
    missing = np.array([max(0, table.lowest[m] - len(homes)) for m, homes in enumerate(servers.homes)], float)
    unserved = np.array([lacking_work(servers, m) for m in range(len(servers.homes))], float)
    return missing, unserved


def rank_of_shortfall(servers: Servers) -> list[tuple[float, float]]:
    """By tier, from the highest priority: replicas missing, work unserved. Compare with `less_short`."""
    missing, unserved = shortfall(servers)
    tiers = servers.problem.tier
    count = int(tiers.max(initial=-1)) + 1
    return [(float(missing[tiers == t].sum()), float(unserved[tiers == t].sum())) for t in range(count)]
