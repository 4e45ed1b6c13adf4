"""What a model used lately: joules, requests and work that fade, so that a figure follows and is not shaken by one request."""

import math

SHORT_SECONDS = 300.0
LONG_SECONDS = 3600.0

LEAST_WATTS = 0.01
"""Less is said to be nothing: what only fades would be a new figure each quarter of an hour, for weeks."""

LEAST_JOULES = 0.1
"""Booked at once, that show that a model did something: the remains of a split are less."""


class Faded:
    """Sums that fade with a time constant; `per_second` of what was added is right from the first minute on."""

    __slots__ = ("_at", "_used_at", "_weight", "joules", "requests", "seconds", "work")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.joules = self.requests = self.work = self._weight = self._at = self._used_at = 0.0

    def add(self, joules: float, requests: float, work: float, now_seconds: float) -> None:
        """Add what was used until now (seconds of the ledger's own clock)."""
        self.fade(now_seconds)
        if joules >= LEAST_JOULES:
            self._used_at = now_seconds
        self.joules += joules
        self.requests += requests
        self.work += work

    def fade(self, now_seconds: float) -> None:
        """Bring the sums to this time."""
        keep = math.exp(-max(0.0, now_seconds - self._at) / self.seconds)
        self.joules *= keep
        self.requests *= keep
        self.work *= keep
        self._weight = self._weight * keep + (1 - keep)
        self._at = now_seconds

    def start(self, now_seconds: float) -> None:
        """Nothing is known before this time."""
        self._at = now_seconds

    def watts(self, now_seconds: float) -> float:
        """Mean joules per second over the last time constant, or since the start where that is less. 0 below LEAST_WATTS, and
        where nothing was used for that long: then what fades is older.
        """
        self.fade(now_seconds)
        if self._weight <= 0 or now_seconds - self._used_at > self.seconds:
            return 0.0
        watts = self.joules / (self.seconds * self._weight)
        return watts if watts >= LEAST_WATTS else 0.0


class Pace:
    """A model's last five minutes and last hour."""

    __slots__ = ("long", "short")

    def __init__(self, now_seconds: float) -> None:
        self.short, self.long = Faded(SHORT_SECONDS), Faded(LONG_SECONDS)
        self.short.start(now_seconds)
        self.long.start(now_seconds)

    def add(self, joules: float, requests: float, work: float, now_seconds: float) -> None:
        """Add what was used until now."""
        self.short.add(joules, requests, work, now_seconds)
        self.long.add(joules, requests, work, now_seconds)

    def trend(self, now_seconds: float) -> float | None:
        """By how much of itself the power of the last five minutes lies above that of the hour; None where that was none."""
        hour = self.long.watts(now_seconds)
        return self.short.watts(now_seconds) / hour - 1 if hour > 0 else None
