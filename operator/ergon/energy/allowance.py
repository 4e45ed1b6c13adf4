"""How many watts a limit over a window (kilowatt-hours, grams) leaves now, so that it is neither crossed nor left unused.

The allowance follows the forecast's shape: what may give way is cut by one share at all times of the window, so that its last
hours pay no more than the others. Every observation sets the share anew. What is protected is never cut.
"""

import math
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from ergon.energy.forecast import Floats, Forecast

RESERVE_SHARE = 0.02
"""Of the limit, kept for protected demand that no forecast saw."""

RELEASED_SHARE = 0.2
"""Of the window, its end, in which the reserve is used up: so those hours give way less, not more."""

KEPT_TO_THE_END = 0.003
"""Of the limit: what a plan's minute and a meter's lag may still use after the last cut."""

DOUBT_SHARE = 0.25
"""By so much a forecast of a whole window may be too high: cutting for it would leave the limit unused. Doubt fades as the window
goes by, since what was seen corrects what is to come."""

DOUBT_GONE = 0.8
"""Of the window: from here on the corrected forecast is taken at its word."""

CORRECTION_SECONDS = 2 * 3600.0
"""Of what was needed against what was foreseen, over about this long, comes the correction of the rest."""

LARGEST_CORRECTION = 1.35
"""One observation counts for no more than this: an hour at three times the forecast says little about the rest of the day."""

INFEASIBLE_ABOVE, FEASIBLE_BELOW = 1.0, 0.97
"""Protected demand's end of the window over the limit: between these, what was said stands."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be used now. `watts`: None where nothing has to give way. `needed` and `protected`: of the window when it ends,
    in the limit's unit, if nothing or all that may gives way. `crossed_in_seconds`: until protected demand alone crosses it.
    """

    watts: float | None
    needed: float
    protected: float
    feasible: bool
    crossed_in_seconds: float | None


class AllowanceState(BaseModel):
    """What was learned of the forecast, and what was said of feasibility."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    log_correction: float = 0.0
    feasible: bool = True


class Allowance:
    """One limit over windows. Amounts are in any one unit; `per_joule` says how many of it a joule is now."""

    def __init__(self) -> None:
        self._log_correction = 0.0
        self._feasible = True

    def observe(self, seconds: float, needed_watts: float, forecast: Forecast) -> None:
        """So much is needed now (asked for, whether served or not); the forecast said something else."""
        foreseen = forecast.needed_watts[0] if forecast.needed_watts else 0.0
        if foreseen <= 0 or needed_watts <= 0 or seconds <= 0:
            return
        bound = math.log(LARGEST_CORRECTION)
        seen = max(-bound, min(bound, math.log(needed_watts / foreseen)))
        self._log_correction += (1 - math.exp(-seconds / CORRECTION_SECONDS)) * (seen - self._log_correction)

    def allowed(
        self,
        limit: float,
        used: float,
        per_joule: float,
        window_seconds: float,
        left_seconds: float,
        forecast: Forecast,
        needed_watts: float,
        protected_watts: float,
    ) -> Allowed:
        """The watts allowed now, with so much of the limit used and so many seconds of the window left."""
        correction = math.exp(self._log_correction)
        needed, protected, lengths = forecast.over(left_seconds)
        needed_left = float(needed @ lengths) * correction * per_joule
        protected_left = float(protected @ lengths) * correction * per_joule
        crossed = _crossed_in(limit - used, protected * correction * per_joule, lengths)
        self._judge((used + protected_left) / limit)
        gone = 1 - left_seconds / window_seconds
        doubt = DOUBT_SHARE * max(0.0, 1 - gone / DOUBT_GONE)
        left = limit * (1 - _reserve(gone)) - used
        share = _share_served(left, needed_left * (1 - doubt), protected_left * (1 - doubt))
        watts = None
        if share < 1:
            watts = protected_watts + share * max(0.0, needed_watts - protected_watts)
        return Allowed(watts, used + needed_left, used + protected_left, self._feasible, crossed)

    def to_state(self) -> AllowanceState:
        """What another process needs to go on."""
        return AllowanceState(log_correction=self._log_correction, feasible=self._feasible)

    @classmethod
    def from_state(cls, state: AllowanceState) -> "Allowance":
        """The allowance as it was."""
        allowance = cls()
        bound = math.log(LARGEST_CORRECTION)
        allowance._log_correction, allowance._feasible = max(-bound, min(bound, state.log_correction)), state.feasible
        return allowance

    def _judge(self, protected_share: float) -> None:
        if protected_share > INFEASIBLE_ABOVE:
            self._feasible = False
        elif protected_share < FEASIBLE_BELOW:
            self._feasible = True


def _reserve(gone: float) -> float:
    """Of the limit, what is kept back when so much of the window is gone."""
    return KEPT_TO_THE_END + RESERVE_SHARE * min(1.0, (1 - gone) / RELEASED_SHARE)


def _share_served(left: float, needed: float, protected: float) -> float:
    """Of what may give way, the share that is still served."""
    if needed <= left:
        return 1.0
    return max(0.0, (left - protected) / (needed - protected)) if needed > protected else 0.0


def _crossed_in(left: float, rates: Floats, lengths: Floats) -> float | None:
    """Seconds until so much is used at these rates; None where it is not, within them."""
    if left <= 0:
        return 0.0
    used = np.cumsum(rates * lengths)
    step = int(np.searchsorted(used, left, side="right"))
    if step >= len(used):
        return None
    before = float(used[step - 1]) if step else 0.0
    return float(lengths[:step].sum()) + (left - before) / float(rates[step])
