"""How long an execution takes, learned: t(b) = alpha + beta b, from noisy windows, some of them wrong, and slowly changing.

Learned as a ratio to what the points declare, t(b) / t0(b) = a alpha0 / t0(b) + c beta0 b / t0(b), with (a, c) = (1, 1)
expected before anything is seen: least squares with forgetting (Ljung, System Identification, ch. 11) on that prior. So one
declared point is enough to start from, and what is learned at small batches moves the large ones in proportion where nothing
tells more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ergon.fleet.types import OperatingPoint

MEMORY_SAMPLES = 120.0
"""Samples after which a sample counts for 1/e: ten minutes of windows of 5 s."""

_COMMON_SPREAD, _OWN_SPREAD = 1.0, 0.5
"""Before anything is seen: how far both parts may be off together, and each on its own, as shares of what is declared."""

_CAUCHY = 2.385
"""Residuals this many standard deviations out count half (Holland and Welsch 1977; 95 % as good on normal noise).
Huber's weights never let go of an outlier, these nearly do."""

_LEAST_SPREAD = 0.02
"""Nothing measured from outside is more even than that."""

_SAMPLE_SPREAD = 0.3
"""Samples are weighed as if they were that uneven, all of them: by their own spread, a quiet past would outweigh a change."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the declared points say of an execution: `alpha_seconds` + `beta_seconds` x batch, batch in requests."""

    alpha_seconds: float
    beta_seconds: float

    def seconds(self, batch: float) -> float:
        """Of one execution."""
        return self.alpha_seconds + self.beta_seconds * batch


def declared_shape(points: Sequence[OperatingPoint], instances: int) -> Shape | None:
    """The line through the points' service times, instances x batch / rate each; None without a point.

    One point, or points that are no line upwards: half of the time is taken as fixed at the largest of them.
    """
    times = sorted((float(p.batch), max(1, instances) * p.batch / p.work_per_second) for p in points if p.work_per_second > 0)
    if not times:
        return None
    mean_b, mean_t = sum(b for b, _ in times) / len(times), sum(t for _, t in times) / len(times)
    spread = sum((b - mean_b) ** 2 for b, _ in times)
    beta = sum((b - mean_b) * (t - mean_t) for b, t in times) / spread if spread > 0 else 0.0
    alpha = mean_t - beta * mean_b
    if beta <= 0 or alpha <= 0:
        batch, seconds = times[-1]
        return Shape(seconds / 2, seconds / 2 / batch)
    return Shape(alpha, beta)


class Fit:
    """The learned ratio to a shape. Changes only by `learn`; ten numbers, whatever was seen."""

    __slots__ = ("aa", "ac", "ay", "cc", "cy", "spread", "weight")

    def __init__(self, state: Sequence[float] = ()) -> None:
        """`state` is what `state()` gave."""
        self.aa, self.ac, self.cc, self.ay, self.cy, self.spread, self.weight = state or (0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.0)

    def state(self) -> list[float]:
        """Seven numbers from which `Fit` goes on, to six digits."""
        return [float(f"{v:.6g}") for v in (self.aa, self.ac, self.cc, self.ay, self.cy, self.spread, self.weight)]

    def learn(self, shape: Shape, batch: float, seconds: float, executions: int) -> None:
        """One more sample: `executions` of one batch took `seconds` each, on average."""
        expected = shape.seconds(batch)
        a, c = shape.alpha_seconds / expected, shape.beta_seconds * batch / expected
        y = seconds / expected
        residual = abs(y - self._ratio(a, c))
        deviation = max(1.4826 * self.spread, _LEAST_SPREAD)
        trust = executions / (executions + 4.0) / (1 + (residual / (_CAUCHY * deviation)) ** 2)
        # The spread is the median of the residuals, so that a fifth of wild ones does not move it and a lasting change does.
        self.spread = min(10.0, max(_LEAST_SPREAD / 2, self.spread * (1.05 if residual > self.spread else 1 / 1.05)))
        keep = 1 - 1 / MEMORY_SAMPLES
        w = trust / _SAMPLE_SPREAD**2
        self.aa, self.ac, self.cc = self.aa * keep + w * a * a, self.ac * keep + w * a * c, self.cc * keep + w * c * c
        self.ay, self.cy = self.ay * keep + w * a * (y - 1), self.cy * keep + w * c * (y - 1)
        self.weight = self.weight * keep + trust

    def ratio(self, shape: Shape, batch: float) -> float:
        """The learned over the declared service time at a batch."""
        expected = shape.seconds(batch)
        return max(1e-3, self._ratio(shape.alpha_seconds / expected, shape.beta_seconds * batch / expected))

    def confidence(self, shape: Shape, batch: float) -> float:
        """How much of the doubt there was about a batch is gone, 0 to 1; far from what was seen less of it."""
        expected = shape.seconds(batch)
        a, c = shape.alpha_seconds / expected, shape.beta_seconds * batch / expected
        paa, pac, pcc = _PRECISION
        before = _variance(paa, pac, pcc, a, c)
        even = (_SAMPLE_SPREAD / max(1.4826 * self.spread, 0.05)) ** 2
        after = _variance(paa + even * self.aa, pac + even * self.ac, pcc + even * self.cc, a, c)
        return max(0.0, 1 - math.sqrt(after / before))

    def _ratio(self, a: float, c: float) -> float:
        paa, pac, pcc = _PRECISION
        aa, ac, cc = paa + self.aa, pac + self.ac, pcc + self.cc
        determinant = aa * cc - ac * ac
        fixed = (cc * self.ay - ac * self.cy) / determinant
        per_request = (aa * self.cy - ac * self.ay) / determinant
        return a * max(0.0, 1 + fixed) + c * max(0.0, 1 + per_request)


def _precision(common: float, own: float) -> tuple[float, float, float]:
    u, v = common**2, own**2
    determinant = v * (2 * u + v)
    return (u + v) / determinant, -u / determinant, (u + v) / determinant


_PRECISION = _precision(_COMMON_SPREAD, _OWN_SPREAD)
"""The inverse of the prior's covariance [[u + v, u], [u, u + v]], u the common and v the own variance."""


def _variance(aa: float, ac: float, cc: float, a: float, c: float) -> float:
    return (cc * a * a - 2 * ac * a * c + aa * c * c) / (aa * cc - ac * ac)
