"""Every server where a model could have one more replica, looked at all at once."""

from dataclasses import dataclass

import numpy as np

from ergon.planning.arrays import Bools, Floats, Ints
from ergon.planning.limits import closed_by
from ergon.planning.pool_programme import PoolLevel
from ergon.planning.servers import ROUNDING, Servers

LEAST_PIECE = 0.02
"""A part of a model's load that keeps a server busy for less is not worth a replica of its own."""

_SPLIT = 1.03
"""How much dearer a part of a load counts than the whole of it: what is split takes memory twice."""


@dataclass(frozen=True, slots=True)
class Taste:
    """How spots are compared. `room`: weight of what a server's room is worth, beside J that is really spent.

    `spread`: nodes count for their servers alike, instead of for the first of them. `noise`: by how much, in parts, chance may
    make a spot dearer.
    """

    room: float = 1.0
    spread: bool = False
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class _Spots:
    """Of one model: each (candidate, server). `offset`: by candidate, its first entry less its pool's first server."""

    server: Ints
    candidate: Ints
    pool: Ints
    per_work: Floats
    rho: Floats
    memory: Floats
    cost: Floats
    awake: Floats
    wakes: bool
    counts: Bools
    watt_cost: Floats
    rent: Floats
    worth: Floats
    offset: dict[int, int]
    of_pool: dict[int, list[int]]


class Spots:
    """Puts replicas where they cost least. `closed`: a pool that may open no more servers; `looked`: places looked at so far."""

    def __init__(self, servers: Servers, level: PoolLevel | None) -> None:
        self.servers, self.taste = servers, Taste()
        problem = servers.problem
        on, c = problem.on, problem.candidates
        amortised = on.server_cost + on.node_cost / on.per_node
        self._spread = np.repeat(amortised, on.most)
        none = np.zeros(len(on.most))
        busy, memory, slots = (level.busy_price, level.memory_price, level.slot_price) if level else (amortised, none, none)
        self._worth = np.maximum(busy, 0.05 * amortised)
        part = c.memory_bytes / np.maximum(on.memory_bytes[c.pool], 1.0)
        self._rent = memory[c.pool] * part + slots[c.pool] / np.maximum(on.slots[c.pool], 1) + 1e-3 * amortised[c.pool]
        self._open = c.useful & ~c.standing_only & ~closed_by(servers.limits, problem)
        self._by_model: list[_Spots | None] = [None] * len(problem.models)
        self._dice = np.random.default_rng(1).random(1 << 14)
        self._thrown = 0
        self.closed: int | None = None
        self.looked = 0

    def _of(self, m: int) -> _Spots:
        found = self._by_model[m]
        if found is None:
            found = self._by_model[m] = self._made(m)
        return found

    def _made(self, m: int) -> _Spots:
        servers, table, c = self.servers, self.servers.table, self.servers.problem.candidates
        mine = [k for k in range(table.first[m], table.first[m + 1]) if self._open[k]]
        start = servers.start
        places = [start[table.pool[k] + 1] - start[table.pool[k]] for k in mine]
        candidate = np.repeat(np.array(mine, np.int64), places)
        place = np.concatenate(
            [np.zeros(0, np.int64), *(np.arange(start[table.pool[k]], start[table.pool[k] + 1]) for k in mine)]
        )
        before = np.cumsum([0, *places]).tolist()
        pool = c.pool[candidate]
        of_pool: dict[int, list[int]] = {}
        for k in mine:
            of_pool.setdefault(table.pool[k], []).append(k)
        memory = c.memory_bytes[candidate].copy()
        for k in mine:
            for ordinal in servers.problem.refused.get(k, ()):
                s = servers.number(table.pool[k], ordinal)
                if s < start[table.pool[k] + 1] and servers.ordinal(s) == ordinal:
                    memory[before[mine.index(k)] + s - start[table.pool[k]]] = np.inf
        mu = c.mu[candidate]
        awake, counts = c.awake_watts[candidate], (mu > 0) & (table.demand[m] > 0)
        return _Spots(
            server=place,
            candidate=candidate,
            pool=pool,
            per_work=np.divide(1.0, mu, out=np.zeros(len(mu)), where=mu > 0),
            rho=c.rho[candidate],
            memory=memory,
            cost=c.cost[candidate],
            awake=awake,
            wakes=bool(awake.any()),
            counts=counts,
            watt_cost=servers.problem.on.watt_cost[pool],
            rent=self._rent[candidate],
            worth=self._worth[pool],
            offset={k: n - start[table.pool[k]] for k, n in zip(mine, before, strict=False)},
            of_pool=of_pool,
        )

    def place(self, m: int) -> None:
        """Place what the model lacks, as far as there is room."""
        servers, table = self.servers, self.servers.table
        demand = table.demand[m]
        lacking = demand - servers.served(m) if demand > 0 else 0.0
        while lacking > demand * 1e-9:
            placed = self._serve(m, lacking)
            if placed <= 0:
                break
            lacking = 0.0 if placed >= lacking * (1 - ROUNDING) else lacking - placed
        while len(servers.homes[m]) < table.lowest[m] and self._hold(m):
            pass

    def _shut(self, x: _Spots, free_bytes: Floats, free_slots: Floats, count: Floats) -> Bools:
        """Where one more replica has no room."""
        self.looked += len(x.server)
        shut: Bools = free_bytes < x.memory
        shut |= free_slots < 1
        if self.closed is not None:
            shut |= (x.pool == self.closed) & (count == 0)
        return shut

    def _serve(self, m: int, work: float) -> float:
        """Give some of the work to one replica, a new one or one that stands; how much."""
        servers, table, x = self.servers, self.servers.table, self._of(m)
        homes = servers.homes[m]
        spare = table.highest[m] - len(homes)
        at = x.server
        if not len(at):
            return 0.0
        free_bytes, free_slots, load, limit, awake, count, if_opened = servers.state.take(at, axis=1)
        narrow = np.minimum(limit, x.rho)
        if spare > 0:
            room = narrow - load
            room[self._shut(x, free_bytes, free_slots, count)] = -1.0
        else:
            room = np.full(len(at), -1.0)
        rent = x.rent
        if homes:
            rent = rent.copy()
            for s, c in homes.items():
                for k in x.of_pool.get(servers.pool_of[s], ()):
                    e = x.offset[k] + s
                    if k == c:
                        room[e] = narrow[e] - load[e]
                        rent[e] = 0.0
                    else:
                        room[e] = -1.0
        need = work * x.per_work
        u = np.minimum(room, need)
        if servers.limits:
            u = self._within_limits(x, u, count)
        price = x.cost * u
        price += rent
        price += np.where(count == 0, self._spread[at], 0.0) if self.taste.spread else if_opened
        if x.wakes:
            price += np.maximum(x.awake - awake, 0.0) * x.watt_cost
        if self.taste.room:
            filled = (load + u) / narrow
            filled -= load / limit
            filled *= x.worth
            price += self.taste.room * filled
        if self.taste.noise:
            price *= 1.0 + self.taste.noise * self._throw(len(at))
        found = _least(price, u, need, last=spare == 1 and bool(homes), only=spare == 1, own=spare <= 0)
        if found is None:
            return 0.0
        s, c, busy = int(at[found]), int(x.candidate[found]), float(u[found])
        if s in homes:
            servers.change(m, s, servers.share[m][s] + busy)
        else:
            servers.put(c, s, busy)
        return work if busy >= need[found] * (1 - 1e-9) else busy * table.mu[c]

    def _within_limits(self, x: _Spots, u: Floats, count: Floats) -> Floats:
        """Of busy shares, what the watt limits allow; negative: no replica at all."""
        servers, on, c = self.servers, self.servers.problem.on, self.servers.problem.candidates
        slope = on.pue[x.pool] * c.slope_watts[x.candidate]
        for number, limit in enumerate(servers.limits):
            mine = limit.candidates[x.candidate]
            watts = np.full(len(u), limit.watts - servers.drawn[number])
            if limit.whole_pools:
                table = servers.table
                more = np.array([
                    servers.watts_of_count(p, servers.occupied[p] + 1) - servers.watts_of_count(p, servers.occupied[p])
                    for p in range(len(table.most))
                ])  # fmt: skip
                watts -= np.where(count == 0, more[x.pool], 0.0)
                watts -= on.pue[x.pool] * np.maximum(x.awake - servers.awake[x.server], 0.0)
                u = np.where(limit.pools[x.pool] & (watts < -1e-9), -1.0, u)
            most = np.maximum(watts, 0.0) / np.maximum(slope, 1e-12)
            u = np.where(mine, np.minimum(u, most), u)
        return u

    def _throw(self, count: int) -> Floats:
        dice = self._dice
        if count > len(dice):
            return np.resize(dice, count)
        if self._thrown + count > len(dice):
            self._thrown = (self._thrown * 7 + 13) % 97
        self._thrown += count
        return dice[self._thrown - count : self._thrown]

    def _hold(self, m: int) -> bool:
        """Place a replica that carries nothing; whether there was room."""
        servers, table, x = self.servers, self.servers.table, self._of(m)
        at = x.server
        if len(servers.homes[m]) >= table.highest[m] or not len(at):
            return False
        free_bytes, free_slots, load, limit, _, count, if_opened = servers.state.take(at, axis=1)
        room = np.where(x.counts, np.minimum(limit, x.rho) - load, 0.0)
        room[self._shut(x, free_bytes, free_slots, count)] = -1.0
        for s in servers.homes[m]:
            for k in x.of_pool.get(servers.pool_of[s], ()):
                room[x.offset[k] + s] = -1.0
        price = x.rent + (np.where(count == 0, self._spread[at], 0.0) if self.taste.spread else if_opened)
        if x.counts.any():
            spoilt = np.maximum(load / np.minimum(limit, x.rho) - load / limit, 0.0)
            price = price + x.worth * np.where(x.counts, spoilt, 0.0)
        if servers.limits:
            room = np.where(self._within_limits(x, np.zeros(len(at)), count) < 0, -1.0, room)
        if self.taste.noise:
            price = price * (1.0 + self.taste.noise * self._throw(len(at)))
        price = np.where(room >= -ROUNDING, price, np.inf)
        e = int(np.argmin(price))
        if price[e] == np.inf:
            return False
        servers.put(int(x.candidate[e]), int(at[e]), 0.0)
        return True


def _least(price: Floats, u: Floats, need: Floats, *, last: bool, only: bool, own: bool) -> int | None:
    """Which spot costs the least, where all of the load fits or in parts J a unit of it; None where none has room.

    `only`: one replica is left to the model, so all of the load there, else the largest part (unless, `last`, its others may
    take the rest). `own`: it may have no more, so any room of its own replicas counts.
    """
    enough = u >= np.minimum(LEAST_PIECE, 0.5 * need)
    enough &= u > (ROUNDING if own else 0.0)
    whole = u >= need * (1 - 1e-9)
    if only and not (last and whole.any()):
        score = np.where(whole, price, 1e15 - u / np.maximum(need, 1e-300))
        score[~enough] = np.inf
    else:
        score = np.divide(price * need, u, out=np.full(len(u), np.inf), where=enough)
        score[~whole] *= _SPLIT
    e = int(np.argmin(score))
    return e if score[e] < np.inf else None
