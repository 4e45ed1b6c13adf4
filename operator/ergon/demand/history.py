"""What was asked of every model, bounded: 5 s for 10 minutes, 1 minute for 2 hours, a quarter of an hour for 15 days.

Work per second; NaN: unknown. Rows are models, so that a thousand of them are closed, forecast and forgotten in a few array
operations. Slots count from the clock's zero, not from local midnight: daylight saving shifts nothing.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BIN_SECONDS = 5.0
BINS = 120
MINUTES = 120
QUARTERS = 15 * 96
PER_QUARTER = 15


class History:
    """Rings of three resolutions. Only `add` and `close` write."""

    def __init__(self, rows: int = 64) -> None:
        """`rows` is room for so many models; it grows as needed."""
        self.work = np.zeros((rows, BINS), np.float32)
        self.seen = np.zeros((rows, BINS), np.float32)
        self.minutes = np.full((rows, MINUTES), np.nan, np.float32)
        self.quarters = np.full((rows, QUARTERS), np.nan, np.float32)
        self.newest_bin = -1
        self.closed_minute = -1
        """The last minute (since the clock's zero) whose rate stands; -1 before the first."""

    @property
    def rows(self) -> int:
        """Models there is room for."""
        return len(self.work)

    @property
    def anything_known(self) -> bool:
        """Whether the minute that was closed last is known of any model."""
        return not bool(np.isnan(self.minutes[:, self.closed_minute % MINUTES]).all())

    def grow(self) -> None:
        """Doubles the room."""
        for name in ("work", "seen", "minutes", "quarters"):
            old = getattr(self, name)
            empty = np.full_like(old, 0 if name in ("work", "seen") else np.nan)
            setattr(self, name, np.concatenate([old, empty]))

    def clear(self, row: int) -> None:
        """Forgets a model."""
        self.work[row] = self.seen[row] = 0
        self.minutes[row] = self.quarters[row] = np.nan

    def add(self, row: int, start_seconds: float, end_seconds: float, work: float) -> None:
        """Spreads work evenly over a span. What is older than the finest ring goes to the minutes, as far as they reach."""
        length = end_seconds - start_seconds
        if length <= 0 or end_seconds < 0:
            return
        last = int(end_seconds // BIN_SECONDS)
        self._advance(last)
        oldest = (self.newest_bin - BINS + 1) * BIN_SECONDS
        rate = work / length
        start = max(start_seconds, oldest)
        first = int(start // BIN_SECONDS)
        for number in range(first, last + 1):
            part = min(end_seconds, (number + 1) * BIN_SECONDS) - max(start, number * BIN_SECONDS)
            if part > 0:
                self.work[row, number % BINS] += rate * part
                self.seen[row, number % BINS] = min(BIN_SECONDS, self.seen[row, number % BINS] + part)
        self._amend_minutes(row, start_seconds, min(end_seconds, (self.closed_minute + 1) * 60.0), rate)

    def close(self, minute: int, idle: Ints) -> bool:
        """Fixes the rates of all minutes up to `minute`; whether there were any. `idle` rows are 0 where nothing was seen."""
        if minute <= self.closed_minute:
            return False
        self._advance(int((minute + 1) * 60 // BIN_SECONDS))
        first = self.closed_minute + 1 if self.closed_minute >= 0 else minute
        for gone in range(max(first, minute - MINUTES + 1), minute + 1):
            self.minutes[:, gone % MINUTES] = self._minute_rate(gone, idle)
        for gone in range(max(first, minute - QUARTERS * PER_QUARTER + 1), minute + 1):
            if gone % PER_QUARTER == PER_QUARTER - 1:
                self.quarters[:, gone // PER_QUARTER % QUARTERS] = self._quarter_rate(gone // PER_QUARTER, minute)
        self.closed_minute = minute
        return True

    def trailing(self, minutes: int) -> Floats:
        """The mean of the last closed minutes of every row; NaN where less than half of them is known."""
        places = (self.closed_minute - np.arange(minutes)) % MINUTES
        known = self.minutes[:, places]
        counted = (~np.isnan(known)).sum(1)
        total = np.nansum(known, 1, dtype=float)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counted * 2 >= minutes, total / counted, np.nan)

    def recent(self, row: int, now_seconds: float, seconds: float, least_seconds: float = 0.0) -> float:
        """The mean rate of a model in the last seconds before `now`, as far as it was seen; 0 where it was not. What was seen for
        less than `least_seconds` counts as if nothing more came in these.
        """
        last = int(now_seconds // BIN_SECONDS)
        span = range(max(last - int(seconds // BIN_SECONDS), self.newest_bin - BINS + 1, 0), min(last, self.newest_bin) + 1)
        places = [number % BINS for number in span]
        seen = float(self.seen[row, places].sum()) if places else 0.0
        return float(self.work[row, places].sum()) / max(seen, least_seconds) if seen > 0 else 0.0

    def before(self, start_minute: int, minutes: int, days: int) -> Floats:
        """The mean of every row over `minutes` from `start_minute`, `days` earlier, from quarters; NaN where any is unknown."""
        start = start_minute - days * 1440
        first, last = start // PER_QUARTER, (start + minutes - 1) // PER_QUARTER
        now = (self.closed_minute + 1) // PER_QUARTER
        if last < 0 or first <= now - QUARTERS or last >= now:
            return np.full(self.rows, np.nan)
        numbers = np.arange(first, last + 1)
        begin, end = numbers * PER_QUARTER, (numbers + 1) * PER_QUARTER
        share = (np.minimum(end, start + minutes) - np.maximum(begin, start)) / minutes
        mean: Floats = self.quarters[:, numbers % QUARTERS] @ share
        return mean

    def _advance(self, newest: int) -> None:
        if newest <= self.newest_bin:
            return
        fresh = [number % BINS for number in range(max(self.newest_bin + 1, newest - BINS + 1), newest + 1)]
        self.work[:, fresh] = self.seen[:, fresh] = 0
        self.newest_bin = newest

    def _minute_rate(self, minute: int, idle: Ints) -> NDArray[np.float32]:
        first = int(minute * 60 // BIN_SECONDS)
        if first <= self.newest_bin - BINS:
            return np.full(self.rows, np.nan, np.float32)
        places = [(first + i) % BINS for i in range(int(60 // BIN_SECONDS))]
        seen = self.seen[:, places].sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = np.where(seen >= 30, self.work[:, places].sum(1) / seen, np.float32(np.nan))
        rate[idle] = np.where(np.isnan(rate[idle]), 0, rate[idle])
        return rate

    def _quarter_rate(self, quarter: int, newest_minute: int) -> NDArray[np.float32]:
        numbers = np.arange(quarter * PER_QUARTER, (quarter + 1) * PER_QUARTER)
        known = self.minutes[:, numbers[numbers > newest_minute - MINUTES] % MINUTES]
        counted = (~np.isnan(known)).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counted >= PER_QUARTER / 3, np.nansum(known, 1) / counted, np.float32(np.nan)).astype(np.float32)

    def _amend_minutes(self, row: int, start: float, end: float, rate: float) -> None:
        """Adds work to minutes that are closed already: an execution that ended now had begun then."""
        for minute in range(max(int(start // 60), self.closed_minute - MINUTES + 1, 0), int(end // 60) + 1):
            part = min(end, (minute + 1) * 60.0) - max(start, minute * 60.0)
            if part > 0 and minute <= self.closed_minute:
                place = minute % MINUTES
                was = self.minutes[row, place]
                self.minutes[row, place] = rate * part / 60.0 + (0.0 if np.isnan(was) else was)
