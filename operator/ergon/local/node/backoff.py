"""The kubelet's restart back-off: at once after the first failure, then 10 s doubling to 5 min, forgotten after 10 min."""

from __future__ import annotations

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 300.0
FORGET_SECONDS = 600.0


class Backoff:
    """Counts failures in a row and says how long to wait before the next start."""

    def __init__(self, first_seconds: float = 0.0) -> None:
        self._first_seconds = first_seconds
        self._failures = 0

    def after(self, lived_seconds: float) -> float:
        """Seconds to wait before the next start, after a try that lived so long."""
        if lived_seconds >= FORGET_SECONDS:
            self._failures = 0
        delay = self._first_seconds if self._failures == 0 else FIRST_SECONDS * 2.0 ** (self._failures - 1)
        self._failures += 1
        return min(delay, LONGEST_SECONDS)
