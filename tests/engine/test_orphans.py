"""Loads that an operator before this one has sent, of models that nobody wants now: they do not hold their server for ever."""

import asyncio
from typing import Any

import pytest

from ergon.engine.cached_pods import PodRecord
from ergon.engine.server import ORPHAN_SECONDS, ServerAgent
from ergon.fleet.types import ModelKey, ServerKey
from ergon.reconcile.observed import Job, JobKind, JobPhase
from ergon.triton.observed import ModelState, RepositoryState

KEY = ModelKey("team", "hangs")
LOADING = {KEY.served_name: ModelState(KEY.served_name, ("1",), RepositoryState.LOADING, "")}
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
