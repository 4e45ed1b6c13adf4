"""Rate mode tells how much of a generating model's bursts finds places, as far as request mode says the same."""

import numpy as np
import pytest

from ergon.simulate.policies.base import Fixed, Target
from ergon.simulate.run import Job, Simulation
from ergon.simulate.settings import Settings
from ergon.simulate.traces import Chunk
from tests.simulate.fleets import fleet, model, on, point, pool, workload

GENERATOR = (point(1, 50.0, 0.05, 60, 50, tokens=True), point(16, 400.0, 0.2, 70, 50, tokens=True))
SECONDS = 7200.0


def bursts(seed: int) -> Chunk:
    """Half a request a second, in one span of twenty ten times as many; 100 tokens out on average."""
    chance = np.random.default_rng(seed)
    rate = np.where(np.arange(int(SECONDS / 20)) % 20 == 0, 5.0, 0.5)
    counts = chance.poisson(rate * 20.0)
    times = np.sort(np.repeat(np.arange(len(counts)) * 20.0, counts) + chance.random(counts.sum()) * 20.0)
    ones = np.ones(len(times))
    return Chunk(times, np.zeros(len(times), int), ones, 0 * ones, chance.geometric(0.01, len(times)).astype(float))


@pytest.mark.parametrize("servers", [1, 2])
def test_both_modes_say_about_the_same_of_bursts(servers: int) -> None:
    m = model("a", *GENERATOR, slo=2.0)
    asked = workload([m], bursts(3))
    within = {}
    for mode in ("requests", "rate"):
        simulation = Simulation(Job(fleet([m], [pool()]), asked, Settings(), mode, 0, 0.0, SECONDS))  # type: ignore[arg-type]
        within[mode] = simulation.run(Fixed("fixed", Target(on("a", *range(servers))))).within_share
    assert within["requests"] < 0.999 or servers > 1  # one server has no places for a burst
    assert within["rate"] == pytest.approx(within["requests"], abs=0.1)
