"""Whole servers from patterns: find what patterns are worth, take the surest ones, and again with what is then left.

Column generation and diving (Desaulniers, Desrosiers and Solomon, Column Generation, 2005), with prices smoothed (Wentges 1997)
from those of the pool level on.
"""

import numpy as np

from ergon.planning.arrays import Floats
from ergon.planning.effort import Effort
from ergon.planning.limits import Limit, closed_by
from ergon.planning.mixing import Mix, Patterns, Prices, Rest
from ergon.planning.patterns import Pattern, Shelf
from ergon.planning.placing import Placer
from ergon.planning.pool_programme import PoolLevel
from ergon.planning.problem import Problem
from ergon.planning.servers import Servers

_SURE = 0.85
"""A pattern that fills a server so far is taken for a whole one."""

_AT_ONCE = 0.08
"""Part of all servers that is filled before prices are found again."""

_SMOOTH, _LATE = 0.6, 0.3
"""Weight of the prices before, in the first half of the rounds and in the second."""


def dive(placer: Placer, level: PoolLevel, known: list[Servers], effort: Effort) -> bool:
    """Fill servers that hold nothing; whether the solver had an answer. What is left over is for the placer.

    `known`: other plans, whose servers are patterns too.
    """
    search = _Dive(placer, effort)
    for servers in known:
        search.patterns.add(_patterns_of(servers))
    nodes = search.find_patterns(Prices(level.demand_price, level.replica_price, np.zeros(len(placer.servers.limits))))
    return nodes is not None and search.fill(nodes)


def _patterns_of(servers: Servers) -> list[Pattern]:
    """What the servers of a plan hold."""
    found = []
    for s, residents in enumerate(servers.residents):
        if residents:
            mine = sorted((c, servers.share[m][s]) for m, c in residents.items())
            busy = np.array([u for _, u in mine])
            found.append(Pattern(servers.pool_of[s], np.array([c for c, _ in mine], np.int64), busy))
    return found


def _shelves(problem: Problem, limits: tuple[Limit, ...]) -> list[Shelf]:
    c = problem.candidates
    usable = c.useful & ~c.standing_only & ~closed_by(limits, problem) & (problem.highest[c.model] > 0)
    return [Shelf(problem, p, usable) for p in range(len(problem.pools))]


class _Dive:
    def __init__(self, placer: Placer, effort: Effort) -> None:
        self.placer, self.servers, self.problem = placer, placer.servers, placer.servers.problem
        self.patterns = Patterns(self.problem, self.servers.limits, effort)
        self._shelves = _shelves(self.problem, self.servers.limits)
        self._rounds = effort.pattern_rounds

    def find_patterns(self, prices: Prices) -> Floats | None:
        """Patterns for all pools, priced anew in every round; then how many nodes are to be on. None: no answer."""
        rest = Rest.of(self.servers)
        self._price(prices, rest)
        mix = self.patterns.mix(rest)
        for number in range(self._rounds):
            if mix is None:
                return None
            prices = prices.mixed(mix.prices, _SMOOTH if 2 * number < self._rounds else _LATE)
            if not self._price(prices, rest) and not self._price(mix.prices, rest):
                break
            mix = self.patterns.mix(rest)
        boxed = self.patterns.mix(rest, whole=True)
        return None if boxed is None else np.round(boxed.nodes)

    def _price(self, prices: Prices, rest: Rest) -> int:
        """Add the worthiest patterns at these prices; how many are new."""
        c, on = self.problem.candidates, self.problem.on
        added = 0
        for shelf in self._shelves:
            k = shelf.candidates
            spent = c.cost[k].copy()
            for price, limit in zip(prices.watt.tolist(), self.servers.limits, strict=True):
                spent += price * on.pue[shelf.pool] * np.where(limit.candidates[k], c.slope_watts[k], 0.0)
            paid = np.divide(prices.demand[shelf.model], shelf.whole, out=np.zeros(len(k)), where=shelf.whole > 0)
            worth = np.maximum(paid - spent, 0.0)
            added += self.patterns.add(shelf.patterns(worth, prices.replica[shelf.model], rest.left[shelf.model]))
        return added

    def fill(self, nodes: Floats) -> bool:
        """Fill servers, a few at a time; within so many nodes as long as nothing lacks."""
        boxes: Floats | None = nodes
        while True:
            rest = Rest.of(self.servers)
            if not rest.left.any() and not rest.least.any():
                return True
            mix = self.patterns.mix(rest, boxes)
            if mix is not None and self._price(mix.prices, rest):
                mix = self.patterns.mix(rest, boxes)
            if mix is None:
                return False
            if mix.short and boxes is not None:
                boxes = None
                continue
            if mix.short or not self._take(mix):
                return True

    def _take(self, mix: Mix) -> int:
        """Fill servers with the surest patterns, and with the likeliest where none is sure; how many."""
        most = max(1, int(_AT_ONCE * len(self.servers.pool_of)))
        taken = 0
        for k in sorted(np.flatnonzero(mix.count > 1e-6).tolist(), key=lambda k: (-mix.count[k], k)):
            times = int(mix.count[k] + 1 - _SURE)
            if taken >= (3 * most if times else most) or (taken and mix.count[k] < 0.5):
                break
            taken += sum(self._put(self.patterns.found[k]) for _ in range(max(1, times)))
        return taken

    def _put(self, pattern: Pattern) -> bool:
        """The pattern on one more server, as far as it is still needed; whether anything was."""
        servers, p = self.servers, pattern.pool
        s = next((s for s in range(servers.start[p], servers.start[p + 1]) if not servers.residents[s]), None)
        if s is None:
            return False
        for c, u in sorted(zip(pattern.candidates.tolist(), pattern.busy.tolist(), strict=True), key=lambda one: -one[1]):
            self._put_one(c, s, u)
        return bool(servers.residents[s])

    def _put_one(self, c: int, s: int, u: float) -> None:
        servers, table = self.servers, self.servers.table
        m = table.model[c]
        room = float(self.placer.room(c, loaded=u > 0)[s - servers.start[table.pool[c]]])
        if room < 0 or not self.placer.may_add(m):
            return
        lacking = table.demand[m] - servers.served(m)
        if table.mu[c] > 0 and lacking > 1e-9 * table.demand[m]:
            u = min(u, room, lacking / table.mu[c])
            u = servers.spare(c, s, u) if servers.limits else u
        else:
            u = 0.0
        if u > 0 or (len(servers.homes[m]) < table.lowest[m] and servers.spare(c, s, 0.0) >= 0):
            servers.put(c, s, u)
