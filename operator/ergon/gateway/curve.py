"""What a route's quality would be at every share of escalated requests, told from labelled samples. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SHARES = tuple(round(step * 0.05, 2) for step in range(21))


@dataclass(frozen=True)
class Sampled:
    """One sample as the models answered it.

    `urgency`: how much the first answer asks for a bigger model; -inf where it does not. `escalated`: whether the answer that the
    models after it give is right.
    """

    first: bool
    escalated: bool
    urgency: float = -math.inf


def quality(samples: Sequence[Sampled], share: float) -> float:
    """Share of samples answered right when at most `share` of them escalate: those first whose answer is worth least.

    Raises ValueError where there are no samples.
    """
    if not samples:
        raise ValueError("no samples, no quality")
    ordered = sorted(samples, key=lambda sample: -sample.urgency)
    may = math.floor(share * len(samples) + 1e-9)
    right = sum(
        sample.escalated if place < may and sample.urgency > -math.inf else sample.first for place, sample in enumerate(ordered)
    )
    return right / len(samples)
