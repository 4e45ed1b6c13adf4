"""The p90 of the mean rate of every model over a horizon, and by which method it was found."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ergon.demand import packing
from ergon.demand.history import PER_QUARTER, QUARTERS, History
from ergon.demand.recurring import recurring_work
from ergon.demand.rung import METHODS, POINTS, Rung
from ergon.fleet.types import ModelKey

HORIZON_MINUTES = (1, 5, 15, 60)
"""A horizon between two of them is interpolated in its logarithm; beyond the last, the last is taken."""

SETTLE_SECONDS = 6.0
"""After a minute's end before its rate is fixed, so that every server was read once more (every 5 s)."""

_FIRST_LOOK_SECONDS = 60.0
"""Of which half must be seen: the first requests of a new model come at once, and a second replica for them would be for nothing.
Where as many go on coming, the fast path sees it within seconds.
"""
_DAY_QUARTERS = 96


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a model's rate over the horizon, in work per second.

    `method` is in words, "none" where nothing was seen. `score` is its pinball loss in the back-test over the model's own past,
    as a share of the level, None before there is one.
    """

    mean: float
    p90: float
    method: str
    score: float | None = None


NONE = Forecast(0.0, 0.0, "none")


class Forecaster:
    """Histories and forecasts of all models. Times are seconds of one clock that never steps back; days count from its zero."""

    def __init__(self, rows: int = 64) -> None:
        """`rows` is room for so many models; it grows as needed."""
        self.history = History(rows)
        self._rungs = [Rung(minutes, rows) for minutes in HORIZON_MINUTES]
        self._row: dict[ModelKey, int] = {}
        self._free = list(range(rows - 1, -1, -1))

    def __contains__(self, key: ModelKey) -> bool:
        """Whether anything was ever seen of the model."""
        return key in self._row

    def __iter__(self) -> Iterator[ModelKey]:
        """The models of which anything was ever seen."""
        return iter(self._row)

    def add(self, key: ModelKey, start_seconds: float, end_seconds: float, work: float) -> None:
        """Work that came to a model, evenly over a span. A span without work says that nothing came, where none says nothing."""
        if not (math.isfinite(start_seconds) and math.isfinite(end_seconds) and 0 <= work < math.inf):
            return
        row = self._row.get(key)
        if row is None:
            if work <= 0:
                return  # a model that was never asked costs nothing
            row = self._room_for(key)
        self.history.add(row, start_seconds, end_seconds, work)

    def forget(self, key: ModelKey) -> None:
        """Drops a model and makes its room free."""
        row = self._row.pop(key, None)
        if row is not None:
            self.history.clear(row)
            for rung in self._rungs:
                rung.clear(row)
            self._free.append(row)

    def advance(self, now_seconds: float, idle: frozenset[ModelKey] = frozenset()) -> None:
        """Closes the minutes that are over, and forecasts anew. `idle` models had no replica to be read: nothing came is 0."""
        minute = int((now_seconds - SETTLE_SECONDS) // 60) - 1
        rows = np.array(sorted(self._row[key] for key in idle if key in self._row), np.int64)
        # After a pause only the last two hours are gone through: the rings hold no more.
        first = max(self.history.closed_minute + 1, minute - 120) if self.history.closed_minute >= 0 else minute
        for each in range(first, minute + 1):
            if self.history.close(each, rows) and (each == minute or self.history.anything_known):
                for rung in self._rungs:
                    rung.tick(self.history)

    def forecast(self, key: ModelKey, now_seconds: float, horizon_seconds: float) -> Forecast:
        """What is expected from now over a horizon."""
        row = self._row.get(key)
        if row is None:
            return NONE
        if not self._rungs[0].knows(row):
            seen = self.history.recent(row, now_seconds, _FIRST_LOOK_SECONDS, _FIRST_LOOK_SECONDS / 2)
            return Forecast(seen, 1.5 * seen, "first look") if seen > 0 else NONE
        minutes = min(max(horizon_seconds / 60, HORIZON_MINUTES[0]), HORIZON_MINUTES[-1])
        upper = next(i for i, rung in enumerate(HORIZON_MINUTES) if minutes <= rung)
        above = self._rungs[upper]
        below = self._rungs[max(0, upper - 1)]
        low, high = below.horizon_minutes, above.horizon_minutes
        part = math.log(minutes / low) / math.log(high / low) if high > low else 1.0
        nearer = above if part >= 0.5 else below
        return Forecast(
            mean=float(below.mean[row] + part * (above.mean[row] - below.mean[row])),
            p90=float(below.p90[row] + part * (above.p90[row] - below.p90[row])),
            method=nearer.method(row),
            score=nearer.score(row),
        )

    def recurring(self, key: ModelKey, now_seconds: float, horizon_seconds: float) -> float:
        """Work that came at this time on earlier days too, from now over a horizon; 0 where none did."""
        row = self._row.get(key)
        return recurring_work(self.history, row, now_seconds, horizon_seconds) if row is not None else 0.0

    def observed(self, key: ModelKey, now_seconds: float, seconds: float) -> float:
        """The mean rate of the last seconds, as far as it was seen."""
        row = self._row.get(key)
        return self.history.recent(row, now_seconds, seconds) if row is not None else 0.0

    def busiest(self) -> list[ModelKey]:
        """All models, those first of which most work was seen in the last day."""
        closed = self.history.closed_minute + 1
        quarters = self.history.quarters[:, (closed // PER_QUARTER - 1 - np.arange(_DAY_QUARTERS)) % QUARTERS]
        work = np.nansum(quarters, 1) * PER_QUARTER + np.nansum(self.history.minutes, 1)  # the last hours count once more
        return sorted(self._row, key=lambda key: (-work[self._row[key]], key))

    def to_state(self, key: ModelKey) -> dict[str, Any]:
        """What survives a restart, about 1 kB for JSON: the last day by quarters, 15 days by hours, the back-test."""
        row = self._row[key]
        state: dict[str, Any] = {"past": packing.pack_past(self.history, row)}
        for rung in self._rungs:
            if rung.scored[row] > 0:
                state[str(rung.horizon_minutes)] = packing.pack_numbers([*rung.scores[row], *rung.offsets[row].ravel()])
        return state

    def take_state(self, key: ModelKey, state: Mapping[str, Any], now_seconds: float | None = None) -> None:
        """Goes on from what `to_state` gave; what cannot be read is left out, what lies after `now_seconds` moved back."""
        if key not in self._row:
            self._room_for(key)
        row = self._row[key]
        level = packing.unpack_past(self.history, row, state.get("past"), now_seconds)
        for rung in self._rungs:
            numbers = packing.unpack_numbers(state.get(str(rung.horizon_minutes)), METHODS + 2 * len(POINTS))
            if numbers is not None and level is not None:
                rung.start_from(row, numbers[:METHODS], numbers[METHODS:].reshape(len(POINTS), 2), level)

    def _room_for(self, key: ModelKey) -> int:
        if not self._free:
            rows = self.history.rows
            self.history.grow()
            for rung in self._rungs:
                rung.grow()
            self._free = list(range(2 * rows - 1, rows - 1, -1))
        self._row[key] = self._free.pop()
        return self._row[key]
