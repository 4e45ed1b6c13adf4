"""Whether a fetch gets on: one that hardly does shares its slot with others, and one that does not at all has failed."""

from dataclasses import dataclass

from ergon.store.observed import FetchProgress

MIB = 1 << 20
LARGE_FETCH_BYTES = 1 << 30
"""From here on a fetch is long however fast its source is; they never take all slots, so that small ones go past them."""


@dataclass
class Pace:
    """At least so many bytes in so many seconds, or a file found to be there already. `begun_seconds`: when it is first asked."""

    least_bytes: int
    seconds: float
    begun_seconds: float
    _bytes: int = 0
    _checked: int = 0

    def kept(self, progress: FetchProgress, now_seconds: float) -> bool:
        """Whether the fetch has kept it until now."""
        if progress.bytes_done - self._bytes >= self.least_bytes or progress.files_checked > self._checked:
            self.begun_seconds, self._bytes, self._checked = now_seconds, progress.bytes_done, progress.files_checked
        return now_seconds - self.begun_seconds < self.seconds


def to_hold_a_slot(now_seconds: float) -> Pace:
    """140 kB/s: what is slower takes next to nothing of what others could have."""
    return Pace(8 * MIB, 60.0, now_seconds)


def to_go_on(now_seconds: float) -> Pace:
    """1.7 kB/s, and time to compare 100 GB that lie there already with their source's hash, at 170 MB/s."""
    return Pace(MIB, 600.0, now_seconds)
