"""Patterns: what one server of a pool holds at best, at given prices of work and of replicas.

Large replicas are chosen by a dynamic programme over busy share and memory, in steps rounded down; small ones fill what they
leave. What the programme picks is then made to fit exactly: a pattern is always something that a server can hold.
"""

from dataclasses import dataclass

import numpy as np

from ergon.planning.arrays import Bools, Floats, Ints
from ergon.planning.problem import Problem

BUSY_STEPS, MEMORY_STEPS = 40, 24
"""Steps of a server's busy share and of its memory that the programme tells apart."""

_LARGE_BUSY, _LARGE_MEMORY = 0.15, 0.12
"""Parts of a server from which on a replica is large."""

_MIXES = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (0.7, 0.3, 0), (0.3, 0.7, 0)])
"""In which proportions busy share, memory and places are priced where small replicas fill a server."""

_DEPTHS = np.array([0.02, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0])
"""How much of a server they fill at each price."""

_LIMITS = 2
"""Limits of busy share, the most promising ones, that patterns are made for."""

_SHARES = 3
"""Patterns that are read for each: with little, some and much of the busy share taken by large replicas."""

_TINY = 1e-12

_State = tuple[int, int, int, int]
"""Candidates looked at, steps of busy share and of memory that large ones take, and the price at which small ones fill in."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Replicas that a server of a pool can hold, by candidate, with their busy shares."""

    pool: int
    candidates: Ints
    busy: Floats


class Shelf:
    """The candidates of one pool, as what a server of it may hold.

    `whole`: busy share that all of the model's demand takes. `heights`: watts of being awake that are told apart.
    """

    def __init__(self, problem: Problem, pool: int, usable: Bools) -> None:
        c = problem.candidates
        self.pool = pool
        self.candidates = np.flatnonzero(usable & (c.pool == pool))
        self.model, self.rho = c.model[self.candidates], c.rho[self.candidates]
        self.memory = c.memory_bytes[self.candidates] / max(float(problem.on.memory_bytes[pool]), 1.0)
        mu = c.mu[self.candidates]
        self.whole: Floats = np.divide(problem.demand[self.model], mu, out=np.zeros(len(mu)), where=mu > 0)
        self.awake_cost = c.awake_cost[self.candidates]
        heights = np.unique(self.awake_cost[(self.awake_cost > 0) & (self.whole > 0)])
        self._heights = heights if len(heights) <= _LIMITS else np.quantile(heights, [0.0, 0.5], method="lower")
        self._level = np.searchsorted(self._heights, self.awake_cost, side="right")
        self.slots = int(min(problem.on.slots[pool], len(self.candidates) + 1))

    def patterns(self, per_busy: Floats, per_replica: Floats, left: Floats) -> list[Pattern]:
        """The worthiest patterns found, for servers that are awake for nothing and for those awake for each height.

        `per_busy` (not negative), `per_replica`: J by candidate of the shelf. `left`: part of its model's demand to be served.
        """
        cap = np.minimum(self.rho, self.whole * left)
        gain = per_replica + per_busy * cap
        usable = gain > _TINY * max(1.0, float(gain.max(initial=0.0)))
        found: list[Pattern] = []
        for level in range(len(self._heights) + 1):
            chosen = np.flatnonzero(usable & (self._level <= level))
            if len(chosen) and (level == 0 or (self._level[chosen] == level).any()):
                picks = _Filling(self, chosen, per_busy, per_replica, cap).picks()
                found += [self._fitted(picked, per_busy, per_replica, cap) for picked in picks]
        return [pattern for pattern in found if len(pattern.candidates)]

    def _fitted(self, picked: Ints, per_busy: Floats, per_replica: Floats, cap: Floats) -> Pattern:
        """What of these fits for sure, the first first, with the shares that are worth most."""
        kept: list[int] = []
        models: set[int] = set()
        room = 1.0
        for k, m, size in zip(picked.tolist(), self.model[picked].tolist(), self.memory[picked].tolist(), strict=True):
            if m not in models and size <= room and len(kept) < self.slots:
                kept.append(k)
                models.add(m)
                room -= size
        some = np.array(sorted(kept, key=lambda k: (-per_busy[k], k)), np.int64)
        best: tuple[float, Ints, Floats] = (-np.inf, some[:0], np.zeros(0))
        for limit in np.unique(self.rho[some]).tolist():
            inside = some[self.rho[some] >= limit - _TINY]
            before = np.cumsum(cap[inside]) - cap[inside]
            busy = np.clip(np.minimum(limit - before, cap[inside]), 0.0, None)
            useful = (busy > _TINY) | (per_replica[inside] > 0)
            inside, busy = inside[useful], busy[useful]
            worth = float((per_busy[inside] * busy + per_replica[inside]).sum())
            worth -= float(self.awake_cost[inside[busy > 0]].max(initial=0.0))
            if worth > best[0]:
                best = (worth, inside, busy)
        order = np.argsort(best[1])
        return Pattern(self.pool, self.candidates[best[1][order]], best[2][order])


class _Filling:
    """One server filled with some of the candidates: whoever has the least rho decides how busy it may be."""

    def __init__(self, shelf: Shelf, chosen: Ints, per_busy: Floats, per_replica: Floats, cap: Floats) -> None:
        widest = np.zeros(int(shelf.model[chosen].max()) + 1)
        np.maximum.at(widest, shelf.model[chosen], shelf.rho[chosen])
        # variants of a model one after the other, at the widest limit of theirs: a server has one of them at most
        self._chosen = chosen = chosen[np.lexsort((chosen, shelf.model[chosen], -widest[shelf.model[chosen]]))]
        self._model = shelf.model[chosen]
        self._rho, self._cap = widest[self._model], cap[chosen]
        self._per_busy, self._per_replica = per_busy[chosen], per_replica[chosen]
        self._gain = self._per_replica + self._per_busy * self._cap
        self._top = float(self._rho[0])
        largest = np.sort(shelf.memory[chosen])[::-1][: shelf.slots]
        self._memory = shelf.memory[chosen] if largest.sum() > 1.0 else np.zeros(len(chosen))
        self._place = np.full(len(chosen), 1.0 / shelf.slots if shelf.slots < len(chosen) else 0.0)
        self._step = self._top / BUSY_STEPS
        self._large = self._which_are_large()
        self._prices, beyond = self._small_prices()
        before = np.zeros((1, len(self._prices)))
        self._small = np.concatenate([before, np.cumsum(np.where(self._large[:, None], 0.0, beyond), axis=0)])
        every = np.concatenate([before, np.cumsum(beyond, axis=0)])
        ends = np.flatnonzero(np.append(self._rho[1:] < self._rho[:-1] - _TINY, True)) + 1
        price = self._prices
        at_most = price[:, 0] * self._rho[ends - 1][:, None] + price[:, 1] + price[:, 2] + every[ends]
        self._ends = ends[np.argsort(-at_most.min(axis=1), kind="stable")][:_LIMITS]
        self._fill()

    def _which_are_large(self) -> Bools:
        large = (self._cap >= _LARGE_BUSY * self._top) | (self._memory >= _LARGE_MEMORY)
        starts = np.flatnonzero(np.append(True, self._model[1:] != self._model[:-1]))
        together: Bools = np.repeat(np.logical_or.reduceat(large, starts), np.diff(np.append(starts, len(large))))
        return together

    def _small_prices(self) -> tuple[Floats, Floats]:
        """Prices of a server's busy share, memory and places, and what each candidate is worth beyond each of them."""
        sizes = np.stack([self._cap / self._top, self._memory, self._place])
        prices = [(0.0, 0.0, 0.0)]
        for mix in _MIXES[(_MIXES @ (sizes > 0).any(axis=1)) >= 1 - _TINY]:
            size = mix @ sizes
            density = np.divide(self._gain, size, out=np.full(len(size), np.inf), where=size > 0)
            order = np.argsort(-density, kind="stable")
            at = np.minimum(np.searchsorted(np.cumsum(size[order]), _DEPTHS), len(order) - 1)
            worths = np.unique(density[order[at]])
            prices += [(worth * mix[0] / self._top, worth * mix[1], worth * mix[2]) for worth in worths[np.isfinite(worths)]]
        made = np.array(prices)
        busy = np.maximum(self._per_busy[:, None] - made[:, 0], 0.0) * self._cap[:, None]
        rent = np.outer(self._memory, made[:, 1]) + np.outer(self._place, made[:, 2])
        return made, np.maximum(self._per_replica[:, None] + busy - rent, 0.0)

    def _fill(self) -> None:
        """The programme over the large ones: `_states[n]` is the worth of the first n by steps of busy share and memory."""
        state = np.zeros((BUSY_STEPS + 1, MEMORY_STEPS + 1 if self._memory.any() else 1))
        self._states = [state]
        without, model = state, -1
        for k in np.flatnonzero(self._large).tolist():
            if self._model[k] != model:
                without, model = state, int(self._model[k])
            state = self._with_one(state, without, k)
            self._states.append(state)

    def _steps(self, k: int) -> tuple[int, int]:
        return int(self._cap[k] / self._step + 1e-9), int(self._memory[k] * MEMORY_STEPS + 1e-9)

    def _with_one(self, state: Floats, without: Floats, k: int) -> Floats:
        """The state where one more candidate may be there, with any busy share; `without`: none of its model is."""
        full, steps = self._steps(k)
        before = without[:, : max(0, state.shape[1] - steps)]
        each = self._per_busy[k] * self._step
        if full == 0:
            after = before + self._gain[k]
        else:
            ramp = each * np.arange(BUSY_STEPS + 1)[:, None]
            window, width = before - ramp, 1
            while width < full:  # the best of the last `full` rows, in doubling steps
                shift = min(width, full - width)
                window[shift:] = np.maximum(window[shift:], window[:-shift].copy())
                width += shift
            after = window + ramp + self._per_replica[k]
            after[full:] = np.maximum(after[full:], before[: BUSY_STEPS + 1 - full] + self._gain[k])
        new = state.copy()
        new[:, steps:] = np.maximum(new[:, steps:], after)
        return new

    def picks(self) -> list[Ints]:
        """Candidates that are worth most together, large ones first: what fits of them is a pattern."""
        return [self._traced(state) for end in self._ends.tolist() for state in self._best_states(end)]

    def _best_states(self, end: int) -> list[_State]:
        """Where the most is reached with the first candidates only, at the limit of the last of them."""
        limit = float(self._rho[end - 1])
        worth = self._states[int(self._large[:end].sum())]
        last, wide = min(BUSY_STEPS, int(limit / self._step + 1e-9)), worth.shape[1]
        free = limit - self._step * np.arange(last + 1)
        room = 1.0 - np.arange(wide) / max(wide - 1, 1)
        busy = self._prices[:, 0] * free[:, None] + self._small[end] + self._prices[:, 2]
        memory = self._prices[:, 1] * room[:, None]
        worth = worth[: last + 1] + (busy[:, None, :] + memory[None, :, :]).min(axis=2)
        states: list[_State] = []
        for part in np.array_split(np.arange(last + 1), _SHARES):
            if len(part):
                at, m = divmod(int(np.argmax(worth[part])), wide)
                b = int(part[at])
                states.append((end, b, m, int(np.argmin(busy[b] + memory[m]))))
        return states

    def _traced(self, state: _State) -> Ints:
        """The candidates of a state."""
        end, b, m, price = state
        large = np.flatnonzero(self._large[:end])
        picked: list[int] = []
        number = len(large)
        while number > 0:
            k = int(large[number - 1])
            if self._states[number][b, m] <= self._states[number - 1][b, m] + _TINY:
                number -= 1
                continue
            while number > 0 and self._model[large[number - 1]] == self._model[k]:
                number -= 1
            full, steps = self._steps(k)
            m -= steps
            took = np.arange(min(full, b) + 1)
            worth = self._states[number][b - took, m] + self._per_busy[k] * self._step * took
            if full <= b:
                worth[full] = self._states[number][b - full, m] + self._per_busy[k] * self._cap[k]
            b -= int(np.argmax(worth))
            picked.append(k)
        rent = np.stack([self._cap, self._memory, self._place], axis=1) @ self._prices[price]
        small = np.flatnonzero(~self._large[:end])
        order = small[np.lexsort((small, -self._per_busy[small], self._gain[small] <= rent[small]))]
        found: Ints = self._chosen[np.concatenate([np.array(picked, np.int64), order])]
        return found
