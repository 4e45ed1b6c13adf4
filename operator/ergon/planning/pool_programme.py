"""The programme over whole pools: its columns, its rows, and how its answer is read.

Servers of a pool are added up to one; what is lost by that (a replica sits on one server) only makes the result better than
any plan, so its bound is a bound for plans. Replicas that carry load are no columns: a share g of a model's demand on a pool
needs at least g x max(1, its busy share / rho) of them. Shortfall comes first, priority by priority.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ergon.planning.arrays import Bools, Floats, Ints
from ergon.planning.effort import Effort
from ergon.planning.limits import Limit, closed_by
from ergon.planning.linear import Answer, Prices, Programme, Solver
from ergon.planning.problem import MANY, Problem

LEVELS = 16
"""More than a pool has steps of awakeness: step n of pool p has the number p x LEVELS + n."""

AWAKE_LEVELS = 4
"""Steps of awakeness of a pool that are counted in whole servers; more would cost more time than they tell."""

SIFTED_FROM = 60000
"""Candidates from which on the relaxation is solved by sifting."""

_SIFTED_FIRST, _SIFTED_EVERY = 3, 6
"""Candidates of each model that sifting begins with: the cheapest, and every so many-th of the others.

Without the others all models have the same few pools, which are full, and the first prices are those of going unserved.
"""

_NONE = 1e-7
"""Shortfall below this, as a share of a model's demand, is a solver's rounding."""


@dataclass(frozen=True, slots=True)
class PoolLevel:
    """`share`: by candidate, of its model's demand. `held`: by candidate, replicas that carry nothing. `servers`: by pool.

    `busy_price`, `memory_price`, `slot_price`: J of a whole server's busy share, memory or places in each pool.
    `demand_price`, `replica_price`: by model, J of all its demand and of one replica more.
    `bound`: J that no plan of this shortfall is below; None when the solver found nothing. `none_short`: the bound is for
    plans that lack nothing. `prices`: what it was found by, for the bounds of plans to come. `in_whole`: its servers are whole.
    """

    share: Floats
    held: Floats
    servers: Floats
    busy_price: Floats
    memory_price: Floats
    slot_price: Floats
    demand_price: Floats
    replica_price: Floats
    bound: float
    none_short: bool
    prices: Prices = field(default_factory=dict)
    in_whole: bool = False


@dataclass(frozen=True, slots=True)
class _Columns:
    share: Ints
    share_of: Ints
    held: Ints
    held_of: Ints
    servers: Ints
    nodes: Ints
    unserved: Ints
    unserved_of: Ints
    missing: Ints
    missing_of: Ints


@dataclass(frozen=True, slots=True)
class _Tier:
    """One step of the shortfall's order: the row that sums it up over these models, in this unit."""

    row: int
    columns: Ints
    weights: Floats
    unit: float
    models: Bools


class PoolProgramme:
    """The programme of one problem. With `lenient`, every model may lack replicas; otherwise only load may be unserved."""

    def __init__(
        self,
        problem: Problem,
        limits: tuple[Limit, ...],
        effort: Effort,
        *,
        lenient: bool,
        watts: bool = False,
        fill: float = 1.0,
    ) -> None:
        self.problem, self.lenient, self._fill = problem, lenient, fill
        _c, on = problem.candidates, problem.on
        self._programme = Programme()
        self._watt_cost = on.pue if watts else on.watt_cost
        self._server_cost = on.server_watts if watts else on.server_cost
        self._node_cost = on.node_watts if watts else on.node_cost
        self._closed = closed_by(limits, problem)
        self.columns = self._add_columns()
        self._add_models()
        self._add_pools()
        self._add_limits(limits)
        self.tiers = self._add_tiers(effort) if lenient else []
        self._solver_seconds = effort.solver_seconds

    @cached_property
    def solver(self) -> Solver:
        """The programme in HiGHS; made when something is to be solved, since a bound from known prices needs none."""
        return self._programme.solver(self._solver_seconds)

    def _add_columns(self) -> _Columns:
        problem, c = self.problem, self.problem.candidates
        demand = problem.demand[c.model]
        usable = c.useful & ~self._closed & (problem.highest[c.model] > 0)
        carries = usable & (demand > 0) & (c.mu > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._busy = np.where(carries, demand / np.where(c.mu > 0, c.mu, 1.0), 0.0)
            self._servers_for = np.where(carries, self._busy / np.where(c.rho > 0, c.rho, 1.0), 0.0)
        if not self.lenient:
            carries = self._without_hopeless_singles(carries)
        self._replicas_for = np.maximum(1.0, self._servers_for)
        asked = problem.need > 0
        holding = asked if self.lenient else asked & ((problem.demand <= 0) | (problem.need > 1))
        holds = usable & holding[c.model]
        share_of, held_of = np.flatnonzero(carries), np.flatnonzero(holds)
        self._levels = self._awake_levels(share_of)
        self._watts = c.slope_watts * self._busy + self._unlevelled()
        cost = self._watt_cost[c.pool[share_of]] * self._watts[share_of]
        unserved_of = np.flatnonzero(problem.demand > 0)
        missing_of = np.flatnonzero(holding)
        dear = self._dearest(share_of, cost)
        on, add = problem.on, self._programme.add_columns
        nodes_least, nodes_most = -(-on.least // on.per_node), -(-on.most // on.per_node)
        need = problem.need
        return _Columns(
            share=add(cost, 1.0),
            share_of=share_of,
            held=add(np.zeros(len(held_of)), np.minimum(need[c.model[held_of]], on.most[c.pool[held_of]]).astype(float)),
            held_of=held_of,
            servers=add(self._server_cost, on.most.astype(float), on.least.astype(float), whole=True),
            nodes=add(self._node_cost, nodes_most.astype(float), nodes_least.astype(float), whole=True),
            unserved=add(dear[unserved_of], 1.0),
            unserved_of=unserved_of,
            missing=add(np.full(len(missing_of), float(dear.max(initial=1.0))), need[missing_of].astype(float)),
            missing_of=missing_of,
        )

    def _without_hopeless_singles(self, carries: Bools) -> Bools:
        """Leave out pools where the one replica a model may have could not carry all of its demand, while others could."""
        c = self.problem.candidates
        single = self.problem.highest[c.model] == 1
        alone = carries & (self._servers_for <= 1 + 1e-9)
        some = np.zeros(len(self.problem.models), np.bool_)
        some[c.model[alone]] = True
        kept: Bools = carries & (~single | alone | ~some[c.model])
        return kept

    def _dearest(self, share_of: Ints, cost: Floats) -> Floats:
        """J above anything that serving a model could cost: the price of not serving it."""
        c = self.problem.candidates
        dear = np.ones(len(self.problem.models))
        per_server = self._server_cost + self._node_cost + self._watt_cost * self._tallest_awake()
        spent = cost + per_server[c.pool[share_of]] * (1 + self._replicas_for[share_of])
        np.maximum.at(dear, c.model[share_of], 10 * spent)
        return dear + 10 * float(per_server.max(initial=0.0))

    def _tallest_awake(self) -> Floats:
        tallest = np.zeros(len(self.problem.pools))
        np.maximum.at(tallest, self.problem.candidates.pool, self.problem.candidates.awake_watts)
        return tallest

    def _awake_levels(self, share_of: Ints) -> list[tuple[int, float, Ints]]:
        """(pool, watts of this step, candidates that need it): a server awake for a candidate is on all steps up to its own."""
        levels: list[tuple[int, float, Ints]] = []
        awake, pool = self.problem.candidates.awake_watts, self.problem.candidates.pool[share_of]
        for p in np.unique(pool[awake[share_of] > 0]).tolist():
            mine = share_of[pool == p]
            heights = np.unique(awake[mine][awake[mine] > 0])
            if len(heights) > AWAKE_LEVELS:
                heights = np.quantile(heights, np.linspace(0, 1, AWAKE_LEVELS), method="lower")
            below = 0.0
            for height in np.unique(heights).tolist():
                levels.append((p, height - below, mine[awake[mine] >= height]))
                below = height
        return levels

    def _unlevelled(self) -> Floats:
        """Watts of being awake above the highest step at or below, in proportion: the greatest is at least the mean."""
        covered = np.zeros(len(self.problem.candidates.model))
        for _, step, candidates in self._levels:
            covered[candidates] += step
        return np.maximum((self.problem.candidates.awake_watts - covered) * self._servers_for, 0.0)

    def _add_models(self) -> None:
        """Each model's demand and its count of replicas."""
        problem, c, x, put = self.problem, self.problem.candidates, self.columns, self._programme.put
        row = np.full(len(problem.models), -1, np.int64)
        row[x.unserved_of] = self.row_served = self._programme.add_rows(len(x.unserved_of), 1.0, 1.0)
        put(row[c.model[x.share_of]], x.share, 1.0)
        put(row[x.unserved_of], x.unserved, 1.0)

        need = problem.need.astype(float)
        row[:] = -1
        self.row_missing = self._programme.add_rows(len(x.missing_of), need[x.missing_of], name="model need", of=x.missing_of)
        row[x.missing_of] = self.row_missing
        counted = row[c.model[x.share_of]] >= 0
        put(row[c.model[x.share_of[counted]]], x.share[counted], self._replicas_for[x.share_of[counted]])
        put(row[c.model[x.held_of]], x.held, 1.0)
        put(row[x.missing_of], x.missing, 1.0)

        limited = problem.highest < MANY
        tight = np.zeros(len(problem.models), np.bool_)
        many = self._replicas_for[x.share_of] > problem.highest[c.model[x.share_of]]
        tight[c.model[x.share_of[many]]] = True
        tight[c.model[x.held_of]] = True
        tight &= limited
        tight_of = np.flatnonzero(tight)
        row[:] = -1
        most = problem.highest[tight_of].astype(float)
        row[tight_of] = self._programme.add_rows(len(tight_of), upper=most, name="model most", of=tight_of)
        for columns, of, weight in ((x.share, x.share_of, self._replicas_for), (x.held, x.held_of, np.ones(len(c.model)))):
            mine = tight[c.model[of]]
            put(row[c.model[of[mine]]], columns[mine], weight[of[mine]])

    def _add_pools(self) -> None:
        """Busy share, memory and places of each pool, its nodes, its awake servers, and one replica of a model a server."""
        c, x, on = self.problem.candidates, self.columns, self.problem.on
        put, add_rows, count = self._programme.put, self._programme.add_rows, len(self.problem.pools)
        replicas = ((x.share, x.share_of, self._replicas_for), (x.held, x.held_of, np.ones(len(c.model))))
        self._priced_rows = [busy := add_rows(count, upper=0.0, name="pool busy")]
        put(busy, x.servers, -self._fill)
        put(busy[c.pool[x.share_of]], x.share, self._servers_for[x.share_of])
        self._parts = _parts(self.problem)
        for number, part in enumerate(self._parts):
            rows = add_rows(count, upper=0.0, name=f"pool part {number}")
            put(rows, x.servers, -1.0)
            for columns, of, weight in replicas:
                mine = np.flatnonzero(part[of] > 0)
                put(rows[c.pool[of[mine]]], columns[mine], (part * weight)[of[mine]])
            if number < 2:
                self._priced_rows.append(rows)
        nodes = add_rows(count, upper=0.0, name="pool nodes")
        put(nodes, x.servers, 1.0)
        put(nodes, x.nodes, -on.per_node.astype(float))
        self._add_awake()
        self._add_one_a_server(replicas)

    def _add_awake(self) -> None:
        x, on = self.columns, self.problem.on
        share_column = np.full(len(self.problem.candidates.model), -1, np.int64)
        share_column[x.share_of] = x.share
        self.awake: list[tuple[int, int, float]] = []
        below: dict[int, int] = {}
        for pool, step, candidates in self._levels:
            column = self._programme.add_columns(np.array([step * self._watt_cost[pool]]), float(on.most[pool]), whole=True)
            level = np.array([pool * LEVELS + sum(other == pool for other, _, _ in self.awake)])
            need = np.concatenate(
                [self._programme.add_rows(1, upper=0.0, name=f"level {what}", of=level) for what in ("load", "server")]
            )
            self._programme.put(np.full(len(candidates), need[0]), share_column[candidates], self._servers_for[candidates])
            self._programme.put(need[:1], column, -self._fill)
            self._programme.put(need[1:], column, 1.0)
            self._programme.put(need[1:], np.array([below.get(pool, int(x.servers[pool]))]), -1.0)
            for number, part in enumerate(self._parts):
                room = self._programme.add_rows(1, upper=0.0, name=f"level part {number}", of=level)
                held = candidates[part[candidates] > 0]
                self._programme.put(np.full(len(held), room[0]), share_column[held], (part * self._replicas_for)[held])
                self._programme.put(room, column, -1.0)
            below[pool] = int(column[0])
            self.awake.append((pool, int(column[0]), step))

    def _add_one_a_server(self, replicas: tuple[tuple[Ints, Ints, Floats], ...]) -> None:
        """A model that needs several replicas needs as many servers of the pools that hold them."""
        problem, c, x = self.problem, self.problem.candidates, self.columns
        several = problem.need > 1
        pools = len(problem.pools)
        places = np.unique(c.model[x.held_of] * pools + c.pool[x.held_of])
        places = places[several[places // pools]] if pools else places
        if not len(places):
            return
        rows = self._programme.add_rows(len(places), upper=0.0, name="place apart", of=places)
        self._programme.put(rows, x.servers[places % pools], -1.0)
        for columns, of, weight in replicas:
            place = c.model[of] * pools + c.pool[of]
            at = np.minimum(np.searchsorted(places, place), len(places) - 1)
            mine = places[at] == place
            self._programme.put(rows[at[mine]], columns[mine], weight[of[mine]])

    def _add_limits(self, limits: tuple[Limit, ...]) -> None:
        """Watts of each scope that can be held at all."""
        c, x, on = self.problem.candidates, self.columns, self.problem.on
        watts = on.pue[c.pool] * self._watts
        slope = on.pue[c.pool] * c.slope_watts * self._busy
        for number, limit in enumerate(limits):
            if limit.hopeless:
                continue
            row = self._programme.add_rows(1, upper=limit.watts - limit.constant, name="limit", of=np.array([number]))
            mine = limit.candidates[x.share_of]
            drawn = (watts if limit.whole_pools else slope)[x.share_of[mine]]
            self._programme.put(np.full(int(mine.sum()), row[0]), x.share[mine], drawn)
            if not limit.whole_pools:
                continue
            scope = np.flatnonzero(limit.pools)
            at = np.full(len(scope), row[0])
            self._programme.put(at, x.servers[scope], on.server_watts[scope])
            self._programme.put(at, x.nodes[scope], on.node_watts[scope])
            awake = [(column, step * on.pue[pool]) for pool, column, step in self.awake if limit.pools[pool]]
            steps = np.array([step for _, step in awake])
            self._programme.put(np.full(len(awake), row[0]), np.array([column for column, _ in awake], np.int64), steps)

    def _add_tiers(self, effort: Effort) -> list[_Tier]:
        """Rows that can hold the shortfall of each tier: replicas first, then work."""
        problem, x = self.problem, self.columns
        tiers: list[_Tier] = []
        for group in _groups(problem, effort):
            models = np.isin(problem.tier, group)
            of_missing, of_unserved = models[x.missing_of], models[x.unserved_of]
            work = problem.demand[x.unserved_of[of_unserved]]
            scale = float(work.max(initial=1e-300))
            for columns, weights, unit in (
                (x.missing[of_missing], np.ones(int(of_missing.sum())), 1.0),
                (x.unserved[of_unserved], work / scale, scale),
            ):
                row = self._programme.add_rows(1)
                self._programme.put(np.full(len(columns), row[0]), columns, weights)
                tiers.append(_Tier(int(row[0]), columns, weights, unit, models))
        return tiers

    def awake_in_parts(self) -> None:
        """Ask for servers and nodes in whole numbers, and not for awake ones: most of what they tell, in a third of the time."""
        self.solver.whole[:] = False
        self.solver.whole[self.columns.nodes] = self.solver.whole[self.columns.servers] = True

    def cost_of_running(self) -> Floats:
        """The programme's costs without those of shortfall."""
        cost = self._programme.cost
        cost[self.columns.unserved] = cost[self.columns.missing] = 0.0
        return cost

    def read(self, answer: Answer, prices: Floats, bound: float, *, none_short: bool) -> PoolLevel:
        """The answer by candidates and pools. `prices`: of the rows of the relaxation."""
        share, held = (np.zeros(len(self.problem.candidates.model)) for _ in range(2))
        x = self.columns
        share[x.share_of] = np.clip(answer.values[x.share], 0.0, 1.0)
        held[x.held_of] = np.maximum(answer.values[x.held], 0.0)
        busy, memory, slots = (np.maximum(-prices[rows], 0.0) for rows in self._priced_rows)
        named = self._programme.name_prices(prices)
        demand, replica = np.zeros(len(self.problem.models)), np.zeros(len(self.problem.models))
        demand[x.unserved_of] = np.maximum(prices[self.row_served], 0.0)
        replica[x.missing_of] = np.maximum(prices[self.row_missing], 0.0)
        servers = answer.values[x.servers]
        return PoolLevel(share, held, servers, busy, memory, slots, demand, replica, bound, none_short, named)

    def relaxed(self) -> Answer | None:
        """The optimum without whole numbers; where there are very many columns, by way of those that promise most."""
        if len(self.problem.candidates.model) <= SIFTED_FROM:
            return self.solver.relaxed()
        x, c, on = self.columns, self.problem.candidates, self.problem.on
        start = np.ones(len(self.solver.cost), np.bool_)
        server = on.server_cost + on.node_cost / on.per_node
        start[x.share] = _first_of_each(
            c.model[x.share_of], self.solver.cost[x.share] + (server[c.pool] * self._servers_for)[x.share_of]
        )
        start[x.held] = _first_of_each(c.model[x.held_of], (server[c.pool] * self._parts[0])[x.held_of])
        return self.solver.sifted(start)

    def name_prices(self, prices: Floats) -> Prices:
        """The rows' prices by what the rows speak of."""
        return self._programme.name_prices(prices)

    def bound_at(self, prices: Prices, lacking: tuple[Floats, Floats] | None) -> float:
        """J that the programme cannot go below, from these prices of its rows. Without `lacking`: where nothing lacks."""
        x, models = self.columns, self.problem.candidates.model
        worth, reduced = self._programme.priced(prices)
        lower, upper = self._programme.boxes()
        serve = np.full(len(self.problem.models), np.inf)
        np.minimum.at(serve, models[x.share_of], reduced[x.share])
        asked = self.problem.demand > 0
        if lacking is not None:
            worth -= self._worth_of_lacking(reduced, serve, lacking)
        worth += float(serve[asked & np.isfinite(serve)].sum())
        rest = np.concatenate([x.held, x.servers, x.nodes, np.array([column for _, column, _ in self.awake], np.int64)])
        return worth + float(np.minimum(reduced[rest] * lower[rest], reduced[rest] * upper[rest]).sum())

    def _worth_of_lacking(self, reduced: Floats, serve: Floats, lacking: tuple[Floats, Floats]) -> float:
        """J that so much lacking may save, at the best price of each tier's shortfall; `serve` is cut down to that price."""
        x, saved = self.columns, 0.0
        for number, tier in enumerate(self.tiers):
            least = 1e-9 * tier.unit
            allowed = float(lacking[number % 2][tier.models].sum()) * (1 + 1e-9) + least
            if number % 2 == 0:
                columns, of = x.missing[tier.models[x.missing_of]], x.missing_of[tier.models[x.missing_of]]
                worth, amount = self._programme.cost[columns] - reduced[columns], self.problem.need[of].astype(float)
                price = _price_of(worth, amount, allowed)
                saved += float((amount * np.maximum(worth - price, 0.0)).sum())
            else:
                of = x.unserved_of[tier.models[x.unserved_of]]
                amount = self.problem.demand[of]
                price = _price_of(serve[of] / amount, amount, allowed)
                serve[of] = np.minimum(serve[of], price * amount)
            saved += price * allowed
        return saved

    def lacks(self, answer: Answer) -> bool:
        """Whether something is short in the answer."""
        x = self.columns
        return bool((answer.values[x.unserved] > _NONE).any() or (answer.values[x.missing] > _NONE).any())


def _parts(problem: Problem) -> list[Floats]:
    """By candidate, parts of a server that each replica takes, of which no server gives more than 1.

    Its memory and its place; and because memory cannot be split: above a half each replica needs a server, above a third any
    two, above a quarter any three (dual feasible functions: Fekete and Schepers, New classes of fast lower bounds for bin
    packing problems, 2001).
    """
    c, on = problem.candidates, problem.on
    memory = np.divide(c.memory_bytes, on.memory_bytes[c.pool], out=np.zeros(len(c.pool)), where=c.memory_bytes > 0)
    steps = [np.floor((k + 1) * memory * (1 - 1e-12)) / k for k in (1, 2, 3)]
    return [np.maximum(memory, 0.0), 1.0 / np.maximum(on.slots[c.pool], 1), *(np.clip(step, 0.0, 1.0) for step in steps)]


def _price_of(worth: Floats, amount: Floats, allowed: float) -> float:
    """J of one unit lacking, such that those worth more are no more than may lack."""
    order = np.argsort(-worth, kind="stable")
    beyond = np.flatnonzero(np.cumsum(amount[order]) > allowed)
    if not len(beyond):
        return 0.0
    price = float(worth[order[beyond[0]]])
    return max(0.0, price) if np.isfinite(price) else float(worth[np.isfinite(worth)].max(initial=0.0))


def _first_of_each(models: Ints, worth: Floats) -> Bools:
    """Which entries are among the few least of their model, or among every so many of the others."""
    order = np.lexsort((worth, models))
    ranked = models[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    first = np.zeros(len(order), np.bool_)
    first[order[(rank < _SIFTED_FIRST) | ((rank + ranked) % _SIFTED_EVERY == 0)]] = True
    return first


def _groups(problem: Problem, effort: Effort) -> list[Ints]:
    """Tiers to be settled one after the other; the lowest ones together where there are very many."""
    tiers = np.unique(problem.tier)
    settled = [tiers[k : k + 1] for k in range(min(len(tiers), effort.tiers))]
    return [*settled, tiers[effort.tiers :]] if len(tiers) > effort.tiers else settled
