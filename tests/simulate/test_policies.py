"""What each policy promises."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.fleet.types import Fleet, ModelKey
from ergon.simulate.curves import build_places
from ergon.simulate.policies.base import Observed
from ergon.simulate.policies.cost import cheapest_mix
from ergon.simulate.policies.ergon import Ergon
from ergon.simulate.policies.homes import CPU_SLOTS, Home, NoHome, Slots, energy_best, homes_of
from ergon.simulate.policies.hpa import Scaler, desired_pods, most_pods, target_work_per_second
from ergon.simulate.run import Job, Simulation
from ergon.simulate.settings import Settings
from ergon.simulate.sizing import NoSize, smallest, smallest_each
from tests.simulate.fleets import fleet, model, point, pool
from tests.simulate.traffic import day

ENCODER = (point(1, 80.0, 0.0125, 40), point(8, 400.0, 0.02, 60))
GENERATOR = (point(1, 50.0, 0.05, 60, 50, tokens=True), point(16, 400.0, 0.2, 70, 50, tokens=True))


# -- hpa ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "metric", "expected"),
    [
        (1, 10.0, 1),
        (1, 10.9, 1),
        (1, 11.1, 2),
        (4, 36.1, 4),
        (4, 35.0, 4),
        (4, 30.0, 3),
        (10, 55.0, 6),
        (3, 100.0, 7),
        (10, 1000.0, 20),
        (5, 0.0, 1),
    ],
)
def test_pods_are_the_formula_of_the_horizontal_pod_autoscaler(current: int, metric: float, expected: int) -> None:
    """ceil(current x metric / target) with a target of 10 a pod, tolerance 0.1, up to twice the pods or 4 more a period."""
    assert desired_pods(current, metric, 10.0, most_pods(current)) == expected


def _home(**more: object) -> Home:
    made = fleet([model("a", *ENCODER, slo=10.0)], [pool(**more)])  # type: ignore[arg-type]
    return homes_of(made, build_places(made).values(), ModelKey("n", "a"))[0]


def test_pods_go_down_only_to_the_highest_recommendation_of_five_minutes() -> None:
    scaler = Scaler(_home(), 8)
    per_pod = target_work_per_second(scaler.home)
    for sync in range(1, 5):
        assert scaler.sync(15.0 * sync, 15.0, 8 * per_pod * 15) == 8
    pods = [scaler.sync(15.0 * sync, 15.0, 2 * per_pod * 15) for sync in range(5, 40)]
    assert pods[:19] == [8] * 19  # the last recommendation of 8 is at 60 s
    assert pods[-1] == 2


def test_a_pod_is_kept_at_0_7_of_its_rate_and_below_where_the_latency_rule_says_so() -> None:
    free, tight = _home(), fleet([model("a", *ENCODER, slo=0.06)])
    home = homes_of(tight, build_places(tight).values(), ModelKey("n", "a"))[0]
    assert target_work_per_second(free) == pytest.approx(0.7 * 400)
    assert target_work_per_second(home) == pytest.approx((0.06 - 0.02) / (0.06 + 0.04) * 400)


# -- servers of their own -----------------------------------------------------------------------------------------------------


def test_an_accelerator_holds_one_pod_and_a_cpu_server_several() -> None:
    made = fleet([model("a", *ENCODER), model("b", *ENCODER)])
    cpu = replace(made.pools[0], accelerator_class="cpu")
    homes = {name: homes_of(made, build_places(made).values(), ModelKey("n", name))[0] for name in "ab"}
    slots = Slots(made)
    assert [slots.resize(homes[name], 2) for name in "ab"] == [2, 2]
    servers = [[r.server.ordinal for r in slots.target().placements[ModelKey("n", name)]] for name in "ab"]
    assert servers == [[0, 1], [2, 3]]
    shared = Slots(made)
    for name in "ab":
        shared.resize(Home(homes[name].place, cpu, CPU_SLOTS), 3)
    assert {r.server.ordinal for replicas in shared.target().placements.values() for r in replicas} == {0}


def test_a_full_pool_gives_what_it_has() -> None:
    assert Slots(fleet([model("a", *ENCODER)])).resize(_home(), 99) == 4


def test_pods_that_go_leave_their_servers_to_others() -> None:
    slots, home = Slots(fleet([model("a", *ENCODER)])), _home()
    slots.resize(home, 4)
    slots.resize(home, 1)
    assert [r.server.ordinal for r in slots.target().placements[ModelKey("n", "a")]] == [0]


def test_the_energy_best_home_is_the_one_that_draws_least_at_its_size() -> None:
    small, large = pool("small", host_watts=20.0), pool("large", host_watts=500.0)
    made = fleet([model("a", *ENCODER)], [large, small])
    homes = homes_of(made, build_places(made).values(), ModelKey("n", "a"))
    assert energy_best(homes, 500.0, 300.0).pool.name == "small"


def test_a_model_that_no_pool_serves_has_no_home() -> None:
    made = fleet([model("a")])
    with pytest.raises(NoHome, match="n/a: no pool serves it"):
        homes_of(made, build_places(made).values(), ModelKey("n", "a"))


# -- sizes --------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_smallest_size_is_found_from_any_guess(needed: int, guess: int) -> None:
    asked: list[int] = []

    def enough(count: int) -> bool:
        asked.append(count)
        return count >= needed

    assert smallest(enough, guess, 60) == needed
    assert len(asked) == len(set(asked)) <= 14


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6))
def test_the_smallest_sizes_of_many_are_found_together(wanted: list[tuple[int, int]]) -> None:
    needed = [need for need, _ in wanted]
    found = smallest_each(
        lambda counts, left: [1.0 if counts[m] >= needed[m] else 0.5 for m in left],
        [guess for _, guess in wanted],
        [40] * len(wanted),
    )
    assert found == needed


def test_where_nothing_is_enough_that_is_said() -> None:
    with pytest.raises(NoSize, match="even 8 are not enough"):
        smallest(lambda count: False, 2, 8)


# -- cost ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [1.0, 170.0, 333.0, 1000.0, 1900.0])
def test_the_mix_is_the_cheapest_there_is(work: float) -> None:
    pools = [pool(name, 6, price_per_server_hour=price, product=product) for name, price, product in
             [("p", 1.0, "P"), ("q", 1.7, "Q"), ("r", 0.4, "R")]]  # fmt: skip
    points = [replace(p, product=name, work_per_second=p.work_per_second * speed) for p in ENCODER for name, speed in
              (("P", 1.0), ("Q", 2.0), ("R", 0.3))]  # fmt: skip
    made = fleet([model("a", *points)], pools)
    homes = homes_of(made, build_places(made).values(), ModelKey("n", "a"))
    mix = cheapest_mix(homes, work)
    price = sum(home.price(count) for home, count in mix)
    best = min(
        sum(home.price(count) for home, count in zip(homes, counts, strict=True))
        for counts in itertools.product(range(7), repeat=3)
        if sum(counts) and sum(h.pod_work_per_second * c for h, c in zip(homes, counts, strict=True)) >= work - 1e-9
    )
    assert sum(home.pod_work_per_second * count for home, count in mix) >= work - 1e-6
    assert price == pytest.approx(best)


# -- whole runs ---------------------------------------------------------------------------------------------------------------


def _simulation(hours: float = 0.25, mode: str = "requests", **more: object) -> Simulation:
    models = [model("a", *ENCODER, slo=0.3), model("b", *GENERATOR, slo=2.0), model("c", *GENERATOR, slo=2.0)]
    asked = day(models, [4.0, 0.5, 0.2], hours * 3600, seed=7, swing=3.0)
    made = fleet(models, [pool(servers=12, max_busy_share=0.7)])
    return Simulation(Job(made, asked, Settings(), mode, 0, 0.0, hours * 3600, **more))  # type: ignore[arg-type]


def test_a_fixed_size_is_the_smallest_that_keeps_99_percent() -> None:
    simulation = _simulation()
    result = simulation.simulate("dedicated")
    assert result.within_share >= 0.99
    assert all(m.within_share >= 0.99 for m in result.models if m.requests)
    assert (result.loads, result.boots, result.refused) == (0, 0, 0)


def test_general_serves_every_task_on_one_model_and_counts_each_by_its_name() -> None:
    result = _simulation(general=ModelKey("n", "b")).simulate("general")
    assert result.within_share >= 0.99
    assert [m.requests > 0 for m in result.models] == [True] * 3
    assert sum(m.joules > 0 for m in result.models) == 1  # only one model executes


@pytest.mark.parametrize("name", ["ergon", "hpa", "general-hpa", "static", "cost", "clairvoyant"])
def test_every_policy_answers_nearly_all_of_a_quiet_quarter_hour(name: str) -> None:
    result = _simulation(general=ModelKey("n", "b")).simulate(name)
    assert result.within_share >= 0.9  # it triples within minutes, and a server takes three to come
    assert result.requests > 0
    assert math.isclose(result.accounts.total, sum(result.pool_joules), rel_tol=1e-9)
    assert np.isclose((result.series.watts * 60).sum(), result.accounts.total)


def test_the_bound_is_below_what_is_planned() -> None:
    simulation = _simulation(1.0, "rate")
    ergon, bound = simulation.simulate("ergon"), simulation.simulate("bound")
    assert bound.accounts.total <= float(np.nansum(ergon.series.planned_watts) * 60) * 1.001


class _Step:
    """A demand that the test sets."""

    def __init__(self, made: Fleet, work: float) -> None:
        self.made, self.work = made, work

    def observe(self, observed: object) -> None:
        """Nothing."""

    def forecast(self, now_seconds: float) -> dict[ModelKey, float]:
        return {m.key: self.work for m in self.made.models}

    def urgent(self, now_seconds: float) -> dict[ModelKey, float]:
        return {}

    def peaks(self, now_seconds: float) -> dict[ModelKey, float]:
        return {}


def test_ergon_mends_at_once_and_takes_away_what_nothing_needs() -> None:
    models = [model(f"m{n:02d}", *ENCODER, slo=0.3) for n in range(16)]
    made = fleet(models, [pool(servers=40)])
    source = _Step(made, 5.0)
    policy = Ergon("ergon", made, source)
    few = policy.start(0.0)
    none, nothing = np.zeros(16), frozenset[Any]()

    def servers_after(minute: int, work: float) -> int:
        source.work = work
        seen = policy.decide(Observed(60.0 * minute, 10.0, none, none, none, none, nothing, nothing, nothing))
        assert seen is not None
        return len({replica.server for replicas in seen.placements.values() for replica in replicas})

    before = len({replica.server for replicas in few.placements.values() for replica in replicas})
    assert servers_after(1, 500.0) * 0.7 * 400 >= 16 * 500
    for minute in range(2, 30):
        left = servers_after(minute, 5.0)
    assert left == before
