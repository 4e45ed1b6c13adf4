"""Memory that models were measured to take: what counts as one load's doing, and that a server admits by the larger figure."""

from dataclasses import replace
from typing import Any

import pytest

from ergon.engine.memory import MeasuredMemory, Weighing
from ergon.fleet.types import ModelKey
from tests.engine.test_orphans import agent
from tests.planning.test_planner import variant

KEY, OTHER = ModelKey("team", "m"), ModelKey("team", "other")
MIB = 2**20


class Page:
    """A metrics page of a server with two GPUs."""

    def __init__(self, *used_mib: int) -> None:
        self.used = list(used_mib)

    async def read(self) -> str:
        """The next reading."""
        used = self.used.pop(0) * MIB
        return f'nv_gpu_memory_used_bytes{{gpu_uuid="a"}} {used}\nnv_gpu_memory_used_bytes{{gpu_uuid="b"}} {100 * MIB}\n'


@pytest.mark.parametrize(
    ("declared", "taken", "needed"),
    [(100, 180, 180), (100, 60, 100), (100, 0, 100), (100, -40, 100), (100, 5000, 1000)],
    ids=["more than declared", "less", "nothing", "others gave back", "no more than there is"],
)
async def test_a_replica_is_given_the_larger_of_declared_and_measured(declared: int, taken: int, needed: int) -> None:
    server, page = agent(), Page(500, 500 + taken)
    server.product, server.memory_bytes = "L4", 1000 * MIB
    server.page = page  # type: ignore[assignment]
    one = variant(memory=declared)
    before, after = await server.used_bytes(), await server.used_bytes()
    assert before == 600 * MIB
    assert after is not None
    server.measured.learn(KEY, one, server.product, after - before)
    assert server.needed_bytes(KEY, one) == needed * MIB


def test_what_was_measured_counts_for_that_model_revision_and_product_only() -> None:
    known, one = MeasuredMemory(), variant(memory=100)
    known.learn(KEY, one, "L4", 180 * MIB)
    newer: Any = replace(one, load_revision="another")
    assert known.taken(KEY, one, "L4") == 180 * MIB
    assert known.taken(KEY, one, "H100") == known.taken(OTHER, one, "L4") == known.taken(KEY, newer, "L4") == 0
    known.learn(KEY, one, "L4", 150 * MIB)
    assert known.taken(KEY, one, "L4") == 150 * MIB


def test_a_server_has_no_room_for_what_is_measured_to_take_more() -> None:
    server, one = agent(), variant(memory=100)
    server.product, server.memory_bytes = "L4", 250 * MIB
    server.fact(OTHER).memory_bytes = 100 * MIB
    assert server.has_room(KEY, server.needed_bytes(KEY, one))
    server.measured.learn(KEY, one, "L4", 180 * MIB)
    assert not server.has_room(KEY, server.needed_bytes(KEY, one))


async def test_a_server_that_says_nothing_of_its_memory_is_not_asked() -> None:
    server = agent()
    server.page = Page()  # type: ignore[assignment]
    assert await server.used_bytes() is None


def test_growth_is_one_load_s_doing_only_where_nothing_else_began() -> None:
    weighing = Weighing()
    first = weighing.begin()
    assert weighing.was_alone(first)
    second = weighing.begin()
    assert not weighing.was_alone(first)
    assert second is None
    assert not weighing.was_alone(second)
    weighing.end()
    weighing.end()
    third = weighing.begin()
    assert weighing.was_alone(third)
