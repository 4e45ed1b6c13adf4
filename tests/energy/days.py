"""Simulated days under a limit: what is needed, what was foreseen of it, what an allowance lets through."""

import math
import random
from dataclasses import dataclass

import numpy as np

from ergon.energy.allowance import Allowance
from ergon.energy.forecast import Forecast

STEP_SECONDS = 900
STEPS = 96
LIMIT_JOULES = 86_400_000.0


@dataclass(frozen=True, slots=True)
class Day:
    """One window. Shares are of the limit; `last_tenth` of what was shed."""

    used: float
    needed: float
    protected: float
    shed: float
    last_tenth: float
    protected_shed: float
    spike_hour: int | None
    infeasible_hours_before: float | None

    @property
    def clairvoyant_shed(self) -> float:
        """What would have been shed, had all been known."""
        return max(0.0, self.needed - 1)


def simulate(
    seed: int,
    days: int = 30,
    needed: tuple[float, float] = (1.02, 1.35),
    protected: tuple[float, float] = (0.60, 0.75),
    error: float = 0.20,
    spikes: int = 2,
    spike_hours: tuple[int, int] = (0, 21),
) -> list[Day]:
    """Days with a 3:1 curve. Of the limit, protected demand needs `protected`, all demand `needed`. The forecast is off by an
    error of `error` (standard deviation) that lasts hours; `spikes` hours have three times the demand, which nobody foresaw.
    """
    chance, allowance, drift = random.Random(seed), Allowance(), 0.0
    spike = {(chance.randrange(days), chance.randint(*spike_hours)) for _ in range(spikes)}
    result = []
    for number in range(days):
        curve = 1 + 0.5 * np.cos((np.arange(STEPS) / 4 - 15 + chance.uniform(-1, 1)) / 12 * math.pi)
        curve *= LIMIT_JOULES / STEP_SECONDS / curve.sum()
        least = chance.uniform(*protected)
        most = max(least, chance.uniform(*needed))
        wrong = np.ones(STEPS)
        for hour in range(24):
            drift = 0.7 * drift + chance.gauss(0, error * math.sqrt(1 - 0.7**2))
            wrong[hour * 4 : hour * 4 + 4] = math.exp(drift)
        actual = np.ones(STEPS)
        hours = [hour for day, hour in spike if day == number]
        for hour in hours:
            actual[hour * 4 : hour * 4 + 4] = 3
        foreseen = [(curve * share * wrong).tolist() for share in (most, least)]
        result.append(_day(allowance, foreseen, curve * most * actual, curve * least * actual, hours[0] if hours else None))
    return result


def _day(allowance: Allowance, foreseen: list[list[float]], needed: np.ndarray, protected: np.ndarray, spike: int | None) -> Day:
    used, protected_shed, crossed, told = 0.0, 0.0, None, None
    shed = np.zeros(STEPS)
    for step in range(STEPS):
        left = (STEPS - step) * STEP_SECONDS
        forecast = Forecast(STEP_SECONDS, foreseen[0][step:], foreseen[1][step:])
        allowance.observe(STEP_SECONDS, needed[step], forecast)
        now = allowance.allowed(LIMIT_JOULES, used, 1.0, 86_400, left, forecast, needed[step], protected[step])
        watts = needed[step] if now.watts is None else min(needed[step], now.watts)
        told = step if told is None and not now.feasible else told
        shed[step] = (needed[step] - watts) * STEP_SECONDS
        protected_shed += max(0.0, protected[step] - watts) * STEP_SECONDS
        used += watts * STEP_SECONDS
        crossed = step if crossed is None and used > LIMIT_JOULES else crossed
    total = float(shed.sum())
    return Day(
        used=used / LIMIT_JOULES,
        needed=float(needed.sum()) * STEP_SECONDS / LIMIT_JOULES,
        protected=float(protected.sum()) * STEP_SECONDS / LIMIT_JOULES,
        shed=total / LIMIT_JOULES,
        last_tenth=float(shed[round(0.9 * STEPS) :].sum()) / total if total > 0 else 0.0,
        protected_shed=protected_shed / LIMIT_JOULES,
        spike_hour=spike,
        infeasible_hours_before=(crossed - told) / 4 if crossed is not None and told is not None else None,
    )
