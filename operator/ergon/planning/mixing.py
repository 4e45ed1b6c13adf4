"""A programme over patterns: how many servers of each pool hold each of them, so that all is served for the least J.

Its prices say what a pattern that is still missing would be worth.
"""

from dataclasses import dataclass

import numpy as np

from ergon.planning.arrays import Bools, Floats, Ints
from ergon.planning.effort import Effort
from ergon.planning.limits import Limit
from ergon.planning.linear import Answer, Programme
from ergon.planning.patterns import Pattern
from ergon.planning.problem import MANY, Problem
from ergon.planning.servers import Servers

_LEAST_PART = 1e-9
"""Of a model's demand: less is rounding."""

_SHORT = 1e-6
"""Shortfall below this, as a share of a model's demand or of a replica, is a solver's rounding."""


@dataclass(frozen=True, slots=True)
class Prices:
    """J of all demand of each model, of one replica more (below 0 where a model may have few), and of a watt in each limit."""

    demand: Floats
    replica: Floats
    watt: Floats

    def mixed(self, other: "Prices", weight: float) -> "Prices":
        """So much of these, the rest of the other's: prices that jump less from one time to the next."""
        rest = 1 - weight
        demand, replica = weight * self.demand + rest * other.demand, weight * self.replica + rest * other.replica
        return Prices(demand, replica, weight * self.watt + rest * other.watt)


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


@dataclass(frozen=True, slots=True)
class Mix:
    """Servers by pattern, nodes by pool, J and prices. `short`: whether something lacks all the same."""

    count: Floats
    nodes: Floats
    cost: float
    prices: Prices
    short: bool


class Patterns:
    """The patterns known so far, each once."""

    def __init__(self, problem: Problem, limits: tuple[Limit, ...], effort: Effort) -> None:
        self.problem, self.limits, self.effort = problem, limits, effort
        self.found: list[Pattern] = []
        self._known: set[tuple[int, bytes, bytes]] = set()

    def add(self, patterns: list[Pattern]) -> int:
        """Take in those that are new; how many."""
        before = len(self.found)
        for pattern in patterns:
            key = (pattern.pool, pattern.candidates.tobytes(), np.round(pattern.busy, 5).tobytes())
            if key not in self._known:
                self._known.add(key)
                self.found.append(pattern)
        return len(self.found) - before

    def mix(self, rest: Rest, nodes: Floats | None = None, *, whole: bool = False) -> Mix | None:
        """The least J of what is left, in parts of servers, with at most so many nodes; `whole`: in whole nodes.

        None where the solver has no answer in its time.
        """
        return _Mixing(self, rest, nodes).solve(whole=whole)


class _Mixing:
    def __init__(self, patterns: Patterns, rest: Rest, nodes: Floats | None) -> None:
        self.problem, self.limits, self.effort, self.rest = patterns.problem, patterns.limits, patterns.effort, rest
        found = patterns.found
        self._pool = np.array([pattern.pool for pattern in found], np.int64)
        self._at = np.repeat(np.arange(len(found)), [len(pattern.candidates) for pattern in found])
        self._candidate = np.concatenate([np.zeros(0, np.int64), *(pattern.candidates for pattern in found)])
        self._busy = np.concatenate([np.zeros(0), *(pattern.busy for pattern in found)])
        self._programme = Programme()
        self._add_columns(nodes)
        self._add_models()
        self._add_pools()

    def _sum(self, weights: Floats) -> Floats:
        """By pattern."""
        total: Floats = np.bincount(self._at, weights=weights, minlength=len(self._pool)).astype(float)
        return total

    def _add_columns(self, nodes: Floats | None) -> None:
        problem, on, c, add = self.problem, self.problem.on, self.problem.candidates, self._programme.add_columns
        self._awake = np.zeros(len(self._pool))
        np.maximum.at(self._awake, self._at, np.where(self._busy > 0, c.awake_watts[self._candidate], 0.0))
        cost = self._sum(c.cost[self._candidate] * self._busy) + self._awake * on.watt_cost[self._pool]
        self.count = add(cost, on.most[self._pool].astype(float))
        least = np.maximum(on.least, self.rest.used)
        self.servers = add(on.server_cost, on.most.astype(float), least.astype(float))
        fewest, most = -(-least // on.per_node), -(-on.most // on.per_node)
        most_nodes = most.astype(float) if nodes is None else np.maximum(nodes, fewest)
        self.nodes = add(on.node_cost, most_nodes, fewest.astype(float), whole=True)
        per_server = on.server_cost + on.node_cost
        dear = 20.0 * float(per_server.max(initial=1.0) + c.awake_cost.max(initial=0.0) + c.cost.max(initial=0.0))
        most_servers = np.zeros(len(problem.models))
        with np.errstate(divide="ignore", invalid="ignore"):
            servers = np.where(c.mu > 0, problem.demand[c.model] / (c.mu * c.rho), 0.0)
        np.maximum.at(most_servers, c.model, servers)
        self._asked = np.flatnonzero(self.rest.left > 0)
        self._holding = np.flatnonzero(self.rest.least > 0)
        self._limited = np.flatnonzero(problem.highest < MANY)
        self.unserved = add(dear * (1 + most_servers[self._asked]), self.rest.left[self._asked])
        self.missing = add(np.full(len(self._holding), dear), self.rest.least[self._holding])

    def _rows_of(self, models: Ints, rows: Ints, weights: Floats) -> None:
        """Put what patterns have of each of these models into its row."""
        row = np.full(len(self.problem.models), -1, np.int64)
        row[models] = rows
        at = row[self.problem.candidates.model[self._candidate]]
        mine = (at >= 0) & (weights > 0)
        self._programme.put(at[mine], self.count[self._at[mine]], weights[mine])

    def _add_models(self) -> None:
        c, rest, rows, put = self.problem.candidates, self.rest, self._programme.add_rows, self._programme.put
        demand, one = self.problem.demand[c.model[self._candidate]], np.ones(len(self._candidate))
        part = np.divide(self._busy * c.mu[self._candidate], demand, out=np.zeros(len(one)), where=demand > 0)
        self._served = rows(len(self._asked), rest.left[self._asked])
        self._rows_of(self._asked, self._served, part)
        put(self._served, self.unserved, 1.0)
        self._held = rows(len(self._holding), rest.least[self._holding])
        self._rows_of(self._holding, self._held, one)
        put(self._held, self.missing, 1.0)
        self._few = rows(len(self._limited), upper=rest.most[self._limited])
        self._rows_of(self._limited, self._few, one)

    def _add_pools(self) -> None:
        """Servers for the patterns, nodes for the servers, and watts within the limits."""
        on, c, rows, put = self.problem.on, self.problem.candidates, self._programme.add_rows, self._programme.put
        room = rows(len(self.servers), upper=-self.rest.used.astype(float))
        put(room[self._pool], self.count, 1.0)
        put(room, self.servers, -1.0)
        boxes = rows(len(self.servers), upper=0.0)
        put(boxes, self.servers, 1.0)
        put(boxes, self.nodes, -on.per_node.astype(float))
        self._held_limits = [number for number, limit in enumerate(self.limits) if not limit.hopeless]
        self._watts = rows(len(self._held_limits), upper=self.rest.watts[self._held_limits])
        slope = on.pue[c.pool[self._candidate]] * c.slope_watts[self._candidate] * self._busy
        for row, number in zip(self._watts, self._held_limits, strict=True):
            limit = self.limits[number]
            drawn = self._sum(np.where(limit.candidates[self._candidate], slope, 0.0))
            if limit.whole_pools:
                drawn = drawn + np.where(limit.pools[self._pool], on.pue[self._pool] * self._awake, 0.0)
                scope = np.flatnonzero(limit.pools)
                put(np.full(len(scope), row), self.servers[scope], on.server_watts[scope])
                put(np.full(len(scope), row), self.nodes[scope], on.node_watts[scope])
            put(np.full(len(drawn), row), self.count, drawn)

    def solve(self, *, whole: bool) -> Mix | None:
        solver = self._programme.solver(self.effort.solver_seconds)
        answer = solver.in_whole(self.effort.mip_nodes, gap=3e-3) if whole else solver.relaxed()
        if answer is None:
            return None
        values = answer.values
        lacks: Bools = values[np.concatenate([self.unserved, self.missing])] > _SHORT
        return Mix(values[self.count], values[self.nodes], answer.cost, self._read_prices(answer), bool(lacks.any()))

    def _read_prices(self, answer: Answer) -> Prices:
        models = len(self.problem.models)
        demand, replica, watt = np.zeros(models), np.zeros(models), np.zeros(len(self.limits))
        if len(answer.prices):
            demand[self._asked] = np.maximum(answer.prices[self._served], 0.0)
            replica[self._holding] = np.maximum(answer.prices[self._held], 0.0)
            replica[self._limited] += np.minimum(answer.prices[self._few], 0.0)
            watt[self._held_limits] = np.maximum(-answer.prices[self._watts], 0.0)
        return Prices(demand, replica, watt)
