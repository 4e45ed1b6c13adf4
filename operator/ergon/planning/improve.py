"""Make a packing better by small steps that are taken back where they do not pay: empty servers, and anneal.

Steps are counted, and chance comes from a seed: the same packing becomes the same better one.
"""

import numpy as np

from ergon.planning.anneal import anneal, compared, lacks_of
from ergon.planning.effort import Effort
from ergon.planning.placing import Placer
from ergon.planning.pool_programme import PoolLevel
from ergon.planning.servers import Servers, any_lacks, less_short, rank_of_shortfall
from ergon.planning.shares import share_out
from ergon.planning.spots import Spots

_ROUNDS_A_REPLICA = 5
"""Rounds that a small fleet gets for each of its replicas: more hardly find anything."""

_MOST_TRIES, _MOST_PLACES = 600, 40
"""Servers that are rebuilt to make room for all models that lack something, and for one model in one pool."""

_GAIN = 1e-6
"""J below which a step is no improvement but rounding."""


def improve(placer: Placer, effort: Effort) -> None:
    """Empty servers as long as that pays, then anneal, then share the load out anew."""
    if not effort.closings and not effort.rounds:
        return
    servers = placer.servers
    budget = effort.closings
    while budget > 0 and (tried := close_some(servers, placer.level, budget)) > 0:
        budget -= tried
    anneal(servers, placer.level, min(effort.rounds, _ROUNDS_A_REPLICA * sum(len(homes) for homes in servers.homes)))
    mark, before = len(servers.journal), rank_of_shortfall(servers)
    if share_out(servers, effort) and not less_short(before, rank_of_shortfall(servers)):
        close_some(servers, placer.level, effort.closings)
    else:
        servers.undo(mark)


def serve_lacking(placer: Placer) -> None:
    """Make room for models that lack something, where moving others makes it."""
    if any_lacks(placer.servers) or any(
        len(homes) < lowest for homes, lowest in zip(placer.servers.homes, placer.servers.table.lowest, strict=True)
    ):
        _Search(placer).serve_lacking()


class _Search:
    def __init__(self, placer: Placer) -> None:
        self.placer, self.servers = placer, placer.servers
        self._chance = np.random.default_rng(0)

    def serve_lacking(self) -> None:
        """Make room for models that lack something: they first on a server, then what was there before.

        The most important first, and not for ever: where a fleet is simply full, nothing is found.
        """
        servers, table, tier = self.servers, self.servers.table, self.servers.problem.tier
        budget = _MOST_TRIES
        for m in sorted((m for m in range(len(servers.homes)) if lacks_of(servers, [m])), key=lambda m: (tier[m], m)):
            for c in self.placer.carriers(m) or self.placer.holders(m):
                first, last = servers.start[table.pool[c]], servers.start[table.pool[c] + 1]
                places = sorted(range(first, last), key=lambda s: (m in servers.residents[s], len(servers.residents[s]), s))
                for s in places[:_MOST_PLACES]:
                    if budget <= 0:
                        return
                    budget -= 1
                    if self._rebuild(s, m):
                        break
                if not lacks_of(servers, [m]):
                    break

    def _rebuild(self, s: int, guest: int) -> bool:
        """Place the guest on this server and everything there anew, by chance in order of size; whether less lacks then, else
        nothing changes."""
        servers = self.servers
        mark = len(servers.journal)
        size = _sizes(servers, s)
        size[guest] = 1e9
        models = sorted(size)
        lacked = lacks_of(servers, models)
        for m in list(servers.residents[s]):
            servers.take(m, s)
        shuffled = {m: size[m] * (0.6 + 0.8 * self._chance.random()) for m in models}
        for m in sorted(models, key=lambda m: (-shuffled[m], m)):
            self.placer.place_all(m)
        if compared(lacks_of(servers, models), lacked) < 0:
            servers.journal.clear()
            return True
        servers.undo(mark)
        return False


def close_some(servers: Servers, level: PoolLevel | None, budget: int) -> int:
    """Try to empty servers, the emptiest first; how many were tried, 0 where none could be emptied."""
    spots = Spots(servers, level)
    used = [s for s, residents in enumerate(servers.residents) if residents]
    used.sort(key=lambda s: (servers.load[s] / min(float(servers.limit[s]), 1.0), s))
    tried = closed = 0
    for s in used[:budget]:
        if servers.residents[s]:
            tried += 1
            closed += _emptied(spots, s)
    return tried if closed else 0


def _emptied(spots: Spots, s: int) -> bool:
    """Place everything on this server elsewhere, the largest first; whether that was better, else nothing changes."""
    servers = spots.servers
    mark, before = len(servers.journal), servers.total
    size = _sizes(servers, s)
    models = sorted(size, key=lambda m: (-size[m], m))
    lacked = lacks_of(servers, models)
    for m in models:
        servers.take(m, s)
    servers.free_slots[s] -= 1e9
    for m in models:
        spots.place(m)
        if servers.total >= before - _GAIN:  # what is placed later only makes it dearer
            break
    servers.free_slots[s] += 1e9
    if servers.total < before - _GAIN and compared(lacks_of(servers, models), lacked) <= 0:
        servers.journal.clear()
        return True
    servers.undo(mark)
    return False


def _sizes(servers: Servers, s: int) -> dict[int, float]:
    """By model on a server, the larger of the parts that it takes of its busy share and of its memory."""
    table, memory = servers.table, max(float(servers.problem.on.memory_bytes[servers.pool_of[s]]), 1.0)
    return {m: max(servers.share[m][s] / table.rho[c], table.memory[c] / memory) for m, c in servers.residents[s].items()}
