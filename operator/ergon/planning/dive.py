"""Whole servers from patterns: find what patterns are worth, take the surest ones, and again with what is then left.

Column generation and diving (Desaulniers, Desrosiers and Solomon, Column Generation, 2005), with prices smoothed (Wentges 1997)
from those of the pool level on.
"""

import numpy as np

from ergon.planning.arrays import Floats, Ints
from ergon.planning.effort import Effort
from ergon.planning.master import Master, Mix, Rest, Worth
from ergon.planning.placing import Placer
from ergon.planning.pool_programme import PoolLevel
from ergon.planning.servers import Servers
from ergon.planning.shelves import Pattern

_SURE = 0.85
"""A pattern that fills a server so far is taken for a whole one."""

_AT_ONCE = 0.12
"""Part of all servers that is filled before prices are found again."""

_SMOOTH, _LATE = 0.5, 0.2
"""Weight of the prices before, in the first half of the rounds and in the second."""

_WIDE = 20
"""Parts of loads that are ruled out in a sweep of a pool."""

_AGAIN = 1
"""Times that patterns are priced anew while servers are filled."""


def patterns_of(servers: Servers) -> list[Pattern]:
    """What the servers of a plan hold."""
    found = []
    for s, residents in enumerate(servers.residents):
        if residents:
            mine = sorted((c, servers.share[m][s]) for m, c in residents.items())
            busy = np.array([u for _, u in mine])
            found.append(Pattern(servers.pool_of[s], np.array([c for c, _ in mine], np.int64), busy))
    return found


class Dive:
    """One search for patterns and what is made of them."""

    def __init__(self, master: Master, level: PoolLevel, effort: Effort) -> None:
        self.master, self.problem, self.effort = master, master.problem, effort
        none = np.zeros(len(self.problem.models))
        self.worth = Worth(level.demand_price, level.replica_price, none, np.zeros(len(master.limits)))

    def find_patterns(self) -> Mix | None:
        """Patterns for all pools, priced anew in every round."""
        master, left = self.master, np.ones(len(self.problem.models))
        master.price(self.worth, left, _WIDE)
        mix = master.mix()
        for number in range(self.effort.pattern_rounds):
            if mix is None:
                return None
            self.worth = self.worth.mixed(mix.worth, _SMOOTH if 2 * number < self.effort.pattern_rounds else _LATE)
            if not master.price(self.worth, left, _WIDE) and not master.price(mix.worth, left, _WIDE):
                break
            mix = master.mix()
        return mix

    def round_nodes(self, mix: Mix, left: Floats, used: Ints) -> Mix | None:
        """Nodes in whole numbers: the pool that is least sure first, both ways tried, the better one kept."""
        master, on = self.master, self.problem.on
        least = -(-np.maximum(on.least, used) // on.per_node).astype(float)
        most = -(-on.most // on.per_node).astype(float)
        fewest = least.copy()
        for _ in range(2 * len(least)):
            part = np.abs(mix.nodes - np.round(mix.nodes))
            part = np.where(part < 1e-6, 0.0, part * on.node_cost)
            if part.max(initial=0.0) <= 0:
                break
            p = int(np.argmax(part))
            sides: list[tuple[float, float, float, Mix]] = []
            for low, high in ((least[p], np.floor(mix.nodes[p])), (np.ceil(mix.nodes[p]), most[p])):
                a, b = least.copy(), most.copy()
                a[p], b[p] = low, high
                master.box(a, b)
                found = master.mix()
                if found is not None:
                    sides.append((found.cost, low, high, found))
            if not sides:
                return None
            _, low, high, _ = min(sides, key=lambda side: side[0])
            least[p], most[p] = low, high
            master.box(least, most)
            again = self._priced(master.mix(), left)
            if again is None:
                return None
            mix = again
        self.nodes = np.round(mix.nodes)
        master.box(fewest, np.maximum(self.nodes, fewest))
        return mix

    def _priced(self, mix: Mix | None, left: Floats) -> Mix | None:
        """The mix with patterns that its own prices call for, a few times."""
        for _ in range(_AGAIN):
            if mix is None:
                return None
            if not self.master.price(mix.worth, left, 0):
                return mix
            mix = self.master.mix()
        return mix

    def fill(self, placer: Placer) -> bool:
        """Fill servers that hold nothing, a few at a time; what is left is for the placer. Whether the solver answered."""
        servers, master, on = placer.servers, self.master, self.problem.on
        while True:
            rest = Rest.of(servers)
            if not rest.left.any() and not rest.least.any():
                return True
            master.ask(rest)
            mix = self._priced(master.mix(), rest.left)
            if mix is not None and mix.short:
                master.box(
                    -(-np.maximum(on.least, rest.used) // on.per_node).astype(float), -(-on.most // on.per_node).astype(float)
                )
                mix = self._priced(master.mix(), rest.left)
                mix = mix and self.round_nodes(mix, rest.left, rest.used)
            if mix is None:
                return False
            if mix.short or not _take(placer, master, mix):
                return True


def _take(placer: Placer, master: Master, mix: Mix) -> int:
    """Fill servers with the surest patterns, and with the likeliest where none is sure; how many."""
    most = max(1, int(_AT_ONCE * len(placer.servers.pool_of)))
    taken = 0
    for k in sorted(np.flatnonzero(mix.count > 1e-6).tolist(), key=lambda k: (-mix.count[k], k)):
        times = int(mix.count[k] + 1 - _SURE)
        if taken >= (3 * most if times else most) or (taken and mix.count[k] < 0.5):
            break
        taken += sum(_put(placer, master.patterns[k]) for _ in range(max(1, times)))
    return taken


def _put(placer: Placer, pattern: Pattern) -> bool:
    """The pattern on one more server, as far as it is still needed; whether anything was."""
    servers, p = placer.servers, pattern.pool
    s = next((s for s in range(servers.start[p], servers.start[p + 1]) if not servers.residents[s]), None)
    if s is None:
        return False
    for c, u in sorted(zip(pattern.candidates.tolist(), pattern.busy.tolist(), strict=True), key=lambda one: -one[1]):
        _put_one(placer, c, s, u)
    return bool(servers.residents[s])


def _put_one(placer: Placer, c: int, s: int, u: float) -> None:
    servers, table = placer.servers, placer.servers.table
    m = table.model[c]
    room = float(placer.room(c, loaded=u > 0)[s - servers.start[table.pool[c]]])
    if room < 0 or not placer.may_add(m):
        return
    lacking = table.demand[m] - servers.served(m)
    if table.mu[c] > 0 and lacking > 1e-9 * table.demand[m]:
        u = min(u, room, lacking / table.mu[c])
        u = servers.spare(c, s, u) if servers.limits else u
    else:
        u = 0.0
    if u > 0 or (len(servers.homes[m]) < table.lowest[m] and servers.spare(c, s, 0.0) >= 0):
        servers.put(c, s, u)
