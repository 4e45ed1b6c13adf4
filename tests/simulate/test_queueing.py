"""Against queueing theory: what is simulated is what the textbooks say."""

import numpy as np
import pytest

from ergon.simulate.settings import Settings
from tests.simulate.fleets import model, on, point, poisson, run, workload


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_single_requests_wait_as_in_an_m_d_1_queue(busy: float) -> None:
    seconds = 0.01
    m = model("a", point(1, 1 / seconds, seconds))
    ran = run([m], workload([m], poisson(busy / seconds, 600, 1)), on("a", 0), end=600)
    assert ran.mean_latency() == pytest.approx(seconds * (1 + busy / (2 * (1 - busy))), rel=0.05)


@pytest.mark.parametrize("busy", [0.4, 0.7])
def test_generations_one_at_a_time_wait_as_in_an_m_m_1_queue(busy: float) -> None:
    m = model("a", point(1, 100.0, 0.05, tokens=True))
    asked = poisson(busy, 20000, 2, lambda chance, count: chance.exponential(100.0, count))
    ran = run([m], workload([m], asked), on("a", 0), end=20000)
    waits = [0.0]
    for gap, tokens in zip(np.diff(asked.seconds), asked.output_tokens, strict=False):
        waits.append(max(0.0, waits[-1] + tokens / 100.0 - gap))  # Lindley: the same arrivals, exactly
    assert ran.mean_latency() == pytest.approx(0.05 + np.mean(waits), rel=0.005)
    assert np.mean(waits) == pytest.approx(busy / (1 - busy), rel=0.1)


@pytest.mark.parametrize("busy", [0.3, 0.7])
def test_generations_that_share_a_constant_rate_keep_the_server_awake_for_their_work(busy: float) -> None:
    m = model("a", point(1, 100.0, 0.05, 60, 40, tokens=True), point(64, 100.0, 0.05, 60, 40, tokens=True))
    asked = poisson(busy, 5000, 3, lambda chance, count: chance.exponential(100.0, count))
    ran = run([m], workload([m], asked), on("a", 0), end=5100)
    assert ran.run.used is not None
    assert ran.run.used.accounts.awake == pytest.approx((40 - 10) * asked.output_tokens.sum() / 100.0)


def test_two_servers_share_what_comes_better_than_by_choosing_blindly() -> None:
    """Chosen blindly they were two M/D/1 queues of half the rate each. In turn, with equal times, they are an M/D/2."""
    seconds, busy = 0.01, 0.8
    m = model("a", point(1, 1 / seconds, seconds))
    asked = workload([m], poisson(2 * busy / seconds, 500, 4))
    least = run([m], asked, on("a", 0, 1), end=500)
    turns = run([m], asked, on("a", 0, 1), end=500, settings=Settings(balance="round-robin"))
    blind = seconds * (1 + busy / (2 * (1 - busy)))
    assert max(least.mean_latency(), turns.mean_latency()) < 0.75 * blind
    shares = [sum(r.busy_seconds for r in mine.values()) for mine in turns.run.world.replicas]
    assert np.isclose(sum(shares), 2 * busy * 500, rtol=0.03)
