"""The first look at a server that stands already, as a new operator takes it: not for a moment does it seem not to answer."""

import asyncio
import contextlib

import pytest

from ergon.engine.cached_pods import PodRecord
from ergon.engine.server import ServerAgent
from ergon.fleet.types import ServerKey
from ergon.reconcile.observed import ServerView
from ergon.store import ModelStore
from ergon.triton.client import TritonServer
from tests.store.conftest import certificate, rclone_program, store, volume
from tests.triton.conftest import server, triton, triton_environment

__all__ = ["certificate", "rclone_program", "server", "store", "triton", "triton_environment", "volume"]
pytestmark = pytest.mark.cluster


async def test_a_server_that_is_read_answers(triton: TritonServer, store: ModelStore) -> None:
    seen: list[ServerView] = []
    read = asyncio.Event()

    def look(_: ServerKey) -> None:
        seen.append(agent.view())
        if seen[-1].workable:
            read.set()

    agent = ServerAgent(
        pod=PodRecord(ServerKey("cpu", 0), "ergon-cpu-0", "uid", "127.0.0.1", "n", True, False, "Running", "", "", ""),
        zone="",
        node_ready=True,
        triton=triton,
        store=store,
        disk_bytes=0,
        memory_bytes=0,
        max_models=None,
        wake=lambda models: None,
        answers_changed=look,
        incoming=set,
    )
    reading = asyncio.create_task(agent.run())
    await asyncio.wait_for(read.wait(), 20)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    assert all(view.answering for view in seen if view.synced), seen
