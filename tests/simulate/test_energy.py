"""Joules add up, and everything that is on draws."""

import numpy as np
import pytest

from ergon.simulate.run import Job, Simulation
from ergon.simulate.sampling import pool_joules, wall_joules
from ergon.simulate.settings import Settings
from tests.simulate.fleets import GIB, Scripted, fleet, model, on, point, pool, run, workload
from tests.simulate.traffic import day

ENCODER = (point(1, 80.0, 0.0125, 40), point(8, 400.0, 0.02, 60))
GENERATOR = (point(1, 50.0, 0.05, 60, 50, tokens=True), point(16, 400.0, 0.2, 70, 50, tokens=True))


def test_accounts_add_up_to_the_pools_and_models_to_the_execution() -> None:
    models = [model("a", *ENCODER), model("b", *GENERATOR), model("c", *GENERATOR)]
    asked = day(models, [20.0, 0.5, 0.3], 1800, seed=1)
    placements = {**on("a", 0, 1), **on("b", 0), **on("c", 0, 1)}
    ran = run(models, asked, placements, end=1800, pools=[pool(pue=1.3, servers_per_node=2)])
    used = ran.run.used
    assert used is not None
    assert sum(ran.run.model_joules) == pytest.approx(used.accounts.execution, rel=1e-9)
    assert used.accounts.total == pytest.approx(sum(used.pools), rel=1e-12)
    assert used.accounts.host == pytest.approx(100.0 * 1800)  # two servers share a node
    assert used.accounts.idle == pytest.approx(2 * 10.0 * 1800)
    assert used.accounts.pue == pytest.approx(0.3 * (used.accounts.total - used.accounts.pue))


def test_series_add_up_to_the_total() -> None:
    models = [model("a", *ENCODER), model("b", *GENERATOR)]
    ran = run(models, day(models, [20.0, 0.5], 900, seed=2), {**on("a", 0), **on("b", 1)}, end=900)
    assert ran.run.used is not None
    assert float((ran.series.watts * 60).sum()) == pytest.approx(sum(ran.run.used.pools), rel=1e-9)


def test_an_execution_draws_what_was_measured_at_its_batch_and_between() -> None:
    m = model("a", point(2, 20.0, 0.1, 30), point(4, 20.0, 0.2, 50), config='{"max_batch_size": 4}')
    ran = run([m], workload([m], [(1.0, 0, 0, 0), *[(1.01, 0, 0, 0)] * 3]), on("a", 0), end=60)
    # one request: half the time of two, at the watts of two; then three: between two and four
    expected = 0.05 * (30 - 10) + 0.15 * (40 - 10)
    assert ran.run.model_joules[0] == pytest.approx(expected)


def test_a_server_draws_from_the_moment_it_is_asked_for_until_its_power_is_gone() -> None:
    m = model("a", *ENCODER, gib=1)
    policy = Scripted(on("a", 0), [(100.0, on("a", 0, 1)), (1000.0, on("a", 0))])
    settings = Settings(quiet_seconds=70)
    ran = run([m], workload([m], [(1.0, 0, 0, 0)]), policy, end=3000, settings=settings)
    used = ran.run.used
    assert used is not None
    on_seconds = 3000 + (1000 - 100) + 70 + 600  # server 1: asked for, drained at 1000, quiet for 70 s, then offDelay
    assert used.accounts.idle == pytest.approx(10.0 * on_seconds)
    assert used.accounts.host == pytest.approx(100.0 * on_seconds)
    load_seconds = 2.0 + GIB / 1e9
    assert used.accounts.loading == pytest.approx((60 - 10) * load_seconds)
    assert (ran.run.world.loads, ran.run.world.boots) == (1, 1)


def test_a_server_that_is_asked_for_again_while_it_goes_is_back_at_once() -> None:
    m = model("a", *ENCODER)
    policy = Scripted(on("a", 0), [(10.0, on("a", 0, 1)), (300.0, on("a", 0)), (500.0, on("a", 0, 1))])
    ran = run([m], workload([m], [(1.0, 0, 0, 0)]), policy, end=1000)
    assert ran.run.world.boots == 1
    assert ran.run.used is not None
    assert ran.run.used.accounts.idle == pytest.approx(10.0 * (1000 + 990))


def test_nodes_that_do_not_scale_in_draw_for_all_their_servers_always() -> None:
    m = model("a", *ENCODER)
    ran = run([m], workload([m], [(1.0, 0, 0, 0)]), on("a", 0), end=100, pools=[pool(servers=4, scale_in=False)])
    assert ran.run.used is not None
    assert ran.run.used.accounts.idle + ran.run.used.accounts.host == pytest.approx(4 * 110.0 * 100)


def test_a_replica_serves_until_its_successor_answers() -> None:
    m = model("a", *ENCODER)
    policy = Scripted(on("a", 0), [(10.0, on("a", 1))])
    rows = [(float(t), 0, 0.0, 0.0) for t in range(1, 600)]
    ran = run([m], workload([m], rows), policy, end=600)
    assert ran.counters[0].refused == 0
    assert sum(ran.counters[0].within) == 599


def test_a_day_again_with_the_same_seed_is_the_same_to_the_last_digit() -> None:
    models = [model("a", *ENCODER), model("b", *GENERATOR)]
    asked = day(models, [30.0, 0.5], 1200, seed=5)
    placements = {**on("a", 0, 1, 2), **on("b", 1, 2)}
    first, again, other = (run(models, asked, placements, end=1200, seed=seed) for seed in (1, 1, 2))
    assert first.counters[0].buckets == again.counters[0].buckets
    assert wall_joules(first.run) == wall_joules(again.run)
    assert pool_joules(first.run) != pool_joules(other.run)


LENGTH = 3600.0


@pytest.mark.parametrize("name", ["ergon", "static"])
def test_both_modes_agree_on_the_energy_of_a_day(name: str) -> None:
    models = [model("a", *ENCODER, slo=0.3), model("b", *GENERATOR, slo=2.0), model("c", *GENERATOR, slo=2.0)]
    asked = day(models, [2.0, 0.4, 0.15], LENGTH, seed=3, swing=3.0)
    kwh = []
    for mode in ("requests", "rate"):
        job = Job(fleet(models, [pool(servers=8)]), asked, Settings(), mode, 0, 0.0, LENGTH)  # type: ignore[arg-type]
        simulation = Simulation(job)
        if name == "ergon":
            kwh.append(simulation.simulate("ergon").accounts.kwh)
        else:
            from ergon.simulate.policies.base import Fixed, Target

            target = Target({**on("a", 0), **on("b", 0, 1), **on("c", 1)})
            kwh.append(simulation.run(Fixed("static", target)).accounts.kwh)
    assert kwh[0] == pytest.approx(kwh[1], rel=0.03)
    assert np.isfinite(kwh).all()
