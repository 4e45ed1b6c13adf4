"""Make a packing better by small steps that are taken back where they do not pay: empty servers, and anneal.

Steps are counted, and chance comes from a seed: the same packing becomes the same better one.
"""

import numpy as np

from ergon.planning.anneal import anneal, compared, lacks_of
from ergon.planning.effort import Effort
from ergon.planning.placing import Placer
from ergon.planning.servers import any_lacks, less_short, rank_of_shortfall
from ergon.planning.shares import share_out

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
    search = _Search(placer)
    budget = effort.closings
    while budget > 0 and (tried := search.close_some(budget)) > 0:
        budget -= tried
    anneal(
        placer.servers, placer.level, min(effort.rounds, _ROUNDS_A_REPLICA * sum(len(homes) for homes in placer.servers.homes))
    )
    mark, before = len(placer.servers.journal), rank_of_shortfall(placer.servers)
    if share_out(placer.servers, effort) and not less_short(before, rank_of_shortfall(placer.servers)):
        search.close_some(effort.closings)
    else:
        placer.servers.undo(mark)


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
                    if self._rebuild([s], avoid=None, guest=m):
                        break
                if not lacks_of(servers, [m]):
                    break

    def close_some(self, budget: int) -> int:
        """Try to empty servers, the emptiest first; how many were tried, 0 where none could be emptied."""
        servers = self.servers
        used = [s for s, residents in enumerate(servers.residents) if residents]
        used.sort(key=lambda s: (servers.load[s] / min(float(servers.limit[s]), 1.0), s))
        tried = closed = 0
        for s in used[:budget]:
            if servers.residents[s]:
                tried += 1
                closed += self._rebuild([s], avoid=s)
        return tried if closed else 0

    def _rebuild(self, ruined: list[int], avoid: int | None, guest: int | None = None) -> bool:
        """Place everything on these servers anew, by chance in order of size; whether it was better, else nothing changes.

        `avoid` stays empty. `guest` is placed first, and only less shortfall is better then.
        """
        servers, table = self.servers, self.servers.table
        mark, before = len(servers.journal), servers.total
        size: dict[int, float] = {}
        for s in ruined:
            for m, c in list(servers.residents[s].items()):
                busy = servers.share[m][s] / table.rho[c]
                size[m] = size.get(m, 0.0) + max(
                    busy, table.memory[c] / max(float(servers.problem.on.memory_bytes[servers.pool_of[s]]), 1.0)
                )
        if guest is not None:
            size[guest] = 1e9
        models = sorted(size)
        lacked = lacks_of(self.servers, models)
        for s in ruined:
            for m in list(servers.residents[s]):
                servers.take(m, s)
        if avoid is not None:
            servers.free_slots[avoid] -= 1e9
        shuffled = {m: size[m] * (1.0 if avoid is not None else 0.6 + 0.8 * self._chance.random()) for m in models}
        for m in sorted(models, key=lambda m: (-shuffled[m], m)):
            self.placer.place_all(m)
        if avoid is not None:
            servers.free_slots[avoid] += 1e9
        if self._is_better(lacked, models, guest is None and servers.total < before - _GAIN):
            servers.journal.clear()
            return True
        servers.undo(mark)
        return False

    def _is_better(self, lacked: list[tuple[float, float]], models: list[int], cheaper: bool) -> bool:
        order = compared(lacks_of(self.servers, models), lacked)
        return order < 0 or (order == 0 and cheaper)
