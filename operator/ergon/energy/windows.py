"""Calendar windows in a time zone, over its clock changes, and what was used in each.

Wall time (seconds since the epoch) is used for windows and nothing else: a stepped clock moves between them, and counts nothing
twice.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

_SEARCHED_SECONDS = 26 * 3600
"""A clock change moves the clock by at most a day (Samoa left out one)."""

KEPT_WINDOWS = 3
"""The window of now and those before: a clock that is set back finds its window again."""


class WindowKind(StrEnum):
    """How long a window is; a week begins on Monday."""

    HOUR = "Hour"
    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to `end`, in seconds since the epoch."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length: a day of 23 hours is one."""
        return self.end - self.start

    def fraction(self, at: float) -> float:
        """How much of it is gone at that time, 0 to 1."""
        return min(1.0, max(0.0, (at - self.start) / self.seconds))


def zone_of(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ValueError where there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone; write an IANA name such as Europe/Berlin or UTC") from None


def window_at(kind: WindowKind | Literal["Hour", "Day", "Week", "Month"], zone: ZoneInfo, at: float) -> Window:
    """The window that holds a time. Windows follow each other without a gap: a skipped hour belongs to none, a repeated hour is
    two of them, and a day with a clock change is an hour (or half) shorter or longer.
    """
    kind = WindowKind(kind)
    if kind is WindowKind.HOUR:
        return _hour(zone, at)
    local = datetime.fromtimestamp(math.floor(at), zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    first, after = _days(kind, midnight)
    start, end = _instant(first, zone), _instant(after, zone)
    if at < start:
        # A clock that is set back over midnight shows the end of yesterday twice: that is still yesterday's window.
        first, after = _days(kind, first - timedelta(days=1))
        start, end = _instant(first, zone), _instant(after, zone)
    elif at >= end:
        first, after = _days(kind, after)
        start, end = _instant(first, zone), _instant(after, zone)
    return Window(start, end)


def _days(kind: WindowKind, midnight: datetime) -> tuple[datetime, datetime]:
    if kind is WindowKind.DAY:
        return midnight, midnight + timedelta(days=1)
    if kind is WindowKind.WEEK:
        monday = midnight - timedelta(days=midnight.weekday())
        return monday, monday + timedelta(days=7)
    first = midnight.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def _hour(zone: ZoneInfo, at: float) -> Window:
    """The hour that the clock on the wall shows, cut where the clock is changed."""
    offset = _offset(zone, at)
    start = math.floor((at + offset) / 3600) * 3600 - offset
    end = start + 3600
    if _offset(zone, start) != offset:
        start = _change(zone, start, at)
    if _offset(zone, end - 1) != offset:
        end = _change(zone, at, end - 1)
    return Window(float(start), float(end))


def _instant(local: datetime, zone: ZoneInfo) -> float:
    """The first moment at which the zone's clock shows this time, or a later one where it skips it."""
    at = local.replace(tzinfo=zone, fold=0).timestamp()
    if datetime.fromtimestamp(at, UTC).astimezone(zone).replace(tzinfo=None) == local:
        return at
    return _change(zone, at - _SEARCHED_SECONDS, at)


def _change(zone: ZoneInfo, before: float, after: float) -> float:
    """The second between two times from which on the zone has the offset of the later one."""
    low, high = math.floor(before), math.floor(after)
    offset = _offset(zone, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(zone, middle) == offset else (middle, high)
    return float(high)


def _offset(zone: ZoneInfo, at: float) -> float:
    offset = datetime.fromtimestamp(math.floor(at), zone).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


class UsedState(BaseModel):
    """What was used by window: (start, used, assumed), the latest last. `since`: from when on it was counted."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    windows: tuple[tuple[float, float, float], ...] = ()
    since: float | None = None


class WindowUse:
    """What was used in the current window and those before it, in any unit. It only grows."""

    def __init__(self, kind: WindowKind, zone: ZoneInfo) -> None:
        self.kind, self.zone = kind, zone
        self.since: float | None = None
        self._used: dict[float, tuple[float, float]] = {}

    def add(self, amount: float, assumed: float, seconds: float, wall_seconds: float) -> None:
        """Add what was used in the `seconds` before now; where those lie in two windows, each gets its part."""
        if self.since is None:
            self.since = wall_seconds - seconds
        end, left = wall_seconds, seconds
        for _ in range(KEPT_WINDOWS):
            window = window_at(self.kind, self.zone, end if left == 0 else end - min(1e-3, left / 2))
            part = min(left, end - window.start)
            share = part / seconds if seconds > 0 else 1.0
            self._add(window.start, amount * share, assumed * share)
            end, left = window.start, left - part
            if left <= 1e-9 * max(1.0, seconds):
                break
        else:
            self._add(window.start, amount * left / seconds, assumed * left / seconds)
        now = window_at(self.kind, self.zone, wall_seconds).start
        for start in sorted(self._used, key=lambda start: abs(start - now))[KEPT_WINDOWS:]:
            del self._used[start]

    def used(self, window: Window) -> tuple[float, float]:
        """Used in a window, and how much of that was assumed."""
        return self._used.get(window.start, (0.0, 0.0))

    def to_state(self) -> UsedState:
        """What another process needs to go on."""
        return UsedState(windows=tuple((start, *used) for start, used in sorted(self._used.items())), since=self.since)

    @classmethod
    def from_state(cls, state: UsedState, kind: WindowKind, zone: ZoneInfo) -> "WindowUse":
        """The use as it was."""
        use = cls(kind, zone)
        use.since = state.since
        use._used = {start: (max(0.0, used), max(0.0, assumed)) for start, used, assumed in state.windows[-KEPT_WINDOWS:]}
        return use

    def _add(self, start: float, amount: float, assumed: float) -> None:
        used, before = self._used.get(start, (0.0, 0.0))
        self._used[start] = (used + max(0.0, amount), before + max(0.0, assumed))
