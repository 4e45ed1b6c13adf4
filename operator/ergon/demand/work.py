"""Demand in the planner's unit of work, from windows that hold requests and busy seconds but no tokens.

**Ordinary models** (points in requests/s): work = arrivals x size. The size is 1 for the requests that the points, as corrected
today, speak of; it is 2 where a request keeps the server busy twice as long. It is what the points do not say yet: what the
learned service time says beyond the correction in force, times what the last minute says beyond the learned service time at the
same batch. So work over a corrected point's rate is the busy share that is seen, at once, while the points follow at their own
pace and the size returns to 1.

**Generative models** (points in tokens/s): Triton counts no tokens, so work = busy seconds x the point's rate at the achieved
batch. A shift to long answers shows as busy seconds, and is work. Their points are not learned: without tokens, a slower server
and more tokens look the same, and both take more servers.
"""

from collections.abc import Sequence

from ergon.demand.counters import Window
from ergon.fleet.types import OperatingPoint

LEAST_SIZE, LARGEST_SIZE = 0.25, 16.0


def counts_tokens(points: Sequence[OperatingPoint]) -> bool:
    """Whether the points count work in tokens."""
    return any(point.counts_tokens for point in points)


def rate_at(points: Sequence[OperatingPoint], batch: float) -> float:
    """Work per second at a batch: linear between points, in proportion below the first, constant beyond the last; 0 without.

    Below the first point in proportion, because generation at a small batch waits for memory, not for arithmetic.
    """
    rates = sorted({point.batch: point.work_per_second for point in points}.items())
    below = (0.0, 0.0)
    for here in rates:
        if batch <= here[0]:
            return below[1] + (here[1] - below[1]) * (batch - below[0]) / (here[0] - below[0])
        below = (float(here[0]), here[1])
    return below[1]


def request_work(window: Window, size: float) -> float:
    """The work that came in a window to an ordinary model, in requests of size 1."""
    return window.arrivals * min(LARGEST_SIZE, max(LEAST_SIZE, size))


def token_work(window: Window, points: Sequence[OperatingPoint], instances: int, pending_batch: float = 1.0) -> float:
    """The work done in a window by a generative model, in weighted tokens, and that of the requests by which the line grew.

    `pending_batch` is the batch where the window itself tells none.
    """
    batch = window.achieved_batch or pending_batch
    done = window.busy_seconds / max(1, instances) * rate_at(points, batch)
    each = done / window.completed if window.completed else 0.0
    return max(0.0, done + each * window.pending_growth)
