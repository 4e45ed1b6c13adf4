"""What a fetch that failed has left on a server's disk goes with its model; what waited for room is tried again at once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ergon.engine import jobs
from ergon.engine.cached_pods import PodRecord
from ergon.engine.effects import Effects
from ergon.engine.server import ServerAgent
from ergon.fleet.types import ModelKey, ServerKey
from ergon.reconcile.observed import Failure
from ergon.store import ModelStore
from tests.store.conftest import Volume, certificate, rclone_program, store, volume

__all__ = ["certificate", "rclone_program", "store", "volume"]
pytestmark = pytest.mark.cluster

KEY, OTHER = ModelKey("team", "m"), ModelKey("team", "other")


@pytest.fixture
def agent(store: ModelStore) -> ServerAgent:
    pod = PodRecord(ServerKey("cpu", 0), "ergon-cpu-0", "uid", "127.0.0.1", "n", True, False, "Running", "", "", "")
    nothing: Any = None
    return ServerAgent(
        pod=pod,
        zone="",
        node_ready=True,
        triton=nothing,
        store=store,
        disk_bytes=1 << 20,
        memory_bytes=1 << 20,
        max_models=None,
        wake=lambda models: None,
        answers_changed=lambda server: None,
        incoming=set,
    )


def effects(changed: Callable[[ModelKey], None]) -> Effects:
    unused: Any = None
    return Effects(
        resolve=unused,
        may_act=lambda seconds: True,
        changed=changed,
        observe=unused,
        instance_kind=unused,
        tell=unused,
    )


async def test_removing_a_model_removes_what_its_fetch_had_begun(agent: ServerAgent, volume: Volume) -> None:
    (volume.models / ".incoming" / "team.m-1" / "1").mkdir(parents=True)
    facts = agent.fact(KEY)
    facts.incoming = "team.m-1"
    seen = agent.replica(KEY)
    assert seen is not None
    assert seen.has_files
    assert agent.holds_models
    await jobs.remove(agent, KEY, effects(lambda key: None))
    assert list((volume.models / ".incoming").iterdir()) == []
    assert facts.gone


async def test_room_on_the_disk_is_told_to_those_that_wait_for_it(agent: ServerAgent) -> None:
    changed: list[ModelKey] = []
    now = asyncio.get_running_loop().time()
    agent.fact(KEY).has_files = True
    agent.fact(OTHER).failure = Failure("r", "DiskFull", "full", 7, now + 300)
    await jobs.remove(agent, KEY, effects(changed.append))
    failure = agent.fact(OTHER).failure
    assert failure is not None
    assert failure.retry_at_seconds is not None
    assert failure.retry_at_seconds <= asyncio.get_running_loop().time()
    assert changed == [OTHER]
