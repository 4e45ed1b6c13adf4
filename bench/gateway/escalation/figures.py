"""What answers and costs amount to: quality over CPU seconds by threshold, and how sure that is. Pure."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RESAMPLES = 2000


@dataclass(frozen=True)
class Told:
    """One string as both models answered it: whether right, and how sure the small one was."""

    small: bool
    general: bool
    score: float


@dataclass(frozen=True)
class Costs:
    """CPU seconds a request, each with Triton's part: of the models alone, of both as the route asks them, of the gateway.

    As escalations the general model gets fewer requests at once than alone, so that Triton makes smaller batches of them.
    """

    small_alone: float
    general_alone: float
    small: float
    escalation: float
    gateway: float
    further: float
    """Of the gateway, for each escalation."""

    def route(self, escalated: float) -> float:
        """A request to the route when that share escalates: both models, and the gateway."""
        return self.small + self.gateway + escalated * (self.escalation + self.further)


@dataclass(frozen=True)
class Point:
    """One threshold: share that escalates, and share answered right."""

    threshold: float
    escalated: float
    quality: float


def at(told: Sequence[Told], threshold: float) -> Point:
    """What a threshold does to these strings."""
    unsure = [one.score < threshold for one in told]
    right = sum(one.general if asks else one.small for one, asks in zip(told, unsure, strict=True))
    return Point(threshold, sum(unsure) / len(told), right / len(told))


def curve(told: Sequence[Told]) -> list[Point]:
    """All thresholds that differ, from none escalated to all."""
    return [at(told, threshold) for threshold in [0.0, *sorted({one.score for one in told}), 1.01]]


def small(told: Sequence[Told]) -> float:
    """Quality of the small model alone."""
    return sum(one.small for one in told) / len(told)


def general(told: Sequence[Told]) -> float:
    """Quality of the general model alone."""
    return sum(one.general for one in told) / len(told)


def by_chance(told: Sequence[Told], share: float) -> float:
    """Expected quality when that share escalates at random."""
    return small(told) + share * (general(told) - small(told))


def by_oracle(told: Sequence[Told], share: float) -> float:
    """Quality when only those escalate that the general model alone has right, up to that share."""
    gained = sum(one.general and not one.small for one in told) / len(told)
    return small(told) + min(share, gained)


def within_share(told: Sequence[Told], share: float) -> float:
    """The largest threshold at which at most that share escalates."""
    return max(point.threshold for point in curve(told) if point.escalated <= share)


def good_enough(told: Sequence[Told], share: float, missing: float) -> float:
    """The smallest threshold that comes within so much of the general model's quality; else the largest within the share."""
    wanted = general(told) - missing
    found = [point.threshold for point in curve(told) if point.escalated <= share and point.quality >= wanted]
    return min(found) if found else within_share(told, share)


def interval(told: Sequence[Told], figure: Callable[[Sequence[Told]], float], seed: int) -> tuple[float, float]:
    """95 % of what the figure would be on other strings like these (bootstrap)."""
    chance = random.Random(seed)
    found = sorted(figure(chance.choices(told, k=len(told))) for _ in range(RESAMPLES))
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES) - 1]
