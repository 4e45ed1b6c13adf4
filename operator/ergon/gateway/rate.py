"""How many of a route's requests may escalate: a share over a minute, spent on the answers that are worth least. Pure."""

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 60
REMEMBERED = 512
ENOUGH = 20
"""So many answers must have been seen before some that would escalate are passed over for worse ones to come."""


@dataclass
class EscalationRate:
    """One route's account in one gateway.

    Of the requests of the last minute at most `ceil(share * requests)` escalate. Where more would, those are chosen whose answers
    are worth least among the last 512, so that a lowered share costs as little quality as it can.
    """

    _seconds: deque[list[int]] = field(default_factory=deque)
    """By second: its number, requests, escalations."""
    _requests: int = 0
    _escalations: int = 0
    _order: deque[float] = field(default_factory=deque)
    _sorted: list[float] = field(default_factory=list)

    def request(self, now: float) -> None:
        """A request has come. `now` in seconds; it does not go back."""
        self._second(now)[1] += 1
        self._requests += 1

    def good(self) -> None:
        """An answer that would not escalate: it too is among those that others are compared with."""
        self._remember(-math.inf)

    def may(self, share: float, urgency: float, now: float) -> bool:
        """Whether a request whose answer has this urgency may escalate now; counted where it may."""
        self._remember(urgency)
        second = self._second(now)
        if self._escalations + 1 > math.ceil(share * self._requests) or urgency < self._least(share):
            return False
        second[2] += 1
        self._escalations += 1
        return True

    def _least(self, share: float) -> float:
        """The urgency that a share of the answers seen lately reaches."""
        count = len(self._sorted)
        if share >= 1 or count < ENOUGH:
            return -math.inf
        return self._sorted[min(count - 1, int(count * (1 - share)))]

    def _remember(self, urgency: float) -> None:
        self._order.append(urgency)
        insort(self._sorted, urgency)
        if len(self._order) > REMEMBERED:
            oldest = self._order.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    def _second(self, now: float) -> list[int]:
        number = int(now)
        while self._seconds and self._seconds[0][0] <= number - WINDOW_SECONDS:
            _, requests, escalations = self._seconds.popleft()
            self._requests -= requests
            self._escalations -= escalations
        if not self._seconds or self._seconds[-1][0] != number:
            self._seconds.append([number, 0, 0])
        return self._seconds[-1]
