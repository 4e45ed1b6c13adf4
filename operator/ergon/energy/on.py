"""How many servers and nodes of a pool draw power: more than answer, since nodes boot before and shut down after."""

import math
from collections import deque
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ergon.fleet.types import Pool


@dataclass(frozen=True, slots=True)
class ServersOn:
    """Servers and nodes of a pool that draw power."""

    servers: int
    nodes: int


class OnState(BaseModel):
    """A tracker's memory: (servers, seconds ago), and nothing older than the pool's `offDelay`."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    held: tuple[tuple[int, float], ...] = ()


class OnTracker:
    """Counts a server as on from the moment it is asked for until `offDelay` after it went. Times are monotonic seconds."""

    def __init__(self, off_delay_seconds: float) -> None:
        self.off_delay_seconds = off_delay_seconds
        # Falling counts, each with the time at which it last stood: the first one is the most within offDelay.
        self._held: deque[tuple[int, float]] = deque()

    def observe(self, pool: Pool, asked_for: int, now_seconds: float) -> ServersOn:
        """What draws power now, with `asked_for` pods of the pool (pending ones too: their node boots) at this time."""
        self._forget(now_seconds)
        while self._held and self._held[-1][0] <= asked_for:
            self._held.pop()
        self._held.append((asked_for, now_seconds))
        servers = self._held[0][0] if pool.scale_in else pool.servers_max
        return ServersOn(servers, math.ceil(servers / pool.servers_per_node))

    def to_state(self, now_seconds: float) -> OnState:
        """What another process needs to go on."""
        return OnState(held=tuple((count, max(0.0, now_seconds - at)) for count, at in self._held))

    @classmethod
    def from_state(cls, state: OnState, off_delay_seconds: float, now_seconds: float, gap_seconds: float) -> "OnTracker":
        """The tracker as it was, so many seconds after its state was taken."""
        tracker = cls(off_delay_seconds)
        tracker._held.extend((count, now_seconds - ago - max(0.0, gap_seconds)) for count, ago in state.held)
        tracker._forget(now_seconds)
        return tracker

    def _forget(self, now_seconds: float) -> None:
        while self._held and self._held[0][1] < now_seconds - self.off_delay_seconds:
            self._held.popleft()
