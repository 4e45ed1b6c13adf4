"""The small parts of the engine: comparing, stamping, queueing."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.engine.cache import Cache
from ergon.engine.compare import covers
from ergon.engine.models import keep_since
from ergon.engine.queue import KeyedQueue
from ergon.fleet.types import ServerKey

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_everything_covers_itself(value: object) -> None:
    assert covers(value, value)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=3), json_values)
def test_what_the_server_adds_is_no_difference(value: dict[str, object], added: object) -> None:
    assert covers({**value, "added-by-the-server": added}, value)


@pytest.mark.parametrize(
    ("actual", "desired"),
    [
        ({"a": 1}, {"a": 2}),
        ({}, {"a": 1}),
        ([1, 2], [1]),
        ([1], [1, 2]),
        (None, {"a": 1}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}),
    ],
)
def test_a_difference_is_seen(actual: object, desired: object) -> None:
    assert not covers(actual, desired)


def test_an_absent_list_is_an_empty_one() -> None:
    assert covers({"endpoints": None}, {"endpoints": []})
    assert covers({}, {"endpoints": []})


def test_a_placement_keeps_its_time_while_its_state_does() -> None:
    before = [{"pool": "a", "server": 0, "variant": "v", "state": "Ready", "since": "t1"}]
    same = {"pool": "a", "server": 0, "variant": "v", "state": "Ready"}
    assert keep_since([same], before, "t2")[0]["since"] == "t1"
    assert keep_since([{**same, "state": "Draining"}], before, "t2")[0]["since"] == "t2"


@pytest.mark.looptime
async def test_a_key_is_never_worked_on_twice_at_once_and_never_forgotten() -> None:
    running: set[str] = set()
    runs: list[str] = []

    async def work(key: str) -> None:
        assert key not in running
        running.add(key)
        await asyncio.sleep(1)
        running.discard(key)
        runs.append(key)

    queue: KeyedQueue[str] = KeyedQueue(work, 2, "test")
    for key in ("a", "b", "c", "a"):
        queue.add(key)
    await asyncio.sleep(0.5)
    queue.add("a")
    assert queue.depth == 3
    await asyncio.sleep(10)
    assert sorted(runs) == ["a", "a", "b", "c"]
    assert queue.depth == 0


@pytest.mark.looptime
async def test_failed_work_is_tried_again_after_growing_pauses() -> None:
    times: list[float] = []

    async def work(_: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise RuntimeError("not yet")

    queue: KeyedQueue[str] = KeyedQueue(work, 1, "test")
    queue.add("a")
    await asyncio.sleep(60)
    gaps = [round(b - a, 1) for a, b in itertools.pairwise(times)]
    assert gaps == [0.5, 1.0, 2.0]


@pytest.mark.looptime
async def test_a_failing_key_does_not_hold_up_the_others() -> None:
    done: list[str] = []

    async def work(key: str) -> None:
        if key == "bad":
            raise RuntimeError("always")
        done.append(key)

    queue: KeyedQueue[str] = KeyedQueue(work, 1, "test")
    queue.add("bad")
    queue.add("good")
    await asyncio.sleep(5)
    assert done == ["good"]
    await queue.close()


def as_shown(version: int, ready: str = "True") -> dict[str, object]:
    return {
        "metadata": {"name": "ergon-a-0", "uid": "u", "resourceVersion": str(version), "labels": {"ergon.dev/pool": "a"}},
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": ready}]},
    }


async def test_an_older_answer_never_overrules_a_newer_one() -> None:
    cache = Cache()
    cache.put("Pod", as_shown(5))
    cache.put("Pod", as_shown(4, "False"))
    assert cache.pods[ServerKey("a", 0)].ready
    cache.put("Pod", as_shown(6, "False"))
    assert not cache.pods[ServerKey("a", 0)].ready
    assert cache.uids("Pod") == {"u"}
    (gone,) = cache.missing("Pod", [])
    cache.drop("Pod", gone)
    assert cache.pods == {}


@pytest.mark.parametrize("kind", ["Node", "Namespace", "StatefulSet", "EnergyBudget", "Pod", "AcceleratorPool", "Service"])
def test_what_is_not_listed_any_more_is_missing_and_can_be_dropped(kind: str) -> None:
    cache = Cache()
    labels = {"ergon.dev/pool": "a", "ergon.dev/model": "m"}
    obj = {"metadata": {"name": "a-0", "namespace": "n", "uid": "1", "labels": labels}, "spec": {}}
    cache.put(kind, obj)
    assert cache.uids(kind) == {"1"}
    assert cache.missing(kind, [obj]) == []
    for gone in cache.missing(kind, []):
        cache.drop(kind, gone)
    assert cache.uids(kind) == set()
    held = [cache.nodes, cache.namespaces, cache.statefulsets, cache.budgets, cache.pods, cache.pools]
    assert not any(held)


def test_a_late_word_of_the_old_one_does_not_drop_the_new_one_of_its_name() -> None:
    cache = Cache()
    cache.put("Node", {"metadata": {"name": "n", "uid": "1"}})
    cache.put("Node", {"metadata": {"name": "n", "uid": "2"}})
    cache.drop("Node", {"metadata": {"name": "n", "uid": "1"}})
    assert "n" in cache.nodes
