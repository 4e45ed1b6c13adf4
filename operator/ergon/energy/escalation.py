"""How much of a route may escalate while an energy budget gives way: less, step by step, as far as its samples allow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

STEP = 0.05
"""Of all requests, by which the rate is lowered or raised at once: as finely as the gateways estimate quality."""
STEP_SECONDS = 60.0
"""Between two steps: a budget's watts are a mean of 60 s, so that each step shows in it before the next."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The share that may escalate. `lowered_by`: the budget for whose sake it is below maxRate; empty: none.

    `message`: one sentence, also where a budget gives way and the rate cannot follow.
    """

    rate: float
    lowered_by: str = ""
    message: str = ""


def quality_at(samples: Mapping[float, float], rate: float) -> float | None:
    """The quality of a route when so much escalates: between the sampled rates on a line; None outside of them."""
    below = max((known for known in samples if known <= rate + 1e-9), default=None)
    above = min((known for known in samples if known >= rate - 1e-9), default=None)
    if below is None or above is None:
        return None
    if above <= below:
        return samples[below]
    return samples[below] + (samples[above] - samples[below]) * (rate - below) / (above - below)


def allowed_rate(
    before: Allowed,
    max_rate: float,
    wished_rate: float | None,
    giving_way: str,
    samples: Mapping[float, float],
    min_quality: float,
    *,
    full: str = "",
) -> Allowed:
    """One step. `giving_way`: a budget over the route's models that gives way now; empty: none does, and the rate comes back.

    `full`: a budget that what a step more takes does not fit into: then the rate stays, or it would go down and up for ever.

    Lowered only where samples say that quality stays at or above `min_quality`: without samples nobody knows what a lower rate
    costs, and the rate stays. A first step begins at what escalates anyway (`wished_rate`), since the rest of the allowance is
    used by nobody.
    """
    rate = min(before.rate, max_rate)
    if giving_way:
        return _lowered(rate, max_rate, wished_rate, giving_way, samples, min_quality)
    if not before.lowered_by:
        return Allowed(max_rate)
    raised = _rounded(rate + STEP)
    if full:
        return Allowed(rate, full, f"{rate:.0%} may escalate, of {max_rate:.0%}: 5 points more would not fit into budget {full}")
    if raised >= max_rate or (wished_rate is not None and raised >= wished_rate):
        return Allowed(max_rate)
    message = f"{raised:.0%} may escalate, 5 points more each minute up to {max_rate:.0%}: budget {before.lowered_by} gave way"
    return Allowed(raised, before.lowered_by, message)


def _lowered(
    rate: float,
    max_rate: float,
    wished_rate: float | None,
    budget: str,
    samples: Mapping[float, float],
    min_quality: float,
) -> Allowed:
    used = rate if wished_rate is None else min(rate, math.ceil(wished_rate / STEP - 1e-9) * STEP)
    lower = _rounded(max(0.0, used - STEP))
    quality = quality_at(samples, lower)
    if quality is None:
        held = rate < max_rate
        why = f"budget {budget} gives way; without samples of quality {rate:.0%} may escalate as before"
        return Allowed(rate, budget if held else "", why)
    if quality < min_quality or lower >= rate:
        now = quality_at(samples, rate)
        known = f" at quality {now:.3g}" if now is not None else ""
        why = f"budget {budget} gives way: {rate:.0%} may escalate{known}; at {lower:.0%} it would be {quality:.3g}"
        return Allowed(
            rate, budget if rate < max_rate else "", f"{why}, below minQuality {min_quality:g}" if lower < rate else why
        )
    why = f"budget {budget} gives way: {lower:.0%} may escalate, of {max_rate:.0%}; quality {quality:.3g} of {min_quality:g}"
    return Allowed(lower, budget, why)


def _rounded(rate: float) -> float:
    return round(min(1.0, rate), 4)
