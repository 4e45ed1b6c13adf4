"""What the planner puts on a server, the server has room for: both count the larger of declared and measured memory."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.engine.memory import MeasuredMemory
from ergon.engine.server import ServerAgent
from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica, ServerKey
from ergon.planning import Plan, plan
from tests.engine.test_orphans import agent
from tests.engine.test_planner import made, planned, put, where
from tests.engine.world import model, pool
from tests.planning.fleets import FRESH, MIB, SOUND, fleets
from tests.planning.test_properties import placed, tried


def weighed(chance: random.Random, fleet: Fleet) -> tuple[Fleet, MeasuredMemory]:
    """The fleet as the operator sees it after some loads, which took less than declared, more, or more than there is."""
    known = MeasuredMemory()
    for one in fleet.models:
        for variant in one.variants:
            for product in sorted({p.weighed_as for p in fleet.pools} - {""}):
                if chance.random() < 0.5:
                    known.learn(one.key, variant, product, chance.choice((20, 300, 900, 2000, 9000)) * MIB)
    return replace(fleet, measured=known.known(fleet.models)), known


def door(pool: Pool, known: MeasuredMemory) -> ServerAgent:
    """An empty server of a pool."""
    server = agent()
    server.memory_bytes, server.max_models, server.measured = pool.memory_bytes, pool.max_models, known
    server.product, server.accelerator = pool.weighed_as, (pool.product, pool.accelerator_class)
    return server


def admit(fleet: Fleet, known: MeasuredMemory, replicas: list[Replica]) -> None:
    """Let all of them in, in this order."""
    pools = {p.name: p for p in fleet.pools}
    models: dict[ModelKey, Model] = {one.key: one for one in fleet.models}
    servers: dict[ServerKey, ServerAgent] = {}
    for replica in replicas:
        server = servers.setdefault(replica.server, door(pools[replica.server.pool], known))
        variant = models[replica.model].variant(replica.variant)
        assert variant is not None
        needed = server.needed_bytes(replica.model, variant)
        assert server.has_room(replica.model, needed), f"{replica} is planned where it is refused"
        server.fact(replica.model).memory_bytes = needed


@tried
@given(fleets(FRESH), st.randoms(use_true_random=False, note_method_calls=False))
def test_a_plan_made_of_a_snapshot_is_admitted_in_whatever_order_it_is_loaded(fleet: Fleet, chance: random.Random) -> None:
    seen, known = weighed(chance, fleet)
    replicas = sorted(placed(plan(seen)), key=str)
    chance.shuffle(replicas)
    admit(seen, known, replicas)


@tried
@given(fleets(SOUND), st.randoms(use_true_random=False, note_method_calls=False))
def test_what_is_loaded_is_not_taken_away_for_what_was_measured_of_it(fleet: Fleet, chance: random.Random) -> None:
    first = plan(replace(fleet, current=()))
    standing = tuple(sorted(placed(first), key=str))
    again: Plan = plan(weighed(chance, replace(fleet, current=standing))[0], before=first)
    assert not again.missing_replicas.keys() - first.missing_replicas.keys()
    assert not {key for key, work in again.unserved.items() if work > first.unserved.get(key, 0.0) * (1 + 1e-6) + 1e-9}


@pytest.mark.parametrize(("taken_mib", "missing"), [(60, 0), (600, 1)])
async def test_the_operator_plans_with_what_it_measured(taken_mib: int, missing: int) -> None:
    planner, cache, _ = made()
    put(cache, pool("gpus", accelerator={"class": "gpu", "product": "L4"}, servers={"min": 1, "max": 1}), "p3")
    for name in ("a", "b"):
        put(cache, model("n", name, "file:///echo", variant={"accelerators": ["gpu"]}), name)
        record = cache.models[ModelKey("n", name)].model
        assert record is not None
        planner._servers.measured.learn(record.key, record.variants[0], "L4", taken_mib * MIB)
    await planned(planner)
    assert sum(planner.missing(ModelKey("n", name)) for name in ("a", "b")) == missing
    assert len([server for name in ("a", "b") for server in where(planner, name)]) == 2 - missing
