"""Against queueing theory: what is simulated is what the textbooks say."""

from dataclasses import replace

import numpy as np
import pytest

from ergon.demand.peaks import Peaks
from ergon.fleet.types import ModelKey
from ergon.planning import plan
from ergon.simulate.settings import Settings
from ergon.simulate.traces import Chunk
from tests.simulate.fleets import fleet, model, on, point, poisson, pool, run, workload


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


def test_replicas_that_have_places_for_the_peak_keep_bursts_in_time_where_the_latency_rule_does_not() -> None:
    """Requests in bursts of a minute, as those for code: ten seconds of generation each, 24 places a replica."""
    generator = model("m", point(24, 480.0, 0.4, 70, 60, tokens=True), slo=1.0)
    chance = np.random.default_rng(3)
    at = np.sort(np.concatenate([start + chance.random(480) * 60.0 for start in np.arange(20.0, 7100.0, 480.0)]))
    nothing = np.zeros(len(at))
    rows = Chunk(at, nothing.astype(np.int64), np.ones(len(at)), nothing, np.full(len(at), 200.0))
    work, peaks = workload([generator], rows), Peaks()
    assert work.spans is not None
    for row, came in enumerate(work.spans.output_tokens[:, 0].tolist()):
        peaks.add(generator.key, row * 20.0, row * 20.0 + 20.0, came)
    peaks.advance(7200.0)
    mean, peak = 200.0 * len(at) / 7200.0, peaks.peak(generator.key, 95)
    assert peak is not None

    def replicas(known: dict[ModelKey, float]) -> int:
        made = replace(fleet([generator], [pool(servers=20)]), demand={generator.key: mean}, peaks=known)
        return len(plan(made).placements[generator.key])

    def late(count: int) -> float:
        counter = run([generator], work, on("m", *range(count)), end=7300.0, pools=[pool(servers=20)]).counters[0]
        return 1.0 - sum(counter.within) / int(counter.total.sum())

    assert late(replicas({generator.key: peak})) <= 0.05
    assert late(replicas({})) > 0.3


def test_a_steady_stream_may_fill_its_places_further_than_the_latency_rule_says() -> None:
    generator = model("m", point(32, 512.0, 0.4, 70, 60, tokens=True), slo=2.0)
    rows = poisson(1.1, 7200.0, 1, lambda chance, count: np.full(count, 320.0))
    known = {generator.key: 1.1 * 320.0 * 1.3}
    made = replace(fleet([generator], [pool(servers=4)]), demand={generator.key: 1.1 * 320.0})
    assert [len(plan(replace(made, peaks=peaks)).placements[generator.key]) for peaks in ({}, known)] == [2, 1]
    counter = run([generator], workload([generator], rows), on("m", 0), end=7300.0).counters[0]
    assert sum(counter.within) / int(counter.total.sum()) >= 0.95
