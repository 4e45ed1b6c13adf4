"""Why each variant is, or is not, on each pool, in words. Made when it is asked for: a fleet has tens of thousands of answers."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np

from ergon.fleet.types import ModelKey
from ergon.planning.candidates import ORDER, Reason, judge
from ergon.planning.limits import Limit
from ergon.planning.placing import Placer
from ergon.planning.plan import Alternative
from ergon.planning.power import replica_watts
from ergon.planning.problem import HUNG_ENOUGH
from ergon.planning.servers import Servers

_HUNG = f"its load hung on {HUNG_ENOUGH} servers; a new revision is tried anew"

_FAILED = "its load hung, or keeps failing, on a server; a new revision is tried anew"


class Alternatives(Mapping[ModelKey, tuple[Alternative, ...]]):
    """The alternatives of every model, by pool and variant; each model's are made at the first look and kept."""

    def __init__(self, servers: Servers, limits: tuple[Limit, ...]) -> None:
        self._servers, self._limits = servers, limits
        self._number = {model.key: m for m, model in enumerate(servers.problem.models)}
        self._made: dict[ModelKey, tuple[Alternative, ...]] = {}

    @cached_property
    def _placer(self) -> Placer:
        return Placer(self._servers)

    @cached_property
    def _candidate(self) -> dict[tuple[int, int], int]:
        c = self._servers.problem.candidates
        return {place: number for number, place in enumerate(zip(c.variant.tolist(), c.pool.tolist(), strict=True))}

    @cached_property
    def _standing(self) -> set[tuple[int, int]]:
        servers = self._servers
        return {(c, servers.number(servers.table.pool[c], ordinal)) for c, ordinal in servers.problem.standing}

    def __getitem__(self, key: ModelKey) -> tuple[Alternative, ...]:
        if key not in self._made:
            self._made[key] = self._explain(self._number[key])
        return self._made[key]

    def __iter__(self) -> Iterator[ModelKey]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def _explain(self, m: int) -> tuple[Alternative, ...]:
        problem = self._servers.problem
        first = int(np.searchsorted(problem.model_of_variant, m))
        last = int(np.searchsorted(problem.model_of_variant, m, side="right"))
        return tuple(self._one(m, v, p) for p in range(len(problem.pools)) for v in range(first, last))

    def _one(self, m: int, v: int, p: int) -> Alternative:
        problem = self._servers.problem
        if problem.reason[v, p] < len(ORDER):
            rejection = judge(problem.fleet, problem.models[m], problem.variants[v], problem.pools[p])
            reason = rejection.reason if rejection is not None else ORDER[problem.reason[v, p]]
            return self._say(v, p, "Rejected", reason, rejection.message if rejection is not None else "cannot run there")
        c = self._candidate.get((v, p))
        if c is None:
            return self._say(v, p, "Rejected", Reason.FAILED_THERE, _HUNG)
        placed = [s for s, home in self._servers.homes[m].items() if home == c]
        return self._chosen(m, c, placed) if placed else self._not_chosen(m, c)

    def _say(self, v: int, p: int, verdict: str, reason: Reason, message: str) -> Alternative:
        problem = self._servers.problem
        return Alternative(problem.pools[p].name, problem.variants[v].name, verdict, reason, message)  # type: ignore[arg-type]

    def _chosen(self, m: int, c: int, placed: list[int]) -> Alternative:
        servers, table = self._servers, self._servers.table
        v, p = int(servers.problem.candidates.variant[c]), table.pool[c]
        work = sum(servers.share[m][s] * table.mu[c] for s in placed)
        watts = sum(replica_watts(servers, m, s) for s in placed)
        does = f"{work:.4g} work/s for {watts:.3g} W" if work > 0 else "a replica is held there, no demand is planned for it"
        better = [other for other in self._placer.carriers(m) if self._placer.energy[other] < self._placer.energy[c] * (1 - 1e-9)]
        full = next((other for other in better if work > 0 and self._is_full(other)), None)
        if full is not None:
            name = servers.problem.pools[table.pool[full]].name
            return self._say(v, p, "Chosen", Reason.SPILLED, f"{does}; {name} takes less energy and is full")
        if better and all((c, s) in self._standing for s in placed):
            return self._say(v, p, "Chosen", Reason.KEPT, f"{does}; it already stands there")
        return self._say(v, p, "Chosen", Reason.LEAST_ENERGY, does)

    def _is_full(self, c: int) -> bool:
        return self._placer.best(c, 0.02) is None and self._placer.fresh(c, 0.02) is None

    def _not_chosen(self, m: int, c: int) -> Alternative:
        servers, table = self._servers, self._servers.table
        problem = servers.problem
        v, p = int(problem.candidates.variant[c]), table.pool[c]
        limit = next((one for one in self._limits if one.hopeless and one.pools[p]), None)
        if limit is not None:
            return self._say(v, p, "Rejected", Reason.WATT_LIMIT, f"budget {limit.name} leaves no watts for anything there")
        lacking = table.demand[m] + float(problem.excess[m]) - servers.served(m)
        short = len(servers.homes[m]) < table.lowest[m] or lacking > 1e-9 * max(table.demand[m], 1e-9)
        if servers.table.standing_only[c]:
            return self._say(v, p, "Rejected", Reason.FAILED_THERE, _HUNG)
        if c in problem.refused and all(
            servers.residents[s] or servers.ordinal(s) in problem.refused[c]
            for s in range(servers.start[p], servers.start[p + 1])
        ):
            return self._say(v, p, "Rejected", Reason.FAILED_THERE, _FAILED)
        share = min(table.demand[m] / table.mu[c], table.rho[c]) if table.mu[c] > 0 else 0.0
        if short and servers.homes[m] and not self._placer.may_add(m):
            return self._say(v, p, "Feasible", Reason.NOT_NEEDED, f"the model may have no more than {table.highest[m]} replicas")
        used, fresh = self._placer.best(c, share), self._placer.fresh(c, share)
        binding = self._binding(c, share) if (used is None and fresh is None) or short else None
        if binding is not None:
            return self._say(v, p, "Rejected", Reason.WATT_LIMIT, f"budget {binding.name} leaves no watts for it")
        if short or (used is None and fresh is None):
            count = table.most[p]
            return self._say(v, p, "Rejected", Reason.NO_ROOM, f"all {count} servers are full or not to be had")
        return self._feasible(m, c, share, opens=used is None)

    def _binding(self, c: int, share: float) -> Limit | None:
        """The watt limit that keeps the candidate out where a server would have room."""
        servers = self._servers
        p = servers.table.pool[c]
        a, b = servers.start[p], servers.start[p + 1]
        room = self._placer.room(c, loaded=share > 0)
        places = [a + k for k in np.flatnonzero(room >= min(share, 0.02) * 0.5).tolist()]
        blocked = places and a < b and all(servers.spare(c, s, share) < share or servers.spare(c, s, share) < 0 for s in places)
        inside = [one for one in self._limits if one.candidates[c] or (one.whole_pools and one.pools[p])]
        return min(inside, key=lambda one: one.watts - servers.drawn[self._limits.index(one)]) if blocked and inside else None

    def _feasible(self, m: int, c: int, share: float, *, opens: bool) -> Alternative:
        servers, table = self._servers, self._servers.table
        problem = servers.problem
        v, p = int(problem.candidates.variant[c]), table.pool[c]
        if table.mu[c] <= 0 and table.demand[m] > 0:
            return self._say(v, p, "Feasible", Reason.NOT_NEEDED, "no operating point says what it would deliver")
        now = sum(replica_watts(servers, m, s) for s in servers.homes[m])
        there = float(problem.on.pue[p] * problem.candidates.slope_watts[c]) * (
            table.demand[m] / table.mu[c] if table.mu[c] > 0 else 0.0
        )
        server = servers.problem.on.server_watts[p] + problem.on.node_watts[p] / table.per_node[p]
        more = there - now + (float(server) if opens else 0.0)
        if more > 0.05:
            also = ", a server that is off now counted in" if opens else ""
            return self._say(v, p, "Feasible", Reason.MORE_ENERGY, f"would cost {more:.3g} W more{also}")
        return self._say(v, p, "Feasible", Reason.NOT_NEEDED, "would save nothing that is worth a move in the fleet as a whole")
