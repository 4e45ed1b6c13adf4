"""The judge finds what is wrong, and finds nothing wrong with exact optima: both were written from the contract, each alone."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from ergon.api.types import LabelSelector
from ergon.fleet.types import Fleet, Model, ModelKey, OperatingPoint, Pool, Replica, ServerKey, Source, Variant, WattLimit
from ergon.planning import Alternative, Load, Plan, Reason
from tests.examples import examples
from tests.planning import law
from tests.planning.exact import exact
from tests.planning.fleets import SOLVABLE, random_fleet
from tests.planning.judge import broken_constraints, same, tiers, violations

GIB = 2**30
KEY = ModelKey("finance", "invoices")
FIRST, SECOND = Replica(KEY, "int8", ServerKey("xeon", 0)), Replica(KEY, "int8", ServerKey("xeon", 1))
POINT = OperatingPoint(None, "cpu", 8, 100.0, 0.02, 200.0, 60.0)
POOL = Pool(
    *("xeon", "xeon", 1, {}, "cpu", None, 2 * GIB, 2, frozenset(), 1, 3, LabelSelector(), 1000, 40.0, 30.0, 600.0),
    pue=1.5,
    price_per_server_hour=0.5,
    grams_per_kilowatt_hour=100.0,
)
VARIANT = Variant("int8", frozenset({"cpu"}), "python", Source("file:///m", "", None), GIB, 0.9, 600, "{}", "c", "l", (POINT,))
MODEL = Model(KEY, "m", 1, 100, 0.5, None, 2, 3, None, (VARIANT,), 0.1)
FLEET = Fleet((POOL,), (MODEL,), {}, "ergon-system", demand={KEY: 50.0})
WATTS = 1.5 * (2 * 30 + 2 * 40 + 20 + 20 + 0.5 * (200 - 60))


def right_plan() -> Plan:
    """Fifty requests over two servers at rho = min(0.7, 0.08 / 0.14)."""
    load = Load(25.0, 0.25, GIB, 8, "profile")
    return Plan(
        placements={KEY: (FIRST, SECOND)},
        servers={"xeon": 2},
        loads={FIRST: load, SECOND: load},
        alternatives={KEY: (Alternative("xeon", "int8", "Chosen", Reason.LEAST_ENERGY, "50 requests/s"),)},
        watts=WATTS,
        price_per_hour=1.0,
        grams_per_hour=WATTS / 10,
        lower_bound_watts=WATTS,
    )


def test_a_right_plan_has_nothing_wrong_with_it() -> None:
    assert violations(FLEET, right_plan()) == []


def loaded(plan: Plan, **changed: object) -> Plan:
    """The plan with the first replica's load changed."""
    return replace(plan, loads={**plan.loads, FIRST: replace(plan.loads[FIRST], **changed)})


WRONG: list[tuple[str, Callable[[Plan], Plan]]] = [
    ("5:", lambda p: loaded(p, work_per_second=20.0, busy_share=0.2)),
    ("busy share", lambda p: loaded(p, busy_share=0.2)),
    ("comes from a profile", lambda p: loaded(p, provenance="assumed")),
    ("the point says", lambda p: loaded(p, batch=4)),
    ("the point says", lambda p: loaded(p, memory_bytes=5)),
    ("1:", lambda p: loaded(p, work_per_second=58.0, busy_share=0.58)),
    ("has no load", lambda p: replace(p, loads={FIRST: p.loads[FIRST]})),
    ("is not placed", lambda p: replace(p, placements={KEY: (FIRST,)})),
    ("4:", lambda p: replace(p, missing_replicas={KEY: 1})),
    ("5:", lambda p: replace(p, unserved={KEY: 1.0})),
    ("rounding", lambda p: replace(p, unserved={KEY: 1e-12})),
    ("6:", lambda p: replace(p, servers={"xeon": 1})),
    ("6:", lambda p: replace(p, servers={"xeon": 4})),
    ("servers are said of", lambda p: replace(p, servers={})),
    ("watts is said", lambda p: replace(p, watts=p.watts * (1 + 1e-8))),
    ("price_per_hour is said", lambda p: replace(p, price_per_hour=0.5)),
    ("grams_per_hour is said", lambda p: replace(p, grams_per_hour=0.0)),
    ("lower bound", lambda p: replace(p, lower_bound_watts=p.watts * 1.001)),
    ("not explained just once", lambda p: replace(p, alternatives={})),
    ("not explained just once", lambda p: replace(p, alternatives={KEY: p.alternatives[KEY] * 2})),
    (
        "said to be Feasible",
        lambda p: replace(p, alternatives={KEY: (replace(p.alternatives[KEY][0], verdict="Feasible"),)}),
    ),
    ("no limit", lambda p: replace(p, over_limit_watts={"b": 1.0})),
    ("does not have", lambda p: replace(p, unserved={ModelKey("finance", "gone"): 1.0})),
    ("3:", lambda p: replace(p, placements={KEY: (FIRST, FIRST)})),
]


@pytest.mark.parametrize(("says", "change"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_a_wrong_plan_is_told_why(says: str, change: Callable[[Plan], Plan]) -> None:
    found = violations(FLEET, change(right_plan()))
    assert any(says in line for line in found), found


def model_as(**changed: object) -> Fleet:
    """The fleet with its model changed."""
    return replace(FLEET, models=(replace(MODEL, **changed),))


def pool_as(**changed: object) -> Fleet:
    """The fleet with its pool changed."""
    return replace(FLEET, pools=(replace(POOL, **changed),))


@pytest.mark.parametrize(
    ("says", "fleet"),
    [
        ("2:", pool_as(memory_bytes=GIB, max_models=0)),
        ("6:", pool_as(unavailable=frozenset({1}))),
        ("4:", model_as(max_replicas=1)),
        ("AcceleratorMismatch", pool_as(accelerator_class="gpu")),
        ("NamespaceNotAllowed", pool_as(namespaces=None)),
        ("PoolNotSelected", model_as(pool_selector=LabelSelector(match_labels={"a": "b"}))),
        ("BackendMissing", pool_as(backends=frozenset({"onnxruntime"}))),
        ("QualityTooLow", model_as(min_quality=0.95)),
        ("MemoryTooSmall", pool_as(memory_bytes=GIB - 1)),
        ("LatencyTooHigh", model_as(slo_latency_seconds=0.02)),
        ("LatencyTooHigh", model_as(slo_latency_seconds=0.022)),
        ("1:", model_as(slo_latency_seconds=0.03)),
        ("counted on", model_as(variants=(replace(VARIANT, points=()),))),
        ("refused", replace(FLEET, refused=frozenset({(KEY, "l", ServerKey("xeon", 1))}))),
        ("7:", replace(FLEET, watt_limits=(WattLimit("b", WATTS),))),
        ("7:", replace(FLEET, watt_limits=(WattLimit("b", 100.0, namespaces=LabelSelector()),))),
        ("7: b cannot be held", replace(FLEET, watt_limits=(WattLimit("b", 100.0),))),
    ],
)
def test_a_plan_for_another_fleet_is_told_why(says: str, fleet: Fleet) -> None:
    found = violations(fleet, right_plan())
    assert any(says in line for line in found), found


def test_points_of_the_product_hide_those_of_the_class_and_the_thriftiest_counts() -> None:
    points = (
        OperatingPoint("Xeon", "cpu", 1, 10.0, 0.01, 90.0),
        OperatingPoint("Xeon", None, 8, 40.0, 0.05, 120.0),
        OperatingPoint("Xeon", None, 32, 80.0, 0.09, 130.0),
        OperatingPoint(None, "cpu", 64, 900.0, 0.01, 41.0),
    )
    judged = law.judge_points(0.1, replace(VARIANT, points=points), replace(POOL, product="Xeon"))
    assert not isinstance(judged, str)
    assert [(use.batch, use.rho) for use in judged] == [(8, pytest.approx(0.25))]  # at batch 32, rho is below 0.05


def test_a_pool_that_keeps_its_nodes_pays_for_all_of_them() -> None:
    pool = replace(POOL, scale_in=False, servers_per_node=2)
    assert law.sunk_watts(pool) == pytest.approx(1.5 * (2 * 30 + 3 * 40))
    assert law.sunk_watts(POOL) == pytest.approx(1.5 * 70)
    assert law.sunk_watts(replace(POOL, unavailable=frozenset({0}))) == 0


def test_exact_optima_have_nothing_wrong_with_them() -> None:
    for seed in range(examples(20)):
        fleet = random_fleet(random.Random(seed), SOLVABLE)
        optimum = exact(fleet, margin=1e-6)
        assert optimum is not None
        assert broken_constraints(fleet, optimum.plan) == []
        assert same(optimum.plan.watts, optimum.watts, 1e-5)
        said = [(priority, missing, pytest.approx(unserved, rel=1e-5, abs=1e-6)) for priority, missing, unserved in optimum.tiers]
        assert said == tiers(fleet, optimum.plan)
