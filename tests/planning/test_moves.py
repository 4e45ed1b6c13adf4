"""From one placement to another in stages: few moves at once, room for old and new, never fewer replicas than the least."""

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica, ServerKey
from ergon.planning import Plan
from ergon.planning.moves import moves, next_stage, stuck
from tests.planning.test_planner import MIB, fleet, model, pool, variant


def on(model: Model, server: int, pool: str = "a") -> Replica:
    return Replica(model.key, "v", ServerKey(pool, server))


def reached(start: Fleet, plan: Plan, limit: int, most: int = 50) -> tuple[list[set[Replica]], bool]:
    """What stands after each stage, the engine doing its part, and whether the plan was reached."""
    standing = [set(start.current)]
    for _ in range(most):
        now = replace(start, current=tuple(standing[-1]))
        stage = next_stage(now, plan, limit)
        after = {replica for replicas in stage.values() for replica in replicas}
        assert len(after - standing[-1]) <= max(limit, 1)
        if after == standing[-1]:
            break
        standing.append(after)
    wanted = {replica for replicas in plan.placements.values() for replica in replicas}
    return standing, standing[-1] == wanted


def test_a_move_keeps_the_old_replica_out_of_the_stage_once_the_new_one_is_in_it() -> None:
    m = model("m")
    start = fleet([pool("a")], [m], (on(m, 0),))
    assert next_stage(start, Plan(placements={m.key: (on(m, 1),)}), 5) == {m.key: (on(m, 1),)}


def test_no_more_moves_at_once_than_the_limit() -> None:
    models = [model(f"m{n}") for n in range(6)]
    start = fleet([pool("a")], models, tuple(on(m, 0) for m in models))
    plan = Plan(placements={m.key: (on(m, 1),) for m in models})
    stage = next_stage(start, plan, 2)
    assert moves(start.current, stage) == (2, 2)
    stages, done = reached(start, plan, 2)
    assert done
    assert len(stages) == 4


def test_what_has_no_room_beside_the_old_waits_until_it_went() -> None:
    leaving, coming = model("a-leaving", variant(memory=600)), model("b-coming", variant(memory=600))
    start = fleet([pool("a", servers=3)], [leaving, coming], (on(leaving, 0), on(coming, 1)))
    plan = Plan(placements={leaving.key: (on(leaving, 2),), coming.key: (on(coming, 0),)})
    first = next_stage(start, plan, 5)
    assert first == {leaving.key: (on(leaving, 2),), coming.key: (on(coming, 1),)}
    assert reached(start, plan, 5)[1]


def test_full_servers_swap_by_way_of_one_with_room() -> None:
    one, two = model("one", variant(memory=900)), model("two", variant(memory=900))
    start = fleet([pool("a", servers=3)], [one, two], (on(one, 0), on(two, 1)))
    plan = Plan(placements={one.key: (on(one, 1),), two.key: (on(two, 0),)})
    assert reached(start, plan, 5)[1]
    assert stuck(start, plan) == ()


def test_a_swap_without_room_anywhere_is_told() -> None:
    one, two = model("one", variant(memory=900)), model("two", variant(memory=900))
    start = fleet([pool("a", servers=2)], [one, two], (on(one, 0), on(two, 1)))
    plan = Plan(placements={one.key: (on(one, 1),), two.key: (on(two, 0),)})
    assert next_stage(start, plan, 5) == {one.key: (on(one, 0),), two.key: (on(two, 1),)}
    assert stuck(start, plan) == (one.key, two.key)


rearrangements = st.tuples(
    st.lists(st.tuples(st.integers(1, 700), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8),
    st.integers(1, 4),
)


@settings(deadline=None)
@given(rearrangements)
def test_stages_never_pass_memory_and_never_lose_a_replica(drawn: tuple[list[tuple[int, int, int]], int]) -> None:
    rows, limit = drawn
    models: list[Model] = []
    current: list[Replica] = []
    placements: dict[ModelKey, tuple[Replica, ...]] = {}
    used: dict[tuple[str, int], int] = {}
    for number, (memory, old, new) in enumerate(rows):
        m = model(f"m{number}", variant(memory=memory))
        if used.get(("old", old), 0) + memory > 1000 or used.get(("new", new), 0) + memory > 1000:
            continue
        used["old", old] = used.get(("old", old), 0) + memory
        used["new", new] = used.get(("new", new), 0) + memory
        models.append(m)
        current.append(on(m, old))
        placements[m.key] = (on(m, new),)
    holder: Pool = pool("a", servers=4)
    start = fleet([holder], models, tuple(current))
    stages, _ = reached(start, Plan(placements=placements), limit)
    sizes = {m.key: m.variants[0].memory_bytes for m in models}
    for before, after in itertools.pairwise(stages):
        assert {replica.model for replica in after} == set(sizes)
        together: dict[ServerKey, int] = {}
        for replica in before | after:
            together[replica.server] = together.get(replica.server, 0) + sizes[replica.model]
        assert all(size <= 1000 * MIB for size in together.values())
