"""A pool that this version does not understand can still be deleted, once its servers are empty."""

import asyncio

import pytest

from ergon.engine.cache import Cache, PoolRecord
from ergon.engine.pools import FINALIZER, PoolWriter
from ergon.engine.servers import Servers
from ergon.fleet.types import ModelKey, ServerKey
from ergon.kube.builders.settings import ServerSettings
from ergon.kube.client import KubeClient
from ergon.reconcile.observed import IndexState, Refusal
from ergon.reconcile.pools import RELEASED, refused_pool
from tests.engine.test_orphans import agent
from tests.kube.server import say, serving

REFUSED = Refusal("InvalidSpec", "spec.memory: 600m is no size")


async def test_a_deleted_pool_that_is_refused_is_released() -> None:
    cache = Cache()
    record = PoolRecord("edge", "uid", 1, None, None, REFUSED, {}, (FINALIZER,), deleting=True)
    cache.pools["edge"] = record
    async with serving(say(200, {})) as script, KubeClient(script.configuration()) as client:
        pools = PoolWriter(client, cache, ServerSettings(), lambda: "")
        pools.wish("edge", None, refused_pool(REFUSED), {})
        pools.wish("edge", RELEASED, refused_pool(REFUSED), {})
        async with asyncio.timeout(10):
            while record.finalizers:  # noqa: ASYNC110 - the queue tells nobody
                await asyncio.sleep(0.01)
        await pools.queue.close()
    (patch,) = [request for request in script.requests if isinstance(request.body, list)]
    assert patch.body[-1] == {"op": "add", "path": "/metadata/finalizers", "value": []}


def test_its_servers_are_emptied_first() -> None:
    servers = Servers(Cache(), lambda *_: pytest.fail("no server is connected to"), lambda _: ())
    server = agent()
    servers._agents[ServerKey("cpu", 0)] = server
    server.fact(ModelKey("team", "m")).index = IndexState.READY
    assert not servers.emptied("cpu")
    assert server.leaving == "PoolDeleted"
    server.facts.clear()
    assert servers.emptied("cpu")
    assert servers.emptied("other")
