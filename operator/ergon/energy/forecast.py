"""What a scope will need: watts by time from now on, said by a forecaster, or learned here as the shape of a day."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

DAY_SECONDS = 86_400
BINS = 96
"""Of a day: a quarter of an hour each."""

DAYS_REMEMBERED = 7.0
"""A bin's mean moves by a seventh of the difference a day."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Watts at the wall that a scope needs from now on, step by step: all of it, and what must be served in any case.

    `protected_watts`: the servers that always run and the models at or above `shedBelowPriority`. Where the window is longer
    than the forecast, its last day goes on, or where it is shorter than a day, its mean.
    """

    step_seconds: float
    needed_watts: Sequence[float]
    protected_watts: Sequence[float]

    def over(self, seconds: float) -> tuple[Floats, Floats, Floats]:
        """(needed, protected, seconds) of the steps that fill so many seconds from now; protected is never above needed."""
        count = max(1, math.ceil(seconds / self.step_seconds))
        needed, protected = (
            _fill(self.needed_watts, count, self.step_seconds),
            _fill(self.protected_watts, count, self.step_seconds),
        )
        lengths = np.full(count, float(self.step_seconds))
        lengths[-1] = seconds - (count - 1) * self.step_seconds
        return np.maximum(needed, protected), protected, np.maximum(lengths, 0.0)


def level_forecast(needed_watts: float, protected_watts: float) -> Forecast:
    """As now, for ever: what is left where nothing was learned yet."""
    return Forecast(DAY_SECONDS / BINS, (needed_watts,), (protected_watts,))


class ShapeState(BaseModel):
    """The bins of a day: (needed watts, protected watts, weight)."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    bins: tuple[tuple[float, float, float], ...] = ()


class DayShape:
    """Learns what a scope needs by the time of day: the mean of the last week or so in each quarter of an hour."""

    def __init__(self) -> None:
        self._needed = np.zeros(BINS)
        self._protected = np.zeros(BINS)
        self._weight = np.zeros(BINS)

    def observe(self, needed_watts: float, protected_watts: float, seconds: float, wall_seconds: float) -> None:
        """So much was needed for so many seconds until now."""
        place = _bin(wall_seconds)
        gain = min(1.0, max(0.0, seconds) / (DAY_SECONDS / BINS))
        # The first day is a mean of what was seen; later ones move it.
        share = gain / (min(self._weight[place], DAYS_REMEMBERED - 1) + gain) if gain > 0 else 0.0
        self._needed[place] += share * (needed_watts - self._needed[place])
        self._protected[place] += share * (protected_watts - self._protected[place])
        self._weight[place] = min(DAYS_REMEMBERED, self._weight[place] + gain)

    def forecast(self, needed_watts: float, protected_watts: float, wall_seconds: float) -> Forecast:
        """From now on: the learned day, in bins never seen the nearest seen one before; before a day was seen, as now."""
        if np.count_nonzero(self._weight) < BINS // 2:
            return level_forecast(needed_watts, protected_watts)
        order = (np.arange(BINS) + _bin(wall_seconds)) % BINS
        seen = np.flatnonzero(self._weight > 0)
        known = seen[np.searchsorted(seen, np.arange(BINS), side="right") - 1]
        return Forecast(DAY_SECONDS / BINS, self._needed[known][order].tolist(), self._protected[known][order].tolist())

    def to_state(self) -> ShapeState:
        """What another process needs to go on, to four digits."""
        rows = zip(self._needed.tolist(), self._protected.tolist(), self._weight.tolist(), strict=True)
        return ShapeState(bins=tuple((float(f"{n:.4g}"), float(f"{p:.4g}"), float(f"{w:.3g}")) for n, p, w in rows))

    @classmethod
    def from_state(cls, state: ShapeState) -> "DayShape":
        """The shape as it was; a state of another size is no shape."""
        shape = cls()
        if len(state.bins) == BINS:
            shape._needed, shape._protected, shape._weight = (np.maximum(0.0, column) for column in np.array(state.bins).T)
        return shape


def _bin(wall_seconds: float) -> int:
    return int(wall_seconds % DAY_SECONDS // (DAY_SECONDS / BINS))


_MOST_WATTS = 1e12
"""A forecast of more is none: its sum over a window would be no figure."""


def _fill(watts: Sequence[float], count: int, step_seconds: float) -> Floats:
    known: Floats = np.clip(np.nan_to_num(np.asarray(watts, float), nan=0.0, posinf=0.0, neginf=0.0), 0.0, _MOST_WATTS)
    if len(known) >= count:
        return np.array(known[:count])
    a_day = round(DAY_SECONDS / step_seconds)
    if len(known) == 0:
        return np.zeros(count)
    rest = count - len(known)
    tail: Floats = np.resize(known[-a_day:], rest) if 0 < a_day <= len(known) else np.full(rest, known.mean())
    filled: Floats = np.concatenate([known, tail])
    return filled
