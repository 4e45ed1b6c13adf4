"""`hpa` and `general-hpa`: HorizontalPodAutoscaler's rule on a model's own pods.

autoscaling/v2 defaults where it has them: a sync every 15 s, tolerance 0.1, up by the larger of 100 % and 4 pods in 15 s, down to
the highest recommendation of the last 300 s. The metric is work per second and pod, a mean over 30 s; the target 0.7 of what a
pod can do, less where the latency rule allows less. That is more than utilisation would tell it: a full pod shows no more than 1.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from ergon.fleet.types import Fleet, Model
from ergon.planning.arrays import Floats
from ergon.simulate.policies.base import Observed, Target
from ergon.simulate.policies.homes import Home, Slots

SYNC_SECONDS = 15.0
TOLERANCE = 0.1
TARGET_SHARE = 0.7
UP_PERCENT, UP_PODS = 100, 4
DOWN_WINDOW_SECONDS = 300.0
METRIC_SYNCS = 2


def target_work_per_second(home: Home) -> float:
    """Of one pod: 0.7 of its rate, or what the latency rule leaves."""
    return home.place.work_per_second * min(TARGET_SHARE, home.place.busy_share_limit) / home.slots


def desired_pods(current: int, work_per_second: float, target: float, most_up: int) -> int:
    """HPA's rule for one sync: ceil(current x metric / target), inside the tolerance as it is, upward `most_up` at most."""
    ratio = work_per_second / (current * target)
    if abs(ratio - 1.0) <= TOLERANCE:
        return current
    return max(1, min(math.ceil(current * ratio - 1e-9), most_up))


def most_pods(before: int) -> int:
    """The most pods that one period allows, from those at its begin."""
    return max(before + before * UP_PERCENT // 100, before + UP_PODS)


@dataclass(slots=True)
class Scaler:
    """One HorizontalPodAutoscaler."""

    home: Home
    pods: int
    said: deque[tuple[float, int]] = field(default_factory=deque)
    seen: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=METRIC_SYNCS))

    def sync(self, now: float, seconds: float, work: float) -> int:
        """Pods from now on."""
        self.seen.append((seconds, work))
        rate = sum(part for _, part in self.seen) / max(sum(part for part, _ in self.seen), 1e-9)
        wanted = desired_pods(self.pods, rate, target_work_per_second(self.home), most_pods(self.pods))
        self.said.append((now, wanted))
        while self.said[0][0] <= now - DOWN_WINDOW_SECONDS:
            self.said.popleft()
        if wanted < self.pods:
            wanted = min(self.pods, max(pods for _, pods in self.said))
        self.pods = wanted
        return wanted


class Hpa:
    """Each model of `homes` on pods of its own, scaled by its own autoscaler."""

    alone = True
    interval_seconds = SYNC_SECONDS
    planned_watts: float | None = None

    def __init__(self, name: str, fleet: Fleet, models: tuple[Model, ...], homes: dict[int, Home], first: Floats) -> None:
        self.name = name
        self._models = models
        self._slots = Slots(fleet)
        self._scalers = {
            m: Scaler(home, max(1, math.ceil(float(first[m]) / target_work_per_second(home) - 1e-9))) for m, home in homes.items()
        }

    def start(self, now_seconds: float) -> Target:
        """Pods for the first minute."""
        for scaler in self._scalers.values():
            scaler.pods = max(1, self._slots.resize(scaler.home, scaler.pods))
        return self._slots.target()

    def decide(self, observed: Observed) -> Target | None:
        """One sync."""
        changed = False
        for m, scaler in self._scalers.items():
            before = scaler.pods
            wanted = scaler.sync(observed.now_seconds, observed.interval_seconds, float(observed.work[m]))
            scaler.pods = max(1, self._slots.resize(scaler.home, wanted))
            changed |= scaler.pods != before
        return self._slots.target() if changed else None
