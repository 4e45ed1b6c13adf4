"""A programme over patterns: how many servers of each pool hold each of them, so that all is served for the least J."""

from dataclasses import dataclass

import numpy as np

from ergon.planning.arrays import Bools, Floats, Ints
from ergon.planning.effort import Effort
from ergon.planning.limits import Limit, closed_by
from ergon.planning.linear import INFINITY, Answer, Programme
from ergon.planning.problem import MANY, Problem
from ergon.planning.servers import Servers
from ergon.planning.shelves import Pattern, Shelf

_LEAST_PART = 1e-9
"""Of a model's demand: less is rounding."""

_SHORT = 1e-6
"""Shortfall below this, as a share of a model's demand or of a replica, is a solver's rounding."""


@dataclass(frozen=True, slots=True)
class Worth:
    """J of all demand of each model, of one replica more that it needs or may have, and of a watt in each limit."""

    demand: Floats
    need: Floats
    few: Floats
    watt: Floats

    def mixed(self, other: "Worth", weight: float) -> "Worth":
        """So much of these, the rest of the other's."""
        rest = 1 - weight
        return Worth(
            weight * self.demand + rest * other.demand,
            weight * self.need + rest * other.need,
            weight * self.few + rest * other.few,
            weight * self.watt + rest * other.watt,
        )


@dataclass(frozen=True, slots=True)
class Mix:
    """Servers by pattern and by pool, nodes by pool, J and prices. `short`: whether something lacks all the same."""

    count: Floats
    servers: Floats
    nodes: Floats
    cost: float
    worth: Worth
    room: Floats
    short: bool


@dataclass(frozen=True, slots=True)
class Rest:
    """What servers lack: parts of demands, replicas at least and at most. `used`: servers by pool; `watts` left, by limit."""

    left: Floats
    least: Floats
    most: Floats
    used: Ints
    watts: Floats

    @classmethod
    def of(cls, servers: Servers) -> "Rest":
        """Of servers that hold something, or nothing yet."""
        problem, demand = servers.problem, servers.table.demand
        left = np.array([1 - servers.served(m) / d if d > 0 else 0.0 for m, d in enumerate(demand)])
        homes = np.array([len(homes) for homes in servers.homes], float)
        several = np.where((problem.need > 1) | (problem.demand <= 0), problem.need, 0)
        watts = [limit.watts - limit.constant for limit in servers.limits]
        for number, limit in enumerate(servers.limits):
            scope = np.flatnonzero(limit.pools).tolist() if limit.whole_pools else []
            standing = limit.constant + sum(servers.watts_of_count(p, servers.occupied[p]) for p in scope)
            watts[number] -= servers.drawn[number] - standing
        return cls(
            left=np.where(left > _LEAST_PART, left, 0.0),
            least=np.maximum(several - homes, 0.0),
            most=np.where(problem.highest < MANY, np.maximum(problem.highest - homes, 0.0), float(MANY)),
            used=np.array(servers.occupied, np.int64),
            watts=np.array(watts),
        )


class Master:
    """The patterns known so far, and what mix of them is best."""

    def __init__(self, problem: Problem, limits: tuple[Limit, ...], effort: Effort) -> None:
        self.problem, self.limits, self.effort = problem, limits, effort
        self.patterns: list[Pattern] = []
        self._known: set[tuple[int, bytes, bytes]] = set()
        c, on = problem.candidates, problem.on
        usable: Bools = c.useful & ~c.standing_only & ~closed_by(limits, problem) & (problem.highest[c.model] > 0)
        self.shelves = [Shelf(problem, p, usable) for p in range(len(problem.pools))]
        programme = Programme()
        add, rows, put = programme.add_columns, programme.add_rows, programme.put
        self.servers = add(on.server_cost, on.most.astype(float), on.least.astype(float))
        fewest, most = -(-on.least // on.per_node), -(-on.most // on.per_node)
        self.nodes = add(on.node_cost, most.astype(float), fewest.astype(float), whole=True)
        per_server = on.server_cost + on.node_cost
        dear = 20.0 * float(per_server.max(initial=1.0) + c.awake_cost.max(initial=0.0) + c.cost.max(initial=0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.where((c.mu > 0) & (c.rho > 0), problem.demand[c.model] / (c.mu * c.rho), 0.0)
        most_servers = np.zeros(len(problem.models))
        np.maximum.at(most_servers, c.model, spread)
        several = (problem.need > 1) | ((problem.demand <= 0) & (problem.need > 0))
        self.asked, self.holding = np.flatnonzero(problem.demand > 0), np.flatnonzero(several)
        self.limited = np.flatnonzero(problem.highest < MANY)
        self.unserved = add(dear * (1 + most_servers[self.asked]), 1.0)
        need = problem.need.astype(float)
        self.missing = add(np.full(len(self.holding), dear), need[self.holding])
        self.row_served = rows(len(self.asked), 1.0)
        put(self.row_served, self.unserved, 1.0)
        self.row_held = rows(len(self.holding), need[self.holding])
        put(self.row_held, self.missing, 1.0)
        self.row_few = rows(len(self.limited), upper=problem.highest[self.limited].astype(float))
        self.row_room = rows(len(on.most), upper=0.0)
        put(self.row_room, self.servers, -1.0)
        boxes = rows(len(on.most), upper=0.0)
        put(boxes, self.servers, 1.0)
        put(boxes, self.nodes, -on.per_node.astype(float))
        self._held_limits = [number for number, limit in enumerate(limits) if not limit.hopeless]
        self.row_watts = rows(
            len(self._held_limits), upper=np.array([limits[n].watts - limits[n].constant for n in self._held_limits])
        )
        for row, number in zip(self.row_watts, self._held_limits, strict=True):
            if limits[number].whole_pools:
                scope = np.flatnonzero(limits[number].pools)
                put(np.full(len(scope), row), self.servers[scope], on.server_watts[scope])
                put(np.full(len(scope), row), self.nodes[scope], on.node_watts[scope])
        self._row_of: list[Ints] = []
        for models, numbers in ((self.asked, self.row_served), (self.holding, self.row_held), (self.limited, self.row_few)):
            row_of = np.full(len(problem.models), -1, np.int64)
            row_of[models] = numbers
            self._row_of.append(row_of)
        self.columns = programme.columns
        self.solver = programme.solver(effort.solver_seconds)
        self.solver.without_presolve()
        self.solver._highs.setOptionValue("simplex_strategy", 4)

    def add(self, patterns: list[Pattern]) -> int:
        """Take in those that are new; how many."""
        new = []
        for pattern in patterns:
            key = (pattern.pool, pattern.candidates.tobytes(), np.round(pattern.busy, 6).tobytes())
            if key not in self._known and len(pattern.candidates):
                self._known.add(key)
                new.append(pattern)
        if not new:
            return 0
        problem, on, c = self.problem, self.problem.on, self.problem.candidates
        cost, start, row, value = [], [0], [], []
        for pattern in new:
            k, u = pattern.candidates, pattern.busy
            m, awake = c.model[k], float(c.awake_watts[k[u > 0]].max(initial=0.0))
            cost.append(float(c.cost[k] @ u) + awake * float(on.watt_cost[pattern.pool]))
            demand = problem.demand[m]
            part = np.divide(u * c.mu[k], demand, out=np.zeros(len(k)), where=demand > 0)
            served, held, few = (row_of[m] for row_of in self._row_of)
            mine = (served >= 0) & (part > 0)
            rows = [served[mine], held[held >= 0], few[few >= 0], self.row_room[pattern.pool : pattern.pool + 1]]
            values = [part[mine], np.ones(int((held >= 0).sum())), np.ones(int((few >= 0).sum())), np.ones(1)]
            for at, number in zip(self.row_watts, self._held_limits, strict=True):
                limit = self.limits[number]
                drawn = float(on.pue[pattern.pool] * (c.slope_watts[k] * u)[limit.candidates[k]].sum())
                drawn += float(on.pue[pattern.pool]) * awake if limit.whole_pools and limit.pools[pattern.pool] else 0.0
                if drawn > 0:
                    rows.append(np.array([at]))
                    values.append(np.array([drawn]))
            row += rows
            value += values
            start.append(start[-1] + sum(len(r) for r in rows))
        pools = np.array([pattern.pool for pattern in new])
        self.solver.add_columns(
            np.array(cost), on.most[pools].astype(float), np.array(start), np.concatenate(row), np.concatenate(value)
        )
        self.patterns += new
        return len(new)

    def ask(self, rest: Rest) -> None:
        """Ask for what is left, from now on."""
        problem, solver = self.problem, self.solver
        left, least, most = rest.left[self.asked], rest.least[self.holding], rest.most[self.limited]
        solver.set_rows(self.row_served, left, np.full(len(left), INFINITY))
        solver.set_columns(self.unserved, np.zeros(len(left)), left)
        solver.set_rows(self.row_held, least, np.full(len(least), INFINITY))
        solver.set_columns(self.missing, np.zeros(len(least)), least)
        solver.set_rows(self.row_few, np.full(len(most), -INFINITY), most)
        used = rest.used.astype(float)
        solver.set_rows(self.row_room, np.full(len(used), -INFINITY), -used)
        solver.set_columns(self.servers, np.maximum(problem.on.least, used), problem.on.most.astype(float))
        watts = rest.watts[self._held_limits]
        solver.set_rows(self.row_watts, np.full(len(watts), -INFINITY), watts)

    def box(self, least: Floats, most: Floats) -> None:
        """Allow so many nodes by pool."""
        self.solver.set_columns(self.nodes, least, most)

    def mix(self) -> Mix | None:
        """The best mix, in parts of servers and nodes; None where the solver has no answer in its time."""
        answer = self.solver.go_on()
        return None if answer is None else self._read(answer)

    def _read(self, answer: Answer) -> Mix:
        values, prices = answer.values, answer.prices
        models = len(self.problem.models)
        demand, need, few, watt = np.zeros(models), np.zeros(models), np.zeros(models), np.zeros(len(self.limits))
        demand[self.asked] = np.maximum(prices[self.row_served], 0.0)
        need[self.holding] = np.maximum(prices[self.row_held], 0.0)
        few[self.limited] = np.maximum(-prices[self.row_few], 0.0)
        watt[self._held_limits] = np.maximum(-prices[self.row_watts], 0.0)
        lacks = bool((values[np.concatenate([self.unserved, self.missing])] > _SHORT).any())
        room = np.maximum(-prices[self.row_room], 0.0)
        return Mix(
            values[self.columns :],
            values[self.servers],
            values[self.nodes],
            answer.cost,
            Worth(demand, need, few, watt),
            room,
            lacks,
        )

    def price(self, worth: Worth, left: Floats, tries: int) -> int:
        """Add the worthiest patterns at these prices; how many are new."""
        on, c = self.problem.on, self.problem.candidates
        added = 0
        for p, shelf in enumerate(self.shelves):
            k = shelf.candidates
            spent, awake = c.cost[k].copy(), float(on.watt_cost[p])
            for price, limit in zip(worth.watt.tolist(), self.limits, strict=True):
                if price > 0:
                    spent += price * on.pue[p] * np.where(limit.candidates[k], c.slope_watts[k], 0.0)
                    awake += price * float(on.pue[p]) if limit.whole_pools and limit.pools[p] else 0.0
            paid = np.divide(worth.demand[shelf.model], shelf.whole, out=np.zeros(len(k)), where=shelf.whole > 0)
            per_replica = (worth.need - worth.few)[shelf.model]
            added += self.add(shelf.patterns(paid - spent, per_replica, awake, left[shelf.model], tries))
        return added
