"""How much each of the standing replicas serves: a linear programme over replicas that stay where they are."""

from collections.abc import Callable

import numpy as np

from ergon.planning.arrays import Floats, Ints
from ergon.planning.effort import Effort
from ergon.planning.linear import Answer, Programme, Solver
from ergon.planning.servers import ROUNDING, Servers, any_lacks, less_short, rank_of_shortfall

_SLACK = 1 + 2e-10
"""A plan that fills a server to the last bit must be found to be possible again."""

_LEAST_PART = 1e-10
"""Of a model's demand: less is the solver's rounding."""


def share_out(servers: Servers, effort: Effort) -> bool:
    """Serve as much as the replicas can, for the least J; whether the solver had an answer.

    A server is filled up to the least rho of its replicas of models with demand.
    """
    return _share_out(servers, effort, lambda m, s: True)


def share_out_among_busy(servers: Servers, effort: Effort) -> bool:
    """The same where those that carry nothing now are left so and stand in nobody's way."""
    return _share_out(servers, effort, lambda m, s: servers.share[m][s] > 0)


def find_shares(servers: Servers, effort: Effort) -> None:
    """Find the shares of replicas of which only the places are known; what lacks then lacks to few models.

    A server is filled up to the least rho of its replicas with load, and which those are is part of the question. First all may
    carry; where that leaves something short, replicas that may stay idle pay for their low rho in proportion, and only those
    that are given something may carry; or none that would make a server's limit less. What leaves the least short is taken.
    """
    done = _share_out(servers, effort, lambda m, s: True, to_few=True)
    if done and not any_lacks(servers):
        return
    found, short = _shares(servers), rank_of_shortfall(servers)
    must = _limits_of_those_that_must(servers)
    tries: list[Callable[[int, int], bool]] = [
        lambda m, s: servers.share[m][s] > 0,
        lambda m, s: servers.table.rho[servers.homes[m][s]] >= must[s],
    ]
    if _share_out(servers, effort, lambda m, s: True, must):
        for may_carry in tries:
            if _share_out(servers, effort, may_carry) and less_short(rank_of_shortfall(servers), short):
                found, short = _shares(servers), rank_of_shortfall(servers)
    for m, shares in enumerate(found):
        for s, u in shares.items():
            if servers.share[m][s] != u:
                servers.change(m, s, u)


def _shares(servers: Servers) -> list[dict[int, float]]:
    return [dict(shares) for shares in servers.share]


def _limits_of_those_that_must(servers: Servers) -> Floats:
    """By server, the least rho of replicas that surely carry load: a plan leaves none idle beyond its model's least."""
    must = np.full(len(servers.load), np.inf)
    table = servers.table
    for m, homes in enumerate(servers.homes):
        if table.demand[m] > 0 and (len(homes) == 1 or len(homes) > table.lowest[m]):
            for s, c in homes.items():
                if table.mu[c] > 0:
                    must[s] = min(must[s], table.rho[c])
    return must


def _share_out(
    servers: Servers,
    effort: Effort,
    may_carry: Callable[[int, int], bool],
    must: Floats | None = None,
    *,
    to_few: bool = False,
) -> bool:
    """Share out over the replicas that may carry. With `must`, lower rhos than these limits only count in proportion.

    What cannot be served lacks by priority, or with `to_few` to as few models as may be.
    """
    problem, table = servers.problem, servers.table
    models, candidates, places = _replicas(servers, may_carry)
    idle = [(m, s) for m, homes in enumerate(servers.homes) for s in homes if servers.share[m][s] > 0 and not may_carry(m, s)]
    if not len(models):
        return True
    mu, rho = problem.candidates.mu[candidates], problem.candidates.rho[candidates]
    limit = np.full(len(servers.load), np.inf)
    np.minimum.at(limit, places, rho)
    weight = np.ones(len(places))
    if must is not None:
        limit = np.where(np.isinf(must), limit, must)
        weight = np.maximum(1.0, limit[places] / rho)

    programme = Programme()
    demand = problem.demand[models]
    whole = demand / mu
    cost = problem.candidates.cost[candidates] * whole
    share = programme.add_columns(cost, np.minimum(1.0, rho * _SLACK / whole))
    asked = np.unique(models)
    dear = _dear(servers, models, candidates)[asked]
    unserved = programme.add_columns(np.full(len(asked), dear.max()) if to_few else dear, 1.0)
    row = programme.add_rows(len(asked), 1.0, 1.0)
    programme.put(row[np.searchsorted(asked, models)], share, 1.0)
    programme.put(row, unserved, 1.0)
    used = np.unique(places)
    full = programme.add_rows(len(used), upper=limit[used] * _SLACK)
    programme.put(full[np.searchsorted(used, places)], share, weight * whole)
    if not _add_limits(servers, programme, candidates, places, share, whole):
        return False
    solver = programme.solver(effort.solver_seconds, tolerance=1e-10)
    answer = solver.relaxed()
    if answer is not None and not to_few and (answer.values[unserved] > 1e-9).any():
        answer = _by_priority(servers, solver, asked, unserved)
    if answer is None:
        return False
    for m, s in idle:
        servers.change(m, s, 0.0)
    values = np.minimum(answer.values[share] * whole, rho)
    worth = answer.values[share] > _LEAST_PART
    for m, s, u in zip(models.tolist(), places.tolist(), np.where(worth, values, 0.0).tolist(), strict=True):
        if u != servers.share[m][s]:
            servers.change(m, s, u)
    for m in asked.tolist():
        _round_off(servers, m, table.demand[m])
    return True


def _replicas(servers: Servers, may_carry: Callable[[int, int], bool]) -> tuple[Ints, Ints, Ints]:
    table = servers.table
    found = [
        (m, c, s)
        for m, homes in enumerate(servers.homes)
        if table.demand[m] > 0
        for s, c in sorted(homes.items())
        if table.mu[c] > 0 and may_carry(m, s)
    ]
    rows = np.array(found, np.int64).reshape(len(found), 3)
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _dear(servers: Servers, models: Ints, candidates: Ints) -> Floats:
    """By model, J above anything that serving all of its demand on these replicas could cost."""
    c, demand = servers.problem.candidates, servers.problem.demand
    dear = np.ones(len(demand))
    np.maximum.at(dear, models, 10 * (1 + c.cost[candidates] / c.mu[candidates] * demand[models]))
    return dear


def _by_priority(servers: Servers, solver: Solver, asked: Ints, unserved: Ints) -> Answer | None:
    """The least unserved work, priority by priority from the highest, then the least J."""
    problem = servers.problem
    running = solver.cost.copy()
    demand = problem.demand[asked]
    # the same for any work, and above what any work could cost: what lacks to whom within a tier is for the least J to say
    running[unserved] = float((running[unserved] / demand).max()) * demand
    tiers = problem.tier[asked]
    for tier in np.unique(tiers).tolist():
        mine = np.flatnonzero(tiers == tier)
        cost = np.zeros(len(running))
        cost[unserved[mine]] = problem.demand[asked[mine]] / problem.demand[asked[mine]].max()
        solver.set_cost(cost)
        best = solver.relaxed()
        if best is None:
            return None
        solver.hold(unserved[mine], cost[unserved[mine]], best.cost, slack=1e-10)
    solver.set_cost(running)
    return solver.relaxed()


def _add_limits(servers: Servers, programme: Programme, candidates: Ints, places: Ints, share: Ints, whole: Floats) -> bool:
    """What executes in scope, with every server of it that may be awake taken as awake; whether that can be within the limits."""
    problem, c = servers.problem, servers.problem.candidates
    for limit in servers.limits:
        if limit.hopeless:
            continue
        mine = limit.candidates[candidates]
        fixed = limit.constant
        if limit.whole_pools:
            scope = np.flatnonzero(limit.pools).tolist()
            fixed += sum(servers.watts_of_count(p, servers.occupied[p]) for p in scope)
            awake = np.zeros(len(servers.load))
            np.maximum.at(awake, places[mine], problem.on.pue[c.pool[candidates[mine]]] * c.awake_watts[candidates[mine]])
            fixed += float(awake.sum())
        if fixed > limit.watts:
            return False
        row = programme.add_rows(1, upper=limit.watts - fixed)
        slope = problem.on.pue[c.pool[candidates]] * c.slope_watts[candidates] * whole
        programme.put(np.full(int(mine.sum()), row[0]), share[mine], slope[mine])
    return True


def _round_off(servers: Servers, m: int, demand: float) -> None:
    """Let the replicas serve exactly the demand where they miss it, or pass it, by rounding only."""
    served = servers.served(m)
    if served <= 0 or served == demand or abs(served - demand) > 1e-8 * demand:
        return
    for s, u in list(servers.share[m].items()):
        rounded = u * demand / served
        if u > ROUNDING and servers.load[s] + rounded - u <= servers.limit[s] * _SLACK:
            servers.change(m, s, rounded)
