"""Plans: what a user relies on, by tables and by properties."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.api.types import LabelSelector
from ergon.fleet.types import Fleet, Model, ModelKey, OperatingPoint, Pool, Replica, ServerKey, Source, Variant
from ergon.planning import Reason, judge, plan
from ergon.planning.effort import Effort, Weights
from ergon.planning.problem import build_problem
from ergon.planning.servers import lacking_work
from ergon.planning.steady import mend
from tests.planning.fleets import random_fleet

MIB = 2**20


def variant(name: str = "v", accelerators: tuple[str, ...] = ("cpu",), memory: int = 100, backend: str = "python") -> Variant:
    return Variant(
        name=name,
        accelerators=frozenset(accelerators),
        backend=backend,
        source=Source("file:///m", "", None),
        memory_bytes=memory * MIB,
        quality=0.5,
        load_timeout_seconds=600,
        config_json="{}",
        content_revision="c",
        load_revision=f"l-{name}",
    )


def model(
    name: str, *variants: Variant, replicas: int = 1, priority: int = 100, fixed: int | None = None, **more: object
) -> Model:
    fields: dict[str, object] = {
        "key": ModelKey("team", name),
        "uid": name,
        "generation": 1,
        "priority": priority,
        "min_quality": 0.0,
        "pool_selector": None,
        "min_replicas": replicas,
        "max_replicas": None,
        "fixed_replicas": fixed,
        "variants": variants or (variant(),),
    }
    return Model(**{**fields, **more})  # type: ignore[arg-type]


def pool(name: str, kind: str = "cpu", memory: int = 1000, servers: int = 2, idle: float = 10.0, **more: object) -> Pool:
    fields: dict[str, object] = {
        "name": name,
        "uid": name,
        "generation": 1,
        "labels": {},
        "accelerator_class": kind,
        "product": None,
        "memory_bytes": memory * MIB,
        "max_models": None,
        "backends": frozenset(),
        "servers_min": 0,
        "servers_max": servers,
        "namespaces": LabelSelector(),
        "max_priority": 1000,
        "idle_watts": idle,
        "host_watts": 0.0,
        "drain_timeout_seconds": 600.0,
    }
    return Pool(**{**fields, **more})  # type: ignore[arg-type]


def fleet(pools: list[Pool], models: list[Model], current: tuple[Replica, ...] = (), **more: object) -> Fleet:
    return Fleet(tuple(pools), tuple(models), {}, "ergon-system", current, **more)  # type: ignore[arg-type]


def test_a_model_goes_where_idling_costs_least() -> None:
    made = plan(
        fleet([pool("hot", "gpu", idle=70), pool("cold", "cpu", idle=5)], [model("m", variant(accelerators=("cpu", "gpu")))])
    )
    assert [replica.server for replica in made.placements[ModelKey("team", "m")]] == [ServerKey("cold", 0)]
    assert made.servers == {"hot": 0, "cold": 1}
    reasons = {(a.pool, a.verdict, a.reason) for a in made.alternatives[ModelKey("team", "m")]}
    assert reasons == {("cold", "Chosen", Reason.LEAST_ENERGY), ("hot", "Feasible", Reason.MORE_ENERGY)}


def test_what_stands_stays_where_moving_would_hardly_save() -> None:
    m = model("m", variant(accelerators=("cpu", "gpu")))
    stands = Replica(m.key, "v", ServerKey("hot", 0))
    made = plan(fleet([pool("hot", "gpu", idle=70), pool("cold", "cpu", idle=69)], [m], (stands,)))
    assert made.placements[m.key] == (stands,)
    assert made.servers == {"hot": 1, "cold": 0}


def test_what_stands_moves_where_that_saves_much() -> None:
    m = model("m", variant(accelerators=("cpu", "gpu")))
    stands = Replica(m.key, "v", ServerKey("hot", 1))
    made = plan(fleet([pool("hot", "gpu", idle=70), pool("cold", "cpu", idle=5)], [m], (stands,)))
    assert [replica.server for replica in made.placements[m.key]] == [ServerKey("cold", 0)]
    assert made.servers == {"hot": 0, "cold": 1}


def test_a_server_that_cannot_be_had_is_left() -> None:
    m = model("m")
    stands = Replica(m.key, "v", ServerKey("a", 0))
    made = plan(fleet([pool("a", unavailable=frozenset({0}))], [m], (stands,)))
    assert [replica.server.ordinal for replica in made.placements[m.key]] == [1]


def test_two_replicas_never_share_a_server() -> None:
    made = plan(fleet([pool("a", servers=3)], [model("m", replicas=3)]))
    assert sorted(replica.server.ordinal for replica in made.placements[ModelKey("team", "m")]) == [0, 1, 2]


def test_the_higher_priority_gets_the_room() -> None:
    low, high = model("a-low", variant(memory=800), priority=1), model("z-high", variant(memory=800), priority=900)
    made = plan(fleet([pool("a", servers=1)], [low, high]))
    assert made.missing_replicas == {low.key: 1}
    assert [a.reason for a in made.alternatives[low.key]] == [Reason.NO_ROOM]


def test_a_revision_that_hung_on_a_server_is_not_sent_there_again() -> None:
    m = model("m")
    made = plan(fleet([pool("a")], [m], refused=frozenset({(m.key, "l-v", ServerKey("a", 0))})))
    assert [replica.server.ordinal for replica in made.placements[m.key]] == [1]


def test_a_hang_moves_the_model_once_and_then_it_stays_out() -> None:
    m = model("m")
    stands = Replica(m.key, "v", ServerKey("a", 0))
    once = plan(fleet([pool("a", servers=4)], [m], (stands,), refused=frozenset({(m.key, "l-v", ServerKey("a", 0))})))
    assert [replica.server.ordinal for replica in once.placements[m.key]] == [1]
    refused = frozenset({(m.key, "l-v", ServerKey("a", n)) for n in (0, 1)})
    twice = plan(fleet([pool("a", servers=4)], [m], once.placements[m.key], refused=refused))
    assert twice.missing_replicas == {m.key: 1}
    assert [a.reason for a in twice.alternatives[m.key]] == [Reason.FAILED_THERE]


def test_no_pools_and_no_models() -> None:
    assert plan(fleet([], [])).placements == {}
    made = plan(fleet([], [model("m")]))
    assert made.missing_replicas == {ModelKey("team", "m"): 1}


def test_every_rejection_has_its_first_reason() -> None:
    m = model(
        "m", variant(memory=2000, backend="onnxruntime"), min_quality=0.9, pool_selector=LabelSelector(match_labels={"a": "b"})
    )
    cases = [
        (pool("p", "gpu", namespaces=None), Reason.ACCELERATOR_MISMATCH),
        (pool("p", namespaces=None), Reason.NAMESPACE_NOT_ALLOWED),
        (pool("p"), Reason.POOL_NOT_SELECTED),
        (pool("p", labels={"a": "b"}, backends=frozenset({"python"})), Reason.BACKEND_MISSING),
        (pool("p", labels={"a": "b"}), Reason.QUALITY_TOO_LOW),
    ]
    for candidate, reason in cases:
        rejection = judge(fleet([candidate], [m]), m, m.variants[0], candidate)
        assert rejection is not None
        assert rejection.reason is reason
    good = model("m", variant(memory=2000))
    too_small = judge(fleet([pool("p")], [good]), good, good.variants[0], pool("p"))
    assert too_small is not None
    assert too_small.reason is Reason.MEMORY_TOO_SMALL
    assert "1000 MiB" in too_small.message
    assert "2.0 GiB" in too_small.message


fleets = st.builds(
    lambda pools, models: (pools, models),
    st.lists(
        st.builds(
            lambda n, kind, memory, servers, idle, most: pool(f"p{n}", kind, memory, servers, idle, max_models=most),
            st.integers(0, 5),
            st.sampled_from(["cpu", "gpu"]),
            st.integers(100, 2000),
            st.integers(0, 4),
            st.floats(0, 100),
            st.none() | st.integers(1, 5),
        ),
        max_size=4,
        unique_by=lambda p: p.name,
    ),
    st.lists(
        st.builds(
            lambda n, memory, replicas, priority, kinds: model(
                f"m{n}", variant(accelerators=tuple(kinds), memory=memory), replicas=replicas, priority=priority
            ),
            st.integers(0, 30),
            st.integers(1, 1500),
            st.integers(0, 4),
            st.integers(0, 3),
            st.sets(st.sampled_from(["cpu", "gpu"]), min_size=1),
        ),
        max_size=15,
        unique_by=lambda m: m.key,
    ),
)


@settings(max_examples=50, deadline=None)
@given(fleets)
def test_a_plan_is_always_valid_and_complete(drawn: tuple[list[Pool], list[Model]]) -> None:
    pools, models = drawn
    by_name = {p.name: p for p in pools}
    made = plan(fleet(pools, models))
    memory: dict[ServerKey, int] = {}
    count: dict[ServerKey, int] = {}
    for m in models:
        placed = made.placements[m.key]
        assert len(placed) + made.missing_replicas.get(m.key, 0) == m.min_replicas
        assert len({replica.server for replica in placed}) == len(placed)
        for replica in placed:
            assert judge(fleet(pools, models), m, m.variants[0], by_name[replica.server.pool]) is None
            memory[replica.server] = memory.get(replica.server, 0) + m.variants[0].memory_bytes
            count[replica.server] = count.get(replica.server, 0) + 1
        if m.key in made.missing_replicas:
            assert all(a.verdict != "Feasible" for a in made.alternatives[m.key])
    for server, used in memory.items():
        holder = by_name[server.pool]
        assert used <= holder.memory_bytes
        assert server.ordinal < made.servers[server.pool] <= holder.servers_max
        assert holder.max_models is None or count[server] <= holder.max_models


@settings(max_examples=40, deadline=None)
@given(fleets, st.randoms(use_true_random=False))
def test_the_order_of_the_parts_changes_nothing_and_planning_again_moves_nothing(
    drawn: tuple[list[Pool], list[Model]], chance: random.Random
) -> None:
    pools, models = drawn
    made = plan(fleet(pools, models))
    shuffled_pools, shuffled_models = pools[:], models[:]
    chance.shuffle(shuffled_pools)
    chance.shuffle(shuffled_models)
    assert plan(fleet(shuffled_pools, shuffled_models)).placements == made.placements
    current = tuple(replica for replicas in made.placements.values() for replica in replicas)
    again = plan(fleet(pools, models, current))
    assert {k: set(v) for k, v in again.placements.items()} == {k: set(v) for k, v in made.placements.items()}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_many_small_models_fill_the_lowest_servers_first(seed: int) -> None:
    chance = random.Random(seed)
    models = [model(f"m{n}", variant(memory=chance.randint(1, 40))) for n in range(300)]
    made = plan(fleet([pool("a", memory=1000, servers=50)], models))
    assert not made.missing_replicas
    needed = sum(m.variants[0].memory_bytes for m in models) / (1000 * MIB)
    assert made.servers["a"] <= needed * 1.1 + 1


def test_mending_moves_nothing_only_to_share_out_better() -> None:
    """A replica that may idle does not hold its server to its own latency target: it need not go for another to serve more."""
    point = OperatingPoint(None, "cpu", 1, 10.0, 0.02, 50.0, None, None)
    busy = model("busy", replace(variant(), points=(point,)), fixed=1)
    strict = model("strict", replace(variant(), points=(point,)), fixed=2, slo_latency_seconds=0.04)
    stands = {(busy.key, 0), (strict.key, 0), (strict.key, 1)}
    current = tuple(Replica(key, "v", ServerKey("cpu", ordinal)) for key, ordinal in sorted(stands, key=str))
    demand = {busy.key: 20.0, strict.key: 1.0}
    problem = build_problem(fleet([pool("cpu", memory=250, servers=3)], [busy, strict], current, demand=demand), Weights())
    mended = mend(problem, (), Effort.normal())
    assert {(problem.models[m].key, mended.ordinal(s)) for m, homes in enumerate(mended.homes) for s in homes} == stands
    assert [lacking_work(mended, m) for m in range(2)] == [0.0, 0.0]


@pytest.mark.parametrize("effort", [Effort.quick(), Effort.normal()], ids=["quick", "normal"])
@pytest.mark.parametrize("seed", range(25))
def test_the_solver_answers_for_fleets_that_are_far_too_small(seed: int, effort: Effort) -> None:
    fleet = random_fleet(random.Random(seed))
    fleet = replace(fleet, demand={key: 8 * work for key, work in fleet.demand.items()})
    assert not [note for note in plan(fleet, effort=effort).notes if "no answer" in note]


def test_what_costs_nothing_does_not_move_to_what_costs_nothing() -> None:
    free = pool("free", servers=1, idle=0.0)
    models = [model("a", variant("v0"), variant("v1")), model("b", variant("v0"), replicas=2)]
    for name in ("v0", "v1"):
        made = plan(fleet([free], models, (Replica(ModelKey("team", "a"), name, ServerKey("free", 0)),)), effort=Effort.quick())
        assert made.short
        assert [replica.variant for replica in made.placements[ModelKey("team", "a")]] == [name]
