"""How busy the busiest moments of a model are: the rate that most of its work comes at or below, over the span of a generation.

A generating replica takes as many requests as it has places, and a place is taken for many seconds: what waits, waits for a
place. So what must fit is not the mean of a minute but what comes within the time of one generation. Measured with requests for
code (Azure 2023): the 97th percentile of the rate over twenty seconds is 9 times the mean of half an hour, that of conversations
1.3 times, and replicas that carry that rate keep 97 % of the requests in time (request mode, seven sizes of four streams).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ergon.demand import packing
from ergon.demand.history import Floats
from ergon.fleet.types import PEAK_SECONDS, ModelKey

SPAN_SECONDS = PEAK_SECONDS
"""About the time of one generation; rates are means over so long."""

LEVELS_SECONDS = (1800.0, 24 * 3600.0)
"""Over which the levels are smoothed that peaks are shares of; the lower peak holds. By the first the course of a day is
followed, so that the night needs less; by the second the busiest hours need no more than what would do for the whole day.

A level lags by its own time. With three hours for the first, conversations held 2.4 times what came in the evening of a day that
varies 3:1 (docs/decisions/0703)."""

MEMORY_SECONDS = 24 * 3600.0
"""What was seen so long ago counts a third."""

LEAST_SECONDS = 1800.0
"""Of spans seen before anything is said."""

_STEPS_AN_OCTAVE = 6
_OCTAVES_BELOW, _OCTAVES_ABOVE = 3, 7
_BUCKETS = _STEPS_AN_OCTAVE * (_OCTAVES_BELOW + _OCTAVES_ABOVE)


def kept_share(percentile: int) -> float:
    """Of the work, what must find a place soon enough: three fifths of what may be late are left to cold starts and moves."""
    return 1.0 - (1.0 - percentile / 100.0) * 0.4


@dataclass(slots=True)
class _Scale:
    """A level, and work by the rate it came at, as steps of its ratio to the level."""

    seconds: float
    level: float = 0.0
    weight: Floats = field(default_factory=lambda: np.zeros(_BUCKETS))
    growth: float = 1.0

    def take(self, rate: float, spans: float) -> None:
        before = self.level
        self.level += (rate - self.level) / min(spans, self.seconds / SPAN_SECONDS)
        self.growth *= 1.0 + SPAN_SECONDS / MEMORY_SECONDS  # instead of all weights shrinking
        if rate > 0:
            # Places were for a multiple of the level before: the one after has the burst in it, a quarter more for 25 times.
            ratio = rate / (before if before > 0 and spans * SPAN_SECONDS > LEAST_SECONDS else self.level)
            step = math.floor(math.log2(ratio) * _STEPS_AN_OCTAVE) + _STEPS_AN_OCTAVE * _OCTAVES_BELOW
            self.weight[min(max(step, 0), _BUCKETS - 1)] += ratio * self.growth
        if self.growth > 1e6:
            self.weight /= self.growth
            self.growth = 1.0

    def peak(self, share: float) -> float:
        total = self.weight.cumsum()
        wanted = share * total[-1]
        step = int(np.searchsorted(total, wanted))
        part = 1.0 - (total[step] - wanted) / max(self.weight[step], 1e-300)  # of the step's own width
        return float(self.level * 2 ** ((step + part) / _STEPS_AN_OCTAVE - _OCTAVES_BELOW))


def _scales() -> tuple[_Scale, ...]:
    return tuple(_Scale(seconds) for seconds in LEVELS_SECONDS)


@dataclass(slots=True)
class _Track:
    """One model: work by span that is not closed yet, and what was closed by each level."""

    open: dict[int, float] = field(default_factory=dict)
    closed: int = -1
    spans: float = 0.0
    scales: tuple[_Scale, ...] = field(default_factory=_scales)

    def close(self, until: int) -> None:
        """Take in the spans before `until` of which anything was told."""
        for span in sorted(span for span in self.open if span < until):
            work = self.open.pop(span)
            if span > self.closed:
                self.spans += 1.0
                for scale in self.scales:
                    scale.take(work / SPAN_SECONDS, self.spans)
                self.closed = span

    def peak(self, share: float) -> float | None:
        if self.spans * SPAN_SECONDS < LEAST_SECONDS or any(scale.level <= 0 for scale in self.scales):
            return None
        return min(scale.peak(share) for scale in self.scales)


class Peaks:
    """Peaks of all models that are told of. Times are seconds of one clock that never steps back."""

    def __init__(self) -> None:
        """Knows nothing."""
        self._tracks: dict[ModelKey, _Track] = {}

    def add(self, key: ModelKey, start_seconds: float, end_seconds: float, work: float) -> None:
        """Work that came to a model, evenly over [start, end). Spans of which nothing is told are left out."""
        passed = end_seconds - start_seconds
        if not (0 < passed < math.inf and 0 <= work < math.inf):
            return
        track = self._tracks.get(key)
        if track is None:
            if work <= 0:
                return
            track = self._tracks[key] = _Track()
        first, last = int(start_seconds // SPAN_SECONDS), math.ceil(end_seconds / SPAN_SECONDS)
        for span in range(max(first, track.closed + 1, last - 400), last):
            inside = min(end_seconds, (span + 1) * SPAN_SECONDS) - max(start_seconds, span * SPAN_SECONDS)
            track.open[span] = track.open.get(span, 0.0) + work * max(inside, 0.0) / passed

    def advance(self, now_seconds: float) -> None:
        """Close the spans that ended."""
        until = int(now_seconds // SPAN_SECONDS)
        for track in self._tracks.values():
            track.close(until)

    def peak(self, key: ModelKey, percentile: int) -> float | None:
        """Work per second at or below which `kept_share` of the work comes; None where too little was seen."""
        track = self._tracks.get(key)
        return track.peak(kept_share(percentile)) if track is not None else None

    def forget(self, key: ModelKey) -> None:
        """Drops a model."""
        self._tracks.pop(key, None)

    def to_state(self, keys: Iterable[ModelKey]) -> dict[str, str]:
        """What survives a restart, 350 bytes a model."""
        return {
            str(key): " ".join(
                [f"{track.spans:.0f}"]
                + [f"{s.level:.6g} " + packing.pack_numbers(s.weight / max(s.weight.max(), 1e-300)) for s in track.scales]
            )
            for key in keys
            if (track := self._tracks.get(key)) is not None and track.peak(0.5) is not None
        }

    def take_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `to_state` gave; what cannot be read is left out."""
        for text, packed in state.items():
            namespace, slash, name = str(text).partition("/")
            track = _unpacked(str(packed))
            if slash and track is not None:
                self._tracks[ModelKey(namespace, name)] = track


def _unpacked(text: str) -> _Track | None:
    parts = text.split(" ")
    track = _Track()
    if len(parts) != 1 + 3 * len(track.scales):
        return None
    try:
        track.spans = float(parts[0])
        for scale, at in zip(track.scales, range(1, len(parts), 3), strict=True):
            scale.level = float(parts[at])
            weight = packing.unpack_numbers(" ".join(parts[at + 1 : at + 3]), _BUCKETS)
            if weight is None or not (0 < scale.level < math.inf) or (weight < 0).any() or not weight.any():
                return None
            # As much as an hour of it: what is seen from now on soon outweighs it.
            scale.weight = weight / weight.sum() * 3600.0 / SPAN_SECONDS
    except ValueError:
        return None
    return track if 0 < track.spans < math.inf else None
