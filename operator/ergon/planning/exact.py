"""The best placement on a handful of servers, exactly: which replica on which server, by branch and bound.

A whole fleet where it is tiny; a neighbourhood of two to five servers in a larger one.
"""

from dataclasses import dataclass

import numpy as np

from ergon.planning.arrays import Floats, Ints
from ergon.planning.effort import Effort
from ergon.planning.linear import INFINITY, Answer, Programme, Solver
from ergon.planning.placing import Placer
from ergon.planning.problem import Problem


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be placed on which servers. `work`, `least`, `most`: of each model, on these servers alone."""

    places: list[int]
    models: list[int]
    work: list[float]
    least: list[int]
    most: list[int]


@dataclass(frozen=True, slots=True)
class _Slots:
    """(candidate, server) by number, with the model's and the server's place in the task."""

    candidate: Ints
    server: Ints
    model: Ints
    place: Ints


def possible(placer: Placer, task: Task) -> list[tuple[int, int, int, int]]:
    """Every (candidate, server, model's place, server's place) that could be."""
    servers, table = placer.servers, placer.servers.table
    found = []
    for k, m in enumerate(task.models):
        if task.most[k] <= 0:
            continue
        for c in placer.holders(m):
            refused = servers.problem.refused.get(c, frozenset())
            for j, s in enumerate(task.places):
                if servers.pool_of[s] != table.pool[c] or m in servers.residents[s]:
                    continue
                if table.memory[c] <= servers.free_bytes[s] and servers.ordinal(s) not in refused:
                    found.append((c, s, k, j))
    return found


class Exact:
    """The programme of one task. The servers of the task hold nothing yet. `lacking`: tiers in which something may be short."""

    def __init__(
        self, placer: Placer, task: Task, pairs: list[tuple[int, int, int, int]], lacking: list[int], effort: Effort
    ) -> None:
        self.servers, self.task, self.lacking = placer.servers, task, lacking
        rows = np.array(pairs, np.int64).reshape(len(pairs), 4)
        self.slots = _Slots(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3])
        self._programme = Programme()
        c, x = self.servers.problem.candidates, self.slots
        self._carries = np.flatnonzero((c.mu[x.candidate] > 0) & (np.array(task.work)[x.model] > 0))
        self._add_columns()
        self._add_models()
        self._add_servers()
        self._add_limits()
        self.solver: Solver = self._programme.solver(effort.solver_seconds, tolerance=1e-9)
        self.solver.without_presolve()  # at this tolerance that of HiGHS 1.16 was seen to lose the optimum

    def _add_columns(self) -> None:
        problem, x, add = self.servers.problem, self.slots, self._programme.add_columns
        c, on = problem.candidates, problem.on
        self.there = add(np.zeros(len(x.candidate)), 1.0, whole=True)
        carries = self._carries
        least = np.array(self.task.least)[x.model[carries]]
        may_lack = np.isin(problem.tier[c.model[x.candidate[carries]]], self.lacking)
        twofold = (least > 1) | ((least == 1) & may_lack)  # else a replica that carries nothing is never of use
        self.loaded = self.there[carries].copy()
        self.loaded[twofold] = add(np.zeros(int(twofold.sum())), 1.0, whole=True)
        self._twofold = np.flatnonzero(twofold)
        self.busy = add(c.cost[x.candidate[carries]], c.rho[x.candidate[carries]])
        places = np.array(self.task.places, np.int64)
        self._pool = np.array([self.servers.pool_of[s] for s in self.task.places], np.int64)
        self.on = add(on.server_cost[self._pool], 1.0, whole=True)
        tallest = np.zeros(len(places))
        np.maximum.at(tallest, x.place[carries], c.awake_watts[x.candidate[carries]])
        self.awake = add(on.watt_cost[self._pool], tallest)
        self._tallest = tallest
        self.pools = np.unique(self._pool)
        occupied = np.array([max(self.servers.occupied[p], self.servers.table.least[p]) for p in self.pools], float)
        self._free = np.array([max(0, self.servers.table.least[p] - self.servers.occupied[p]) for p in self.pools], float)
        nodes_on = np.ceil(occupied / on.per_node[self.pools])
        most_nodes = np.ceil((occupied + len(places)) / on.per_node[self.pools])
        self.nodes = add(on.node_cost[self.pools], most_nodes, nodes_on, whole=True)
        self.free_on = add(-on.server_cost[self.pools], self._free)
        self._occupied = np.array([self.servers.occupied[p] for p in self.pools], float)
        self.constant = float((on.node_cost[self.pools] * nodes_on).sum())
        self.unserved = add(np.zeros(len(self.task.models)), 1.0)
        self.missing = add(np.zeros(len(self.task.models)), np.array(self.task.least, float))

    def _add_models(self) -> None:
        c, x, task, put, rows = (
            self.servers.problem.candidates,
            self.slots,
            self.task,
            self._programme.put,
            self._programme.add_rows,
        )
        work = np.array(task.work)
        served = rows(len(task.models), np.where(work > 0, 1.0, 0.0), np.where(work > 0, 1.0, INFINITY))
        mine = self._carries
        put(served[x.model[mine]], self.busy, c.mu[x.candidate[mine]] / work[x.model[mine]])
        put(served[work > 0], self.unserved[work > 0], 1.0)
        enough = rows(len(task.models), np.array(task.least, float))
        put(enough[x.model], self.there, 1.0)
        put(enough, self.missing, 1.0)
        put(rows(len(task.models), upper=np.array(task.most, float))[x.model], self.there, 1.0)
        pair = x.model * len(task.places) + x.place
        known, at = np.unique(pair, return_inverse=True)
        put(rows(len(known), upper=1.0)[at], self.there, 1.0)
        loads = rows(len(mine), upper=0.0)
        put(loads, self.busy, 1.0)
        put(loads, self.loaded, -c.rho[x.candidate[mine]])
        held = rows(len(self._twofold), upper=0.0)
        put(held, self.loaded[self._twofold], 1.0)
        put(held, self.there[mine[self._twofold]], -1.0)

    def _add_servers(self) -> None:
        problem, x, task, put, rows = self.servers.problem, self.slots, self.task, self._programme.put, self._programme.add_rows
        c, servers = problem.candidates, self.servers
        places = np.array(task.places, np.int64)
        count = len(places)
        stands = rows(len(x.candidate), upper=0.0)
        put(stands, self.there, 1.0)
        put(stands, self.on[x.place], -1.0)
        for used, free in (
            (c.memory_bytes[x.candidate], servers.free_bytes[places]),
            (np.ones(len(x.candidate)), servers.free_slots[places]),
        ):
            scale = np.maximum(free, 1.0)
            at = rows(count, upper=0.0)
            put(at[x.place], self.there, used / scale[x.place])
            put(at, self.on, -free / scale)
        mine = self._carries
        rho, place = c.rho[x.candidate[mine]], x.place[mine]
        parts = rows(count, upper=0.0)
        put(parts[place], self.busy, 1.0 / rho)
        put(parts, self.on, -1.0)
        widest = np.zeros(count)
        np.maximum.at(widest, place, rho)
        for k in np.flatnonzero(rho < widest[place] - 1e-12).tolist():
            here = self.busy[place == place[k]]
            row = rows(1, upper=float(widest[place[k]]))
            put(np.full(len(here), row[0]), here, 1.0)
            put(row, self.loaded[k : k + 1], float(widest[place[k]] - rho[k]))
        height = c.awake_watts[x.candidate[mine]]
        for k in np.flatnonzero(height > 0).tolist():
            row = rows(1, upper=0.0)
            put(row, self.loaded[k : k + 1], float(height[k]))
            put(row, self.awake[place[k] : place[k] + 1], -1.0)
        self._add_counts()

    def _add_counts(self) -> None:
        """Nodes for the servers that are on, those that are on anyway free, and no ordinal without those below it."""
        on, put, rows = self.servers.problem.on, self._programme.put, self._programme.add_rows
        for k, p in enumerate(self.pools.tolist()):
            here = self.on[self._pool == p]
            row = rows(1, upper=-float(self._occupied[k]))
            put(np.full(len(here), row[0]), here, 1.0)
            put(row, self.nodes[k : k + 1], -float(on.per_node[p]))
            row = rows(1, upper=0.0)
            put(row, self.free_on[k : k + 1], 1.0)
            put(np.full(len(here), row[0]), here, -1.0)
            order = rows(max(0, len(here) - 1), upper=0.0)
            put(order, here[1:], 1.0)
            put(order, here[:-1], -1.0)

    def _add_limits(self) -> None:
        servers, problem, x, c = self.servers, self.servers.problem, self.slots, self.servers.problem.candidates
        pue = problem.on.pue
        for number, limit in enumerate(servers.limits):
            if limit.hopeless:
                continue
            spare = limit.watts - servers.drawn[number]
            scope = np.flatnonzero(limit.pools[self.pools]).tolist() if limit.whole_pools else []
            spare += sum(self._watts_of_nodes(int(self.pools[k])) for k in scope)
            row = self._programme.add_rows(1, upper=spare)
            candidates = x.candidate[self._carries]
            inside = limit.candidates[candidates]
            slope = (pue[c.pool[candidates]] * c.slope_watts[candidates])[inside]
            self._programme.put(np.full(int(inside.sum()), row[0]), self.busy[inside], slope)
            if limit.whole_pools:
                mine = limit.pools[self._pool]
                at = np.full(int(mine.sum()), row[0])
                self._programme.put(at, self.on[mine], problem.on.server_watts[self._pool[mine]])
                self._programme.put(at, self.awake[mine], pue[self._pool[mine]])
            for k in scope:
                p = int(self.pools[k])
                self._programme.put(row, self.nodes[k : k + 1], float(problem.on.node_watts[p]))
                self._programme.put(row, self.free_on[k : k + 1], -float(problem.on.server_watts[p]))

    def _watts_of_nodes(self, p: int) -> float:
        table = self.servers.table
        return table.node_watts[p] * -(-max(self.servers.occupied[p], table.least[p]) // table.per_node[p])

    def solve(self, nodes: int, start: Floats | None = None) -> Answer | None:
        """The least J after the least shortfall, priority by priority."""
        running = self.solver.cost.copy()
        tiers = self.servers.problem.tier[self.task.models]
        for k in np.flatnonzero(~np.isin(tiers, self.lacking)).tolist():
            for column in (int(self.unserved[k]), int(self.missing[k])):
                self.solver.set_column(column, 0.0, 0.0)
        for tier in self.lacking:
            mine = np.flatnonzero(tiers == tier)
            for columns, weights in (
                (self.missing[mine], np.ones(len(mine))),
                (self.unserved[mine], np.array(self.task.work)[mine]),
            ):
                if not weights.any():
                    continue
                cost = np.zeros(len(running))
                cost[columns] = weights / weights.max()
                self.solver.set_cost(cost)
                best = self.solver.in_whole(nodes)
                if best is None:
                    return None
                self.solver.hold(columns, cost[columns], best.cost)
        self.solver.set_cost(running)
        return self.solver.in_whole(nodes, start=start)

    def apply(self, answer: Answer) -> None:
        """Put the answer's replicas on the task's servers."""
        x = self.slots
        busy = np.zeros(len(x.candidate))
        loaded = answer.values[self.loaded] > 0.5
        busy[self._carries[loaded]] = answer.values[self.busy][loaded]
        for k in np.flatnonzero(answer.values[self.there] > 0.5).tolist():
            c, u = int(x.candidate[k]), float(busy[k])
            worth = u * self.servers.table.mu[c] > 1e-6 * self.task.work[x.model[k]]
            self.servers.put(c, int(x.server[k]), u if worth else 0.0)


def may_be_whole(problem: Problem, effort: Effort) -> bool:
    """Whether a fleet is so small that solving it whole is worth a look at its yes-or-no questions."""
    return int(problem.on.most.sum()) * len(problem.models) <= 20 * effort.exact_binaries


def solve_whole(placer: Placer, effort: Effort, lacking: list[int]) -> float | None:
    """Solve a tiny fleet whole, in place; J that no plan of this shortfall is below, None where that is too much to ask.

    `lacking`: tiers in which the plan so far lacks something.
    """
    servers, table = placer.servers, placer.servers.table
    if not may_be_whole(servers.problem, effort):
        return None
    mark = len(servers.journal)
    for m, homes in enumerate(servers.homes):
        for s in list(homes):
            servers.take(m, s)
    models = list(range(len(table.demand)))
    need = servers.problem.need.tolist()
    task = Task(
        list(range(len(servers.pool_of))), models, table.demand, need, [min(h, len(servers.pool_of)) for h in table.highest]
    )
    pairs = possible(placer, task)
    answer = None
    if 0 < len(pairs) <= effort.exact_binaries:
        exact = Exact(placer, task, pairs, lacking, effort)
        answer = exact.solve(effort.exact_nodes)
    if answer is None:
        servers.undo(mark)
        return None
    exact.apply(answer)
    return answer.bound + sum(cost * least for cost, least in zip(table.server_cost, table.least, strict=True))
