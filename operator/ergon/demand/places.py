"""What models that generate must have places for: their peak and the p90, and nothing less than a few minutes ago."""

from collections import deque

from ergon.demand.peaks import Peaks
from ergon.fleet.types import ModelKey


class Held:
    """The largest value of the last while."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        """Nothing yet."""
        self._recent: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float, seconds: float) -> float:
        """Take in a value; the largest of the last seconds, it included."""
        recent = self._recent
        while recent and recent[0][0] <= now - seconds:
            recent.popleft()
        while recent and recent[-1][1] <= value:
            recent.pop()  # a later, higher one outlives it
        recent.append((now, value))
        return self.largest

    @property
    def largest(self) -> float:
        """Of those held; 0 without."""
        return self._recent[0][1] if self._recent else 0.0

    def clear(self) -> None:
        """Forget all."""
        self._recent.clear()


class Places:
    """By model, work per second. Found with each plan, so that what goes and what presses is judged by the same figure."""

    def __init__(self, peaks: Peaks, stabilise_seconds: float) -> None:
        self._peaks, self._seconds = peaks, stabilise_seconds
        self._held: dict[ModelKey, Held] = {}

    def find(self, key: ModelKey, percentile: int, p90: float, now: float) -> bool:
        """Find a model's places anew; whether its peak is known, so that it has any."""
        peak = self._peaks.peak(key, percentile)
        if peak is None:
            return False
        self._held.setdefault(key, Held()).add(now, max(peak, p90), self._seconds)
        return True

    def of(self, key: ModelKey) -> float:
        """A model's places; 0 where its peak is not known."""
        held = self._held.get(key)
        return held.largest if held is not None else 0.0

    def known(self) -> dict[ModelKey, float]:
        """Those of all models whose peak is known."""
        return {key: held.largest for key, held in self._held.items()}

    def forget(self, key: ModelKey) -> None:
        """Drops a model."""
        self._held.pop(key, None)
