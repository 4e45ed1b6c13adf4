"""The first look at a server that stands already, as a new operator takes it: not for a moment does it seem not to answer."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from ergon.fleet.types import ServerKey
from ergon.reconcile.observed import ServerView
from ergon.store import ModelStore
from ergon.triton.client import TritonServer
from tests.engine.test_orphans import agent
from tests.store.conftest import certificate, rclone_program, store, volume
from tests.triton.conftest import server, triton, triton_environment

__all__ = ["certificate", "rclone_program", "server", "store", "triton", "triton_environment", "volume"]
pytestmark = pytest.mark.cluster


async def test_a_server_that_is_read_answers(triton: TritonServer, store: ModelStore) -> None:
    seen: list[ServerView] = []
    read = asyncio.Event()

    def look(_: ServerKey) -> None:
        seen.append(looked_at.view())
        if seen[-1].workable:
            read.set()

    looked_at = replace(agent(), triton=triton, store=store, answers_changed=look)
    reading = asyncio.create_task(looked_at.run())
    await asyncio.wait_for(read.wait(), 20)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    assert all(view.answering for view in seen if view.synced), seen
