"""Ruin a few servers and place what was on them anew, hundreds of times; a worse packing is accepted now and then, less and less.

Ruin and recreate under simulated annealing, with noise in what a place is worth (Schrimpf and others 2000; Christiaens and Vanden
Berghe, Slack Induction by String Removals, 2020). Steps are counted, and chance comes from a seed.
"""

import math

import numpy as np

from ergon.planning.arrays import Ints
from ergon.planning.pool_programme import PoolLevel
from ergon.planning.servers import Servers, lacking_work, less_short
from ergon.planning.spots import Spots, Taste

_HOT, _COLD = 0.02, 0.001
"""J that a packing may be worse by, at first and at last, as a part of what a server in use takes on average."""

_CLOSE_A_POOL = 0.1
"""Part of the rounds in which servers of one pool, or a node of it, are emptied for good."""

_WEIGHTS, _NOISES = (0.0, 0.3, 1.0), (0.0, 0.05, 0.2)
"""Of a server's room, and of chance, in what a place is worth: one of each in a round."""

_LOOKED_A_ROUND = 2500
"""Places that a round looks at on average: of very many servers, or very many replicas on each, there are fewer rounds."""

_GAIN = 1e-6
"""J below which a step is no improvement but rounding."""

_Lacks = list[tuple[float, float]]


def lacks_of(servers: Servers, models: list[int]) -> _Lacks:
    """By tier what these models lack, replicas and work; empty where they lack nothing."""
    table, tier = servers.table, servers.problem.tier
    lacks: _Lacks = []
    for m in models:
        work, missing = lacking_work(servers, m), max(0, table.lowest[m] - len(servers.homes[m]))
        if work > 0 or missing:
            lacks = lacks or [(0.0, 0.0)] * (int(tier.max()) + 1)
            before = lacks[tier[m]]
            lacks[tier[m]] = (before[0] + missing, before[1] + work)
    return lacks


def compared(after: _Lacks, before: _Lacks) -> int:
    """-1 where the first lacks less, 1 where it lacks more, else 0."""
    if not after and not before:
        return 0
    none = [(0.0, 0.0)] * max(len(after), len(before))
    after, before = after or none, before or none
    return -1 if less_short(after, before) else int(less_short(before, after))


def anneal(servers: Servers, level: PoolLevel | None, rounds: int) -> None:
    """Leave the best packing that so many rounds find; never one that lacks more, or costs more for as little."""
    _Annealing(servers, level).run(rounds)


class _Annealing:
    def __init__(self, servers: Servers, level: PoolLevel | None) -> None:
        self.servers, self.spots = servers, Spots(servers, level)
        self._chance = np.random.default_rng(0)
        table = servers.table
        used = max(1, int((servers.count > 0).sum()))
        standing = sum(servers.cost_of_count(p, 0) for p in range(len(table.most)))
        self._each = max(0.0, servers.total - standing) / used
        bounds = zip(table.first, table.first[1:], strict=False)
        self._pools_of = [sorted({table.pool[c] for c in range(first, last)}) for first, last in bounds]

    def run(self, rounds: int) -> None:
        servers = self.servers
        servers.journal.clear()
        best = servers.total
        for number in range(rounds):
            used = np.flatnonzero(servers.count > 0)
            if len(used) < 2 or self.spots.looked > rounds * _LOOKED_A_ROUND:
                break
            mark, before = len(servers.journal), servers.total
            victims = self._chosen(used)
            models = sorted({m for m, _ in victims})
            lacked = lacks_of(servers, models)
            self._rebuild(victims)
            order = compared(lacks_of(servers, models), lacked)
            heat = self._each * _HOT * (_COLD / _HOT) ** (number / rounds)
            worse = -heat * math.log(max(float(self._chance.random()), 1e-12))
            if order > 0 or (order == 0 and servers.total > before + worse):
                servers.undo(mark)
            elif order < 0 or servers.total < best - _GAIN:
                best = servers.total
                servers.journal.clear()
        servers.undo(0)

    def _chosen(self, used: Ints) -> list[tuple[int, int]]:
        """(model, server) of the replicas that are taken away, and what places are compared by in this round."""
        servers, chance = self.servers, self._chance
        close = chance.random() < _CLOSE_A_POOL
        room, noise = _WEIGHTS[int(chance.integers(3))], _NOISES[int(chance.integers(3))]
        self.spots.taste = Taste(room, close or chance.random() < 0.15, noise)
        self.spots.closed = None
        first = int(used[chance.integers(len(used))])
        if close:
            p = servers.pool_of[first]
            mine = used[(used >= servers.start[p]) & (used < servers.start[p + 1])]
            per_node = servers.table.per_node[p]
            count = (len(mine) - 1) % per_node + 1 if chance.random() < 0.5 else 1
            order = np.argsort(servers.load[mine] * (0.5 + chance.random(len(mine))), kind="stable")
            self.spots.closed = p
            return [(m, s) for s in mine[order[:count]].tolist() for m in servers.residents[s]]
        around = sorted({servers.pool_of[first]}.union(*(self._pools_of[m] for m in servers.residents[first])))
        ruined = [first]
        for _ in range(int(chance.integers(1, 4))):
            p = around[int(chance.integers(len(around)))]
            near = used[(used >= servers.start[p]) & (used < servers.start[p + 1])]
            if len(near):
                ruined.append(int(near[chance.integers(len(near))]))
        part = 1.0 if chance.random() < 0.5 else 0.5
        there = [(m, s) for s in dict.fromkeys(ruined) for m in servers.residents[s]]
        return [one for one in there if part == 1.0 or chance.random() < part]

    def _rebuild(self, victims: list[tuple[int, int]]) -> None:
        """Take these replicas away and place their models anew, by chance in order of size or in any order."""
        servers, table, chance = self.servers, self.servers.table, self._chance
        size: dict[int, float] = {}
        for m, s in victims:
            c, memory = servers.homes[m][s], float(servers.problem.on.memory_bytes[servers.pool_of[s]])
            size[m] = size.get(m, 0.0) + servers.share[m][s] / table.rho[c] + 0.3 * table.memory[c] / max(memory, 1.0)
            servers.take(m, s)
        by_size = chance.random() < 0.6
        dice = chance.random(len(size)).tolist()
        rank = {m: -size[m] * (0.6 + 0.8 * d) if by_size else d for (m, d) in zip(sorted(size), dice, strict=True)}
        for m in sorted(size, key=lambda m: (rank[m], m)):
            self.spots.place(m)
