"""A limit that has room for nothing but what is protected leaves all others out, and says so of each."""

import random
from dataclasses import replace

import pytest

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.budget import Needs
from ergon.engine.needs import ROOM_TO_RETURN, left_out, needs_of, outright, with_left_out, without
from ergon.fleet.types import Fleet, Model
from ergon.planning import Effort, plan
from ergon.planning.candidates import Reason, judge
from ergon.planning.priorities import with_capped_priorities
from ergon.reconcile.budgets import scope_of, shed_in
from tests.planning.fleets import random_fleet
from tests.planning.law import Law

BELOW = 500


def spec(watts: float = 1000.0, **fields: object) -> EnergyBudgetSpec:
    return EnergyBudgetSpec.model_validate({"limits": {"watts": watts}, "shedBelowPriority": BELOW, **fields})


@pytest.mark.parametrize(
    ("budget", "left", "protected", "before", "full"),
    [
        (spec(), {}, 949.0, (), False),
        (spec(), {}, 951.0, (), True),
        (spec(), {"site": 800.0}, 765.0, (), True),
        (spec(), {"site": None}, 5000.0, (), False),
        (spec(), {}, 949.0, ("site",), True),
        (spec(), {}, 949.0 / ROOM_TO_RETURN, ("site",), False),
        (spec(enforcement="Observe"), {}, 5000.0, (), False),
        (spec(shedBelowPriority=0), {}, 5000.0, (), False),
    ],
    ids=["room", "none", "less-is-left", "nothing-binds", "stays", "returns", "observes", "all-protected"],
)
def test_when_only_what_is_protected_has_room(
    budget: EnergyBudgetSpec, left: dict[str, float | None], protected: float, before: tuple[str, ...], full: bool
) -> None:
    needs = {"site": Needs(needed_watts=6000.0, protected_watts=protected)}
    assert outright({"site": budget}, left, needs, before) == ({"site"} if full else set())


def counts(fleet: Fleet, model: Model) -> int:
    """A model's priority as planning.md has it."""
    return Law(fleet).priority(model.key)


@pytest.mark.parametrize("seed", range(40))
def test_a_priority_counts_for_no_more_than_the_pools_allow(seed: int) -> None:
    fleet = random_fleet(random.Random(seed))
    boasting = replace(fleet, models=tuple(replace(model, priority=1000) for model in fleet.models))
    for each in (fleet, boasting):
        assert [model.priority for model in with_capped_priorities(each).models] == [counts(each, m) for m in each.models]


def test_who_calls_itself_dear_is_protected_from_no_budget_of_a_pool_that_caps_it() -> None:
    budgets, found = {"site": spec(30.0)}, 0
    for seed in range(20):
        drawn = random_fleet(random.Random(seed))
        pools = tuple(replace(pool, max_priority=100) for pool in drawn.pools)
        fleets = [
            replace(drawn, pools=pools, models=tuple(replace(model, priority=priority) for model in drawn.models))
            for priority in (100, 1000)
        ]
        modest, boasting = (needs_of(fleet, budgets)["site"].protected_watts for fleet in fleets)
        candidates = Law(fleets[0]).candidates
        if all(candidates.values()):
            found += 1
            assert boasting == pytest.approx(modest)
            assert left_out(fleets[1], budgets, {"site"}) == left_out(fleets[0], budgets, {"site"})
    assert found > 3  # else this says nothing


@pytest.mark.parametrize("seed", range(40))
def test_who_is_left_out_has_no_replica_and_is_told_why(seed: int) -> None:
    fleet = random_fleet(random.Random(seed))
    budgets = {"site": spec()}
    shed = left_out(fleet, budgets, {"site"})
    assert set(shed) == {model.key for model in fleet.models if counts(fleet, model) < BELOW and model.wanted_replicas}
    rest = without(fleet, shed)
    assert not {replica.model for replica in rest.current} & set(shed)
    made = with_left_out(plan(rest, effort=Effort.quick()), fleet, shed, budgets)
    assert set(made.alternatives) == {model.key for model in fleet.models}
    assert len(made.alternatives) == len(fleet.models)
    for model in fleet.models:
        if model.key in shed:
            assert made.placements[model.key] == ()
            assert made.missing_replicas[model.key] == model.wanted_replicas
            assert all(found.reason is Reason.WATT_LIMIT for found in made.alternatives[model.key])
    told = {key for key in shed if made.alternatives[key]}
    assert told <= set(shed_in(scope_of("site", budgets["site"]), fleet, made))


def test_a_model_that_may_run_where_the_limit_does_not_reach_is_planned() -> None:
    fleet = next(fleet for seed in range(50) if len((fleet := random_fleet(random.Random(seed))).pools) > 1)
    budget = spec(pools={"matchLabels": {"no": "such"}})
    assert left_out(fleet, {"site": budget}, {"site"}) == {}


@pytest.mark.parametrize("seed", range(40))
def test_one_that_can_run_nowhere_but_where_the_limit_reaches_is_left_out_too(seed: int) -> None:
    fleet = random_fleet(random.Random(seed))
    budgets = {"site": spec(pools={"matchLabels": {"site": "a"}})}
    shed = left_out(fleet, budgets, {"site"})
    reached = {pool.name for pool in fleet.pools if pool.labels.get("site") == "a"}
    if len(reached) < len(fleet.pools):
        for model in fleet.models:
            where = {p.name for p in fleet.pools if any(judge(fleet, model, v, p) is None for v in model.variants)}
            may_be_shed = counts(fleet, model) < BELOW and bool(model.wanted_replicas)
            assert (model.key in shed) == (may_be_shed and bool(where) and where <= reached)
    made = with_left_out(plan(without(fleet, shed), effort=Effort.quick()), fleet, shed, budgets)
    for key in shed:
        for found in made.alternatives[key]:
            assert (found.reason is Reason.WATT_LIMIT) == (found.pool in reached)
    told = {key for key in shed if made.alternatives[key]}
    assert told <= set(shed_in(scope_of("site", budgets["site"]), fleet, made))


def test_that_some_are_left_out_under_a_limit_on_some_pools() -> None:
    found = 0
    for seed in range(40):
        fleet = random_fleet(random.Random(seed))
        reached = [pool for pool in fleet.pools if pool.labels.get("site") == "a"]
        if len(reached) < len(fleet.pools):
            found += len(left_out(fleet, {"site": spec(pools={"matchLabels": {"site": "a"}})}, {"site"}))
    assert found > 3  # else the test above says nothing
