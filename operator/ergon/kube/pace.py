"""How fast calls go out and how long a failed one waits before it is sent again."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Limits of a client. Seconds are wall seconds; `total_seconds` covers queueing, every attempt and the waits between."""

    queries_per_second: float = 300.0
    burst: int = 600
    attempt_seconds: float = 15.0
    total_seconds: float = 45.0
    first_delay_seconds: float = 0.1
    longest_delay_seconds: float = 8.0


class TokenBucket:
    """At most `rate` calls a second in the long run, `burst` at once. Waiters are served in the order they came."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_at: float | None = None

    async def take(self) -> None:
        """Returns when a call may go out. The token is taken at once (it may go negative), so later callers wait longer."""
        now = asyncio.get_running_loop().time()
        if self._filled_at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        self._tokens -= 1.0
        if self._tokens < 0:
            try:
                await asyncio.sleep(-self._tokens / self._rate)
            except asyncio.CancelledError:
                self._tokens += 1.0
                raise


def retry_delay_seconds(pace: Pace, attempt: int, headers: Mapping[str, str], chance: random.Random) -> float:
    """How long to wait before attempt number `attempt + 1`: doubling, half of it jitter, never under Retry-After."""
    backoff: float = min(pace.longest_delay_seconds, pace.first_delay_seconds * 2**attempt)
    jittered = backoff * (0.5 + chance.random() / 2)
    try:
        asked = float(headers.get("Retry-After", 0))
    except ValueError:  # the HTTP-date form, which the API server does not use
        asked = 0.0
    return max(jittered, asked * (1.0 + chance.random() / 10))
