"""The watt guard: lowers what planning may use where measured power stays above a limit, and gives it back slowly.

Planning holds 0.95 of the limit by its own figures. The guard makes up for what those figures miss; it sheds nothing itself.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

PLANNED_SHARE = 0.95
"""Of a limit, what plans use (planning.md, rule 7)."""

GIVE_BACK_SHARE = 0.90
"""Of the limit: below this for five minutes, what was taken is given back."""

SHORT_SECONDS, LIMIT_SECONDS, LONG_SECONDS = 10.0, 60.0, 300.0
"""Means of power: the guard acts on the first, a limit is met by the second, and what was taken comes back by the third."""

ACT_AFTER = 2
"""Short means above the limit, one after the other."""

SETTLE_SECONDS = 60.0
"""Before the guard acts again: a plan and its shedding take until then to show (measured: unload 1 to 10 s, plan 1 s)."""

STEP_SECONDS = 120.0
"""Between two steps back, at least."""

MOST_STEP_SECONDS = 3600.0
"""Between two steps back, at most: each that had to be taken back makes the wait longer, so noise cannot make the fleet swing."""

REGRETTED = 4.0
"""So many times longer."""

REGRET_SECONDS = 1200.0
"""A step back that is taken again within this was one too many."""

LEAST_STEP_BACK, SMALL_STEP_BACK, LARGEST_STEP_BACK = 1.04, 1.1, 1.25
"""A step back is so much at least, else it waits, and at most; after a small one the guard looks for ten minutes."""

STEPS_AN_HOUR = 2
"""After so many steps within an hour no small one back is made: the fleet would swing for a few watts."""

LOOKED_SECONDS = 600.0
"""After a step down, or a small one back, before the next one back: what noise there is shows by then."""

FURTHER_SHARE = 0.92
"""Of the limit, where a step down goes that follows another within 20 min: the first was too small for this noise."""

PEAK_SHARE = 0.97
"""Of the limit: peaks as high above their mean as the last hour's would come to this; more would be taken again at once."""


class Step(StrEnum):
    """What the guard just did."""

    NONE = "None"
    TIGHTEN = "Tighten"
    GIVE_BACK = "GiveBack"


@dataclass(frozen=True, slots=True)
class Means:
    """Mean watts over the last 10 s, 60 s and 5 min; over less where less is known."""

    short_watts: float
    limit_watts: float
    long_watts: float


class GuardState(BaseModel):
    """The share of the limit that planning is left, and seconds to wait before more is given back."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    share: float = 1.0
    wait: float = 0.0
    step: float = STEP_SECONDS


class WattGuard:
    """Watches one limit. Times are intervals; no clock is read."""

    def __init__(self) -> None:
        self.share = 1.0
        self._samples: deque[tuple[float, float]] = deque()
        self._ratios: deque[float] = deque(maxlen=60)
        self._minute_seconds, self._minute_ratio = 0.0, 1.0
        self._steady_seconds = 0.0
        self._kept_seconds = 0.0
        self._steps: deque[float] = deque(maxlen=16)
        self._short: tuple[float, float] = (0.0, 0.0)
        self._over = 0
        self._settle_seconds = 0.0
        self._wait_seconds = 0.0
        self._step_seconds = STEP_SECONDS
        self._given_back_ago = self._tightened_ago = float("inf")
        self.means = Means(0.0, 0.0, 0.0)

    def observe(
        self, seconds: float, watts: float, limit_watts: float, planned_watts: float | None = None, least_watts: float = 0.0
    ) -> Step:
        """So many seconds at so many watts. `planned_watts`: what the plan in force takes of the limit by its own figures;
        `least_watts`: what protected demand takes of it, below which there is nothing to gain.
        """
        if seconds <= 0:
            return Step.NONE
        self.measure(seconds, watts)
        self._settle_seconds = max(0.0, self._settle_seconds - seconds)
        self._wait_seconds = max(0.0, self._wait_seconds - seconds)
        self._given_back_ago += seconds
        self._tightened_ago += seconds
        self._steady_seconds += seconds
        self._steps = deque((ago + seconds for ago in self._steps if ago + seconds < 3600), maxlen=16)
        self._learn_ratio(seconds)
        self._count_short(seconds, watts, limit_watts)
        if self._over >= ACT_AFTER and self._settle_seconds == 0:
            return self._tighten(limit_watts, planned_watts, least_watts)
        if (
            self.share < 1
            and self._wait_seconds == 0
            and self._kept_seconds >= LONG_SECONDS
            and self.means.long_watts < GIVE_BACK_SHARE * limit_watts
        ):
            return self._give_back(limit_watts)
        return Step.NONE

    def measure(self, seconds: float, watts: float) -> None:
        """So many seconds at so many watts, without acting on it."""
        if seconds <= 0:
            return
        self._samples.append((seconds, watts))
        self._kept_seconds += seconds
        while self._samples and self._kept_seconds - self._samples[0][0] >= LONG_SECONDS:
            self._kept_seconds -= self._samples.popleft()[0]
        self.means = Means(*(self._mean(span) for span in (SHORT_SECONDS, LIMIT_SECONDS, LONG_SECONDS)))

    def holds(self, limit_watts: float) -> bool:
        """Whether the limit is met: the 60 s mean is at or under it."""
        return self.means.limit_watts <= limit_watts

    def to_state(self) -> GuardState:
        """What another process needs to go on."""
        return GuardState(share=self.share, wait=self._wait_seconds, step=self._step_seconds)

    @classmethod
    def from_state(cls, state: GuardState) -> "WattGuard":
        """The guard as it was; power is measured anew."""
        guard = cls()
        guard.share = min(1.0, max(0.0, state.share))
        guard._wait_seconds = min(MOST_STEP_SECONDS, max(0.0, state.wait))
        guard._step_seconds = min(MOST_STEP_SECONDS, max(STEP_SECONDS, state.step))
        return guard

    def _tighten(self, limit_watts: float, planned_watts: float | None, least_watts: float) -> Step:
        """One step: as far as the last seconds lie above 0.95 of the limit, from what the plan really uses."""
        self._over, self._settle_seconds = 0, SETTLE_SECONDS
        planned = PLANNED_SHARE * limit_watts
        bound = self.share if planned_watts is None else min(self.share, planned_watts / planned)
        aim = (FURTHER_SHARE if self._tightened_ago < REGRET_SECONDS else PLANNED_SHARE) * limit_watts
        share = max(bound * min(1.0, aim / self._mean(ACT_AFTER * SHORT_SECONDS)), min(1.0, least_watts / planned))
        self._wait_seconds = max(LOOKED_SECONDS, self._step_seconds)
        if share >= self.share:
            return Step.NONE
        self.share, self._steady_seconds = share, 0.0
        self._steps.append(0.0)
        if self._given_back_ago < REGRET_SECONDS:
            self._step_seconds = min(MOST_STEP_SECONDS, max(LONG_SECONDS, REGRETTED * self._step_seconds))
            self._wait_seconds = max(LOOKED_SECONDS, self._step_seconds)
        self._tightened_ago = 0.0
        return Step.TIGHTEN

    def _give_back(self, limit_watts: float) -> Step:
        """One step: so much more that power would come to 0.95 of the limit, a quarter at most."""
        mean = max(self.means.long_watts, limit_watts / 1e3)
        more = min(LARGEST_STEP_BACK, PLANNED_SHARE * limit_watts / mean, PEAK_SHARE * limit_watts / (mean * self._peak_ratio()))
        if more < LEAST_STEP_BACK or (more < SMALL_STEP_BACK and len(self._steps) >= STEPS_AN_HOUR):
            return Step.NONE
        self.share = min(1.0, self.share * more)
        if self._given_back_ago > 2 * MOST_STEP_SECONDS:
            self._step_seconds = STEP_SECONDS
        self._wait_seconds = self._step_seconds if more >= SMALL_STEP_BACK else max(LOOKED_SECONDS, self._step_seconds)
        self._given_back_ago = self._steady_seconds = 0.0
        self._steps.append(0.0)
        return Step.GIVE_BACK

    def _peak_ratio(self) -> float:
        """How far the mean of 20 s rose above that of the minutes around it, at most in the last hour."""
        return max([1.0, *self._ratios])

    def _learn_ratio(self, seconds: float) -> None:
        steady_seconds = min(LONG_SECONDS, self._steady_seconds - SETTLE_SECONDS)
        self._minute_seconds += seconds
        if steady_seconds >= LIMIT_SECONDS and self.means.long_watts > 0:
            base = self._mean(steady_seconds)
            self._minute_ratio = max(self._minute_ratio, self._mean(ACT_AFTER * SHORT_SECONDS) / base if base > 0 else 1.0)
        if self._minute_seconds >= LIMIT_SECONDS:
            self._ratios.append(self._minute_ratio)
            self._minute_seconds, self._minute_ratio = 0.0, 1.0

    def _mean(self, span_seconds: float) -> float:
        joules = covered = 0.0
        for seconds, watts in reversed(self._samples):
            part = min(seconds, span_seconds - covered)
            joules += part * watts
            covered += part
            if covered >= span_seconds:
                break
        return joules / covered if covered > 0 else 0.0

    def _count_short(self, seconds: float, watts: float, limit_watts: float) -> None:
        """Means of 10 s that follow each other without overlap."""
        covered, joules = self._short[0] + seconds, self._short[1] + seconds * watts
        if covered >= SHORT_SECONDS:
            self._over = self._over + 1 if joules / covered > limit_watts else 0
            covered, joules = 0.0, 0.0
        self._short = (covered, joules)
