"""Patterns: what one server of a pool holds at best, at given prices of work and of replicas.

A server's busy share is that of its replica with the least rho, and it is awake for the one that needs most. For each such pair
the replicas worth most a busy share fill it, the last of them in part: exact where neither memory nor places are short. Where
they are, they have prices too, and what these pick is made to fit.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from ergon.planning.arrays import Bools, Floats, Ints
from ergon.planning.problem import Problem

_MOST_CELLS = 120_000
"""Numbers in one sweep over limits, heights and candidates; where there would be more, limits and heights are taken together."""

_TINY = 1e-12

_CLOSE = 1e-3
"""A most that is so near, in parts, to what is reached is near enough."""

_PAIRS = 4
"""Limits and heights that patterns are looked for at, at least."""

_PATTERNS = 8
"""Patterns of a pool in a sweep."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Replicas that a server of a pool can hold, by candidate, with their busy shares."""

    pool: int
    candidates: Ints
    busy: Floats


def _groups(values: Floats, most: int) -> tuple[Floats, Floats]:
    """(least, greatest) of at most so many groups of neighbouring values."""
    known = np.unique(values)
    if len(known) <= most:
        return known, known
    parts = np.array_split(known, most)
    return np.array([part[0] for part in parts]), np.array([part[-1] for part in parts])


class Shelf:
    """The candidates of one pool, as what a server of it may hold.

    `whole`: busy share that all of the model's demand takes.
    """

    def __init__(self, problem: Problem, pool: int, usable: Bools) -> None:
        c = problem.candidates
        self.pool = pool
        mine = np.flatnonzero(usable & (c.pool == pool))
        asked = (problem.demand[c.model[mine]] > 0) & (c.mu[mine] > 0)
        mine = mine[asked | (problem.need[c.model[mine]] > 0)]
        self.candidates, self.model, self.rho = mine, c.model[mine], c.rho[mine]
        mu, demand = c.mu[mine], problem.demand[self.model]
        self.carries = (mu > 0) & (demand > 0)
        self.counts = demand > 0
        self.whole: Floats = np.divide(demand, mu, out=np.zeros(len(mu)), where=mu > 0)
        self.awake = np.where(self.carries, c.awake_watts[mine], 0.0)
        memory = c.memory_bytes[mine] / max(float(problem.on.memory_bytes[pool]), 1.0)
        self.slots = int(min(problem.on.slots[pool], len(mine) + 1))
        self.memory = memory
        self.place = np.full(len(mine), 1.0 / max(self.slots, 1))
        self._last = [0.0, 0.0]
        self._crowded = memory.sum() > 1, len(mine) > self.slots
        some = self.carries
        across = max(4, int((_MOST_CELLS / max(len(mine), 1)) ** 0.5))
        self._lowest, self._limit = _groups(self.rho[some], across) if some.any() else (np.zeros(1), np.zeros(1))
        self._below, self._height = _groups(np.append(self.awake[some], 0.0), across)
        counted = self.rho >= self._lowest[:, None] - _TINY
        self._may_hold = counted | ~self.counts
        self._may_carry = (counted & self.carries)[:, None, :] & (self.awake <= self._height[:, None] + _TINY)[None, :, :]
        order = np.lexsort((np.arange(len(mine)), self.model))
        same = self.model[order[1:]] == self.model[order[:-1]]
        self._siblings = list(zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True))

    def patterns(self, per_busy: Floats, per_replica: Floats, per_watt: float, left: Floats, tries: int) -> list[Pattern]:
        """Some of the worthiest patterns.

        `per_busy`, `per_replica`: J by candidate of the shelf. `per_watt`: J of a watt of being awake. `left`: part of its
        model's demand to be served. `tries`: steps in which parts of loads that cannot be had are ruled out.
        """
        if not len(self.candidates):
            return []
        cap = np.where(self.carries, np.minimum(self.rho, self.whole * left), 0.0)
        per_busy = np.where(cap > _TINY, np.maximum(per_busy, 0.0), 0.0)
        sweeps = self._swept(per_busy, per_replica, per_watt, cap)
        worth = np.minimum.reduce([sweep.worth for sweep in sweeps])
        found: dict[tuple[int, ...], tuple[float, Pattern]] = {}
        best = 0.0
        order = np.argsort(-worth, axis=None, kind="stable")
        pairs = [(int(np.argmax(worth[:, h])), h) for h in range(worth.shape[1])]
        pairs += [(t, int(np.argmax(worth[t]))) for t in np.argsort(-worth.max(axis=1), kind="stable")[:_PAIRS].tolist()]
        for t, h in dict.fromkeys(pairs):
            if worth[t, h] <= 0:
                continue
            sweep = min(sweeps, key=lambda sweep: float(sweep.worth[t, h]))
            search = _Server(self, t, h, sweep, per_busy, per_replica, per_watt, cap)
            search.run(0.0, 0, float(worth[t, h]))
            best = max(best, self._kept(search, found))
        for number, at in enumerate(order.tolist()):
            t, h = divmod(at, worth.shape[1])
            if worth[t, h] <= best + _CLOSE * abs(best) + _TINY or tries <= 0 or number >= 3 * _PAIRS:
                break
            sweep = min(sweeps, key=lambda sweep: float(sweep.worth[t, h]))
            search = _Server(self, t, h, sweep, per_busy, per_replica, per_watt, cap)
            tries = search.run(best, tries, float(worth[t, h]))
            best = max(best, self._kept(search, found))
        kept = sorted(found.values(), key=lambda one: -one[0])[:_PATTERNS]
        return [pattern for _, pattern in kept]

    def _kept(self, search: "_Server", found: dict[tuple[int, ...], tuple[float, Pattern]]) -> float:
        """Keep what a search has found, of the same replicas the better shares; the most that any is worth."""
        best = 0.0
        for value, picked, shares in search.found:
            best = max(best, value)
            key = tuple(picked.tolist())
            if value > 0 and (key not in found or value > found[key][0]):
                found[key] = (value, Pattern(self.pool, self.candidates[picked], shares))
        return best

    def _swept(self, per_busy: Floats, per_replica: Floats, per_watt: float, cap: Floats) -> list["_Sweep"]:
        """The most at prices of memory and places: at none, and where what is then taken does not fit, at some."""
        sweeps = [self._filled(per_busy, per_replica, per_watt, cap, (0.0, 0.0))]
        gain = per_busy * cap + np.maximum(per_replica, 0.0)
        useful = gain > _TINY
        for number, size in enumerate((self.memory, self.place)):
            if not self._crowded[number] or not useful.any() or size[useful].sum() <= 1:
                continue
            density = gain[useful] / np.maximum(size[useful], 1e-9)
            order = np.argsort(-density)
            at = min(int(np.searchsorted(np.cumsum(size[useful][order]), 1.0)), len(order) - 1)
            start = self._last[number] or 0.7 * float(density[order[at]])
            best: tuple[float, float] | None = None
            for part in (0.35, 0.7, 1.0, 1.4):
                price = part * start
                sweep = self._filled(per_busy, per_replica, per_watt, cap, (price, 0.0) if number == 0 else (0.0, price))
                sweeps.append(sweep)
                most = float(sweep.worth.max())
                if best is None or most < best[0]:
                    best = most, price
            assert best is not None
            self._last[number] = best[1]
        return sweeps

    def _filled(
        self, per_busy: Floats, per_replica: Floats, per_watt: float, cap: Floats, price: tuple[float, float]
    ) -> "_Sweep":
        """By limit and height the most that is reached at these prices of memory and places."""
        fixed = per_replica - price[0] * self.memory - price[1] * self.place
        density = per_busy + np.divide(np.minimum(fixed, 0.0), cap, out=np.zeros(len(cap)), where=cap > _TINY)
        density[cap <= _TINY] = 0.0
        useful = np.flatnonzero(density > _TINY)
        order = useful[np.argsort(-density[useful], kind="stable")]
        rank = np.full(len(cap), -1)
        rank[order] = np.arange(len(order))
        mask = self._may_carry[:, :, order]
        size = cap[order].copy()
        for a, b in self._siblings:
            if rank[a] >= 0 and rank[b] >= 0:
                i, j = (a, b) if rank[a] < rank[b] else (b, a)
                mask[:, :, rank[j]] &= ~mask[:, :, rank[i]]
                size[rank[i]] = max(size[rank[i]], size[rank[j]])
        taken = mask * size
        before = np.cumsum(taken, axis=2) - taken
        worth = np.clip(self._limit[:, None, None] - before, 0.0, taken) @ density[order]
        held = self._may_hold @ np.maximum(fixed, 0.0)
        total: Floats = worth + held[:, None] - per_watt * self._below[None, :] + price[0] + price[1]
        return _Sweep(price, density, fixed, total)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """At prices of memory and places: by candidate its worth a busy share and apart from it; by limit and height the most."""

    price: tuple[float, float]
    density: Floats
    fixed: Floats
    worth: Floats


class _Server:
    """One server at a limit and a height: branch and bound over which replicas are there."""

    def __init__(
        self, shelf: Shelf, t: int, h: int, sweep: _Sweep, per_busy: Floats, per_replica: Floats, per_watt: float, cap: Floats
    ) -> None:
        self.shelf, self.limit = shelf, float(shelf._limit[t])
        self._constant = sweep.price[0] + sweep.price[1] - per_watt * float(shelf._below[h])
        self._price, self._per_watt = sweep.price, per_watt
        may = np.flatnonzero(shelf._may_carry[t, h] & (sweep.density > _TINY))
        order = may[np.argsort(-sweep.density[may], kind="stable")].tolist()
        self._order = order
        self._density = {k: float(sweep.density[k]) for k in order}
        self._fixed = {k: float(sweep.fixed[k]) for k in np.flatnonzero(shelf._may_hold[t]).tolist()}
        self._holds = sorted((k for k, charge in self._fixed.items() if charge > _TINY), key=lambda k: (-self._fixed[k], k))
        self._bonus = sum(self._fixed[k] for k in self._holds)
        self._per_busy: list[float] = per_busy.tolist()
        self._per_replica = per_replica
        self._cap = cap
        self.found: list[tuple[float, Ints, Floats]] = []

    def run(self, best: float, tries: int, above: float) -> int:
        """Look for what is worth more than `best`, though surely no more than `above`; the tries that are left."""
        most, split = self._looked(frozenset(), frozenset())
        heap: list[tuple[float, int, frozenset[int], frozenset[int], int | None]] = [
            (-min(most, above), 0, frozenset(), frozenset(), split)
        ]
        number = 0
        while heap and tries > 0:
            top, _, out, there, split = heapq.heappop(heap)
            best = max([best, *(value for value, _, _ in self.found)])
            if -top <= best + _CLOSE * abs(best) + _TINY:
                break
            if split is None:
                continue
            tries -= 1
            for a, b in ((out | {split}, there), (out, there | {split})):
                most, following = self._looked(a, b)
                if most > best:
                    number += 1
                    heapq.heappush(heap, (-min(most, -top), number, a, b, following))
        return tries

    def _looked(self, out: frozenset[int], there: frozenset[int]) -> tuple[float, int | None]:
        """The most with these left out and those there, and which candidate to ask about next (none: what is reached is had)."""
        shelf, cap = self.shelf, self._cap
        value, left = self._constant + self._bonus, self.limit
        if there:
            room = 1.0 - sum(float(shelf.memory[k]) for k in there)
            if room < -1e-12 or len(there) > shelf.slots:
                return -np.inf, None
            order = sorted(
                [(-self._density[k], k) for k in self._order if k not in there and k not in out]
                + [(-float(self._per_busy[k]), k) for k in there]
            )
            value += sum(min(0.0, self._fixed[k]) for k in there)
            ranked = [k for _, k in order]
        else:
            ranked = [k for k in self._order if k not in out]
        models: dict[int, int] = {}
        taken: list[int] = []
        partly: int | None = None
        for k in ranked:
            if left <= _TINY:
                break
            m = int(shelf.model[k])
            if m in models:
                continue
            models[m] = k
            size = float(cap[k])
            u = min(size, left)
            slope = float(self._per_busy[k]) if k in there else self._density[k]
            value += slope * u
            left -= u
            taken.append(k)
            if u < size * (1 - 1e-9) and self._fixed[k] < -_TINY and k not in there:
                partly = k
        fit = self._fitted(taken, there)
        if fit is not None:
            self.found.append(fit)
        if partly is not None:
            return value, partly
        if fit is not None and fit[0] >= value - _CLOSE * abs(value):
            return value, None
        heavy = [k for k in taken if k not in there]
        if not heavy or self._price == (0.0, 0.0):
            return value, None
        sizes = shelf.memory if self._price[0] else shelf.place
        return value, max(heavy, key=lambda k: (float(sizes[k]), k))

    def _fitted(self, taken: list[int], there: frozenset[int]) -> tuple[float, Ints, Floats] | None:
        """What fits for sure of these, others that fit beside them, and what it is worth."""
        shelf, cap = self.shelf, self._cap
        kept: list[int] = []
        busy: list[float] = []
        models: set[int] = set()
        room, left, slots, least = 1.0 + 1e-12, self.limit, shelf.slots, np.inf
        first = [k for k in taken if k in there]
        seen = set(taken)
        for k in (*first, *(k for k in taken if k not in there), *(k for k in self._order if k not in seen)):
            if slots <= 0 or left <= _TINY:
                break
            m = int(shelf.model[k])
            if shelf.memory[k] > room or m in models:
                continue
            limit = min(least, float(shelf.rho[k]))
            u = min(float(cap[k]), left, limit - (self.limit - left))
            if u <= 1e-6 or self._per_busy[k] * u + self._per_replica[k] <= 0:
                continue
            least = limit
            left -= u
            room -= float(shelf.memory[k])
            slots -= 1
            kept.append(k)
            busy.append(u)
            models.add(m)
        load = sum(busy)
        for k in self._holds:
            if slots <= 0:
                break
            m = int(shelf.model[k])
            if shelf.memory[k] <= room and m not in models and (not shelf.counts[k] or shelf.rho[k] >= load - _TINY):
                room -= float(shelf.memory[k])
                slots -= 1
                kept.append(k)
                busy.append(0.0)
                models.add(m)
        if not kept:
            return None
        chosen, shares = np.array(kept, np.int64), np.array(busy)
        value = sum(self._per_busy[k] * u for k, u in zip(kept, busy, strict=True)) + float(self._per_replica[chosen].sum())
        value -= self._per_watt * float(shelf.awake[chosen[shares > 0]].max(initial=0.0))
        order = np.argsort(chosen)
        return float(value), chosen[order], shares[order]
