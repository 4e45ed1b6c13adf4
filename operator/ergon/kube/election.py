"""Who leads, as a pure state machine: what was seen of the Lease and when, on the observer's own monotonic clock.

The semantics are those of client-go: the times in the Lease are for people; a holder is taken for gone when its Lease has not
changed for a whole duration *as seen here*. So clocks may differ between machines, only not run at very different speeds.
"""

from dataclasses import dataclass, replace
from enum import Enum

MARGIN_SECONDS = 0.5
"""Kept free at the end of a Lease, for clocks that run at slightly different speeds."""


@dataclass(frozen=True)
class Timing:
    """`lease_seconds` > `renew_seconds` > `retry_seconds`: a leader that cannot renew gives up before another may take over."""

    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_seconds > self.renew_seconds > self.retry_seconds > 0:
            raise ValueError("lease_seconds must be above renew_seconds, and that above retry_seconds")


@dataclass(frozen=True)
class Seen:
    """What a Lease says: holder ("" when given back), its duration, and a version that changes with every write."""

    holder: str
    lease_seconds: float
    version: str


class Step(Enum):
    """What to do now."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"
    LOST = "lost"


@dataclass(frozen=True)
class Election:
    """The state of one candidate. Times are monotonic seconds; every method returns a new state or a plain value."""

    identity: str
    timing: Timing
    seen: Seen | None = None
    seen_at: float = 0.0
    read: bool = False
    renewed_at: float | None = None

    def observe(self, seen: Seen | None, now: float) -> "Election":
        """The Lease was read (None: there is none). Its time starts anew only when it changed."""
        if self.read and seen is not None and self.seen is not None and seen.version == self.seen.version:
            return self
        return replace(self, seen=seen, seen_at=now, read=True)

    def wrote(self, seen: Seen, started_at: float) -> "Election":
        """Our write went through. The Lease counts from when the write was sent, which is not after others can see it."""
        return replace(self, seen=seen, seen_at=started_at, read=True, renewed_at=started_at)

    def gave_back(self) -> "Election":
        """We no longer lead."""
        return replace(self, renewed_at=None)

    @property
    def leads(self) -> bool:
        """Whether the last write was ours and nobody else was seen since."""
        return self.renewed_at is not None and self.seen is not None and self.seen.holder == self.identity

    def expires_at(self) -> float:
        """Until when nobody else can lead; minus infinity where we do not."""
        return self.renewed_at + self.timing.lease_seconds if self.renewed_at is not None and self.leads else float("-inf")

    def outlives(self, seconds: float, now: float) -> bool:
        """Whether something that takes so long ends while we surely still lead."""
        return now + seconds + MARGIN_SECONDS < self.expires_at()

    def step(self, now: float) -> Step:
        """What to do, given what was seen."""
        if self.renewed_at is not None:
            late = now - self.renewed_at > self.timing.renew_seconds
            return Step.LOST if late or not self.leads else Step.RENEW
        if self.seen is None:
            return Step.CREATE
        if self.seen.holder in ("", self.identity):
            return Step.TAKE
        patience = max(self.timing.lease_seconds, self.seen.lease_seconds)
        return Step.TAKE if now - self.seen_at > patience else Step.WAIT
