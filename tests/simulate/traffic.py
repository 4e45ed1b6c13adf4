"""Traffic by seed."""

from collections.abc import Sequence

import numpy as np

from ergon.fleet.types import Model
from ergon.simulate.traces import Chunk, join
from ergon.simulate.workload import Workload
from tests.simulate.fleets import workload


def day(models: Sequence[Model], rates: Sequence[float], seconds: float, *, seed: int, swing: float = 1.0) -> Workload:
    """Poisson arrivals of each model, 100 tokens out on average, that rise to `swing` times the least in the middle."""
    chance = np.random.default_rng(seed)
    parts = []
    for number, rate in enumerate(rates):
        count = int(chance.poisson(rate * seconds))
        times = np.sort(chance.random(count)) * seconds
        keep = chance.random(count) < (1 + (swing - 1) * (0.5 - 0.5 * np.cos(2 * np.pi * times / seconds))) / swing
        times = times[keep]
        ones = np.ones(len(times))
        parts.append(
            Chunk(times, np.full(len(times), number), ones, 500 * ones, chance.geometric(0.01, len(times)).astype(float))
        )
    return workload(models, join(parts))
