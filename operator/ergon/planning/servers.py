"""The servers while a plan is made: who stands where, what is free, and what one more replica would cost.

The only mutable thing in planning. Servers are numbered across pools; a pool's servers are its ordinals that can be had,
lowest first. Every change can be taken back.
"""

import bisect
from dataclasses import dataclass, field

import numpy as np

from ergon.planning.arrays import Floats
from ergon.planning.limits import Limit
from ergon.planning.problem import Problem

ROUNDING = 1e-12
"""Busy shares that differ by less are the same."""

_ROWS = 7
"""Of what is kept by server; one array, so that a look at many servers gathers it at once."""


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
    and of servers in use, `opening` that of one more server of each pool, and by server (`if_opened`, 0 for those in use);
    `drawn` the watts in the scope of each limit. `state` has the rows free_bytes to if_opened, by server. `work`: what is
    served by model, None where it has changed since it was asked for.
    """

    problem: Problem
    table: Table
    start: list[int]
    state: Floats
    free_bytes: Floats
    free_slots: Floats
    load: Floats
    limit: Floats
    awake: Floats
    count: Floats
    if_opened: Floats
    homes: list[dict[int, int]]
    share: list[dict[int, float]]
    residents: list[dict[int, int]]
    occupied: list[int]
    pool_of: list[int]
    work: list[float | None] = field(default_factory=list)
    limits: tuple[Limit, ...] = ()
    drawn: list[float] = field(default_factory=list)
    opening: list[float] = field(default_factory=list)
    total: float = 0.0
    journal: list[tuple[int, int, int, float]] = field(default_factory=list)

    @classmethod
    def empty(cls, problem: Problem, limits: tuple[Limit, ...]) -> "Servers":
        """All servers, with nothing on them."""
        counts = problem.on.most
        start = [0, *np.cumsum(counts).tolist()]
        total = start[-1]
        state = np.zeros((_ROWS, total))
        free_bytes, free_slots, load, limit, awake, count, if_opened = state
        free_bytes[:] = np.repeat(problem.on.memory_bytes, counts)
        free_slots[:] = np.repeat(problem.on.slots.astype(float), counts)
        limit[:] = np.inf
        made = cls(
            problem=problem,
            table=Table.of(problem),
            start=start,
            state=state,
            free_bytes=free_bytes,
            free_slots=free_slots,
            load=load,
            limit=limit,
            awake=awake,
            count=count,
            if_opened=if_opened,
            homes=[{} for _ in problem.models],
            share=[{} for _ in problem.models],
            residents=[{} for _ in range(total)],
            occupied=[0] * len(problem.pools),
            pool_of=np.repeat(np.arange(len(counts)), counts).tolist(),
            work=[None] * len(problem.models),
            limits=limits,
            drawn=[limit.always_watts for limit in limits],
        )
        made.total = sum(made.cost_of_count(p, 0) for p in range(len(problem.pools)))
        made.opening = [made.cost_of_one_more(p) for p in range(len(problem.pools))]
        if_opened[:] = np.repeat(np.array(made.opening), counts)
        return made

    def put(self, c: int, s: int, u: float) -> None:
        """Place a replica with that busy share."""
        table = self.table
        m = table.model[c]
        self.count[s] += 1
        if not self.residents[s]:
            self._switch(s, 1)
        self.homes[m][s] = c
        self.share[m][s] = u
        self.residents[s][m] = c
        self.work[m] = None
        self.free_bytes[s] -= table.memory[c]
        self.free_slots[s] -= 1
        self.journal.append((0, c, s, u))
        if u > 0:
            self._carry(c, s, u)
        elif table.may_carry[c]:
            self.limit[s] = min(float(self.limit[s]), table.rho[c])

    def put_all(self, places: list[tuple[int, int, float]]) -> None:
        """The same for many, on servers that hold nothing and where all of them fit; what is put so is not taken back."""
        if self.limits or not places:
            for c, s, u in places:
                self.put(c, s, u)
            return
        table, c_of, on = self.table, self.problem.candidates, self.problem.on
        for c, s, u in places:
            m = table.model[c]
            self.homes[m][s], self.share[m][s], self.residents[s][m], self.work[m] = c, u, c, None
        number, at, shares = (np.array(column) for column in zip(*places, strict=True))
        many = len(self.load)
        self.free_bytes -= np.bincount(at, c_of.memory_bytes[number], many)
        self.free_slots -= np.bincount(at, minlength=many)
        self.count += np.bincount(at, minlength=many)
        self.load += np.bincount(at, shares, many)
        carry, busy = (c_of.mu[number] > 0) & (self.problem.demand[c_of.model[number]] > 0), shares > 0
        np.minimum.at(self.limit, at[carry], c_of.rho[number[carry]])
        np.maximum.at(self.awake, at[busy], c_of.awake_watts[number[busy]])
        self.total += float((c_of.cost[number] * shares).sum()) + float(self.awake @ np.repeat(on.watt_cost, on.most))
        used = self.count > 0
        for p in range(len(self.occupied)):
            mine = slice(self.start[p], self.start[p + 1])
            self.total -= self.cost_of_count(p, 0)
            self.occupied[p] = int(used[mine].sum())
            self.total += self.cost_of_count(p, self.occupied[p])
            self.opening[p] = self.cost_of_one_more(p)
            self.if_opened[mine] = np.where(used[mine], 0.0, self.opening[p])

    def _switch(self, s: int, servers: int) -> None:
        """One more server of a pool in use, this one, or one fewer."""
        p = self.pool_of[s]
        before, opening = self.watts_of_count(p, self.occupied[p]) if self.limits else 0.0, self.opening[p]
        self.total += opening if servers > 0 else 0.0
        self.occupied[p] += servers
        self.opening[p] = self.cost_of_one_more(p)
        self.total -= self.opening[p] if servers < 0 else 0.0
        if self.opening[p] == opening:
            self.if_opened[s] = 0.0 if servers > 0 else opening
        else:
            mine = slice(self.start[p], self.start[p + 1])
            self.if_opened[mine] = np.where(self.count[mine] == 0, self.opening[p], 0.0)
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
        self.work[m] = None
        del self.residents[s][m]
        self.count[s] -= 1
        if not self.residents[s]:
            self._switch(s, -1)
        self.free_bytes[s] += table.memory[c]
        self.free_slots[s] += 1
        self.journal.append((1, c, s, u))
        if table.may_carry[c]:
            self._recount(s, c, -u)
        return u

    def change(self, m: int, s: int, u: float) -> None:
        """Give a replica another busy share."""
        c, before = self.homes[m][s], self.share[m][s]
        self.journal.append((2, c, s, before))
        self.share[m][s] = u
        self.work[m] = None
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
        known = self.work[m]
        if known is None:
            mu, homes = self.table.mu, self.homes[m]
            known = self.work[m] = sum([u * mu[homes[s]] for s, u in self.share[m].items()])
        return known

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
    return bool(shortfall(servers)[1].any())


def less_short(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> bool:
    """Whether the first shortfall is truly less than the other, priority by priority."""
    for mine, theirs in zip(one, other, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            if abs(a - b) > 1e-6 * max(a, b):
                return a < b
    return False


def shortfall(servers: Servers) -> tuple[Floats, Floats]:
    """By model: replicas missing, and work per second unserved."""
    problem = servers.problem
    replicas = np.array([len(homes) for homes in servers.homes], np.int64)
    missing = np.maximum(np.minimum(problem.lowest, problem.highest) - replicas, 0).astype(float)
    served = np.array([work if work is not None else servers.served(m) for m, work in enumerate(servers.work)], float)
    unserved = problem.demand - served
    return missing, np.where(unserved > 1e-9 * problem.demand, unserved, 0.0)


def rank_of_shortfall(servers: Servers) -> list[tuple[float, float]]:
    """By tier, from the highest priority: replicas missing, work unserved. Compare with `less_short`."""
    missing, unserved = shortfall(servers)
    tiers = servers.problem.tier
    count = int(tiers.max(initial=-1)) + 1
    return [(float(missing[tiers == t].sum()), float(unserved[tiers == t].sum())) for t in range(count)]
