"""What the store says about fetches, as plain values."""

from dataclasses import dataclass, field

from ergon.store.errors import StoreError
from ergon.store.sources import Source


@dataclass(frozen=True)
class FetchJob:
    """A fetch that rclone runs. `process` tells it from a job of the same number in an rclone that was restarted."""

    number: int
    process: str
    incoming_id: str
    source: Source = field(repr=False)


@dataclass(frozen=True)
class FetchProgress:
    """How far a fetch is. The totals grow while rclone still lists the source. `error` is set where it finished and failed.

    `files_checked`: those that an attempt before has left, and that were compared with the source.
    """

    bytes_done: int
    bytes_total: int
    files_done: int
    files_total: int
    finished: bool
    error: StoreError | None = None
    files_checked: int = 0


@dataclass(frozen=True)
class Size:
    """Files and bytes below a directory."""

    files: int
    total_bytes: int
