"""Loads and unloads that do not end, and that nobody waits for any more: they do not hold their server for ever."""

import asyncio
from typing import Any

import pytest

from ergon.engine import jobs
from ergon.engine.cached_pods import PodRecord
from ergon.engine.effects import Effects, MemoryFull
from ergon.engine.server import ORPHAN_SECONDS, STUCK_SECONDS, ServerAgent
from ergon.fleet.types import ModelKey, ServerKey
from ergon.reconcile.observed import Drain, Job, JobKind, JobPhase
from ergon.triton.observed import ModelState, RepositoryState
from tests.planning.test_planner import variant

KEY = ModelKey("team", "hangs")
LOADING = {KEY.served_name: ModelState(KEY.served_name, ("1",), RepositoryState.LOADING, "")}
UNLOADING = {KEY.served_name: ModelState(KEY.served_name, ("1",), RepositoryState.UNLOADING, "")}
UNAVAILABLE = {KEY.served_name: ModelState(KEY.served_name, ("1",), RepositoryState.UNAVAILABLE, "unloaded")}


def agent() -> ServerAgent:
    pod = PodRecord(ServerKey("cpu", 0), "ergon-cpu-0", "uid", "127.0.0.1", "n", True, False, "Running", "", "", "")
    unused: Any = None
    return ServerAgent(
        pod=pod,
        zone="",
        node_ready=True,
        triton=unused,
        store=unused,
        disk_bytes=0,
        memory_bytes=0,
        max_models=None,
        wake=lambda models: None,
        answers_changed=lambda server: None,
        incoming=set,
    )


@pytest.mark.looptime
async def test_a_load_that_nobody_waits_for_does_not_hold_its_server() -> None:
    server = agent()
    await server._take_index(LOADING)
    assert server.holds_models
    await asyncio.sleep(ORPHAN_SECONDS + 1)
    await server._take_index(LOADING)
    assert not server.holds_models
    assert server.hung_loads == 1
    await server._take_index(LOADING)
    assert server.hung_loads == 1
    await server._take_index(UNAVAILABLE)
    assert server.hung_loads == 0
    assert KEY not in server.facts


@pytest.mark.looptime
async def test_a_load_with_a_job_of_ours_is_judged_by_its_job() -> None:
    server = agent()
    server.fact(KEY).job = Job(JobKind.BRING_UP, "r", JobPhase.LOADING)
    for _ in range(3):
        await server._take_index(LOADING)
        await asyncio.sleep(ORPHAN_SECONDS)
    assert server.hung_loads == 0
    assert server.holds_models


@pytest.mark.looptime
async def test_an_unload_that_does_not_end_does_not_hold_its_server() -> None:
    server = agent()
    facts = server.fact(KEY)
    facts.has_files, facts.job = True, Job(JobKind.UNLOAD, "", JobPhase.QUEUED)
    facts.drain = Drain(0, 0, 0)
    await server._take_index(UNLOADING)
    await asyncio.sleep(STUCK_SECONDS + 1)
    await server._take_index(UNLOADING)
    assert server.holds_models, "a job of ours waits for it"
    facts.job = None
    for holds in (True, False):
        await server._take_index(UNLOADING)
        assert server.holds_models == holds
        await asyncio.sleep(STUCK_SECONDS + 1)
    assert facts.drain is None, "nothing is on its way any more"
    assert server.hung_loads == 0, "it holds none of Triton's load threads"
    await server._take_index(UNAVAILABLE)
    assert server.holds_models, "its files are there"
    assert not facts.stuck


@pytest.mark.looptime
async def test_who_waits_for_memory_that_only_a_new_pod_frees_is_told_so() -> None:
    server, other = agent(), ModelKey("team", "other")
    server.memory_bytes = 140 << 20
    server.fact(KEY).memory_bytes = server.fact(other).memory_bytes = 60 << 20
    server.fact(KEY).stuck = True
    unused: Any = None
    effects = Effects(unused, unused, lambda key: None, unused, unused, unused)
    waiting, new = ModelKey("team", "new"), variant(memory=90)
    reserving = asyncio.create_task(jobs._reserve(server, waiting, new, server.fact(waiting), effects))
    await asyncio.sleep(600)
    assert not reserving.done(), "another model, which may leave, is in the way too"
    server.fact(other).memory_bytes = 0
    with pytest.raises(MemoryFull, match=r"team/hangs holds memory of cpu-0 .*kubectl delete pod ergon-cpu-0"):
        await reserving
