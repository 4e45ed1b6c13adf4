"""What the pool's story is told of its pods: who holds models that serve, and since when a pod is down."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ergon.engine.cache import Cache
from ergon.engine.pods import Pods
from ergon.engine.server import ServerAgent
from ergon.engine.servers import Servers
from ergon.fleet.types import ModelKey, ServerKey
from ergon.kube.keys import KeyMaterial
from ergon.reconcile.observed import IndexState
from ergon.reconcile.pools import AWAY_SECONDS, DOWN_SECONDS, PodView
from tests.engine.test_orphans import agent
from tests.engine.world import pool

SERVER = ServerKey("cpu", 0)


class Seen:
    """A pool with one pod on a cordoned node, its agent, and what is seen of it."""

    def __init__(self) -> None:
        self.cache, self.agent = Cache(), agent()
        unused: Any = None
        self.servers = Servers(self.cache, unused, lambda _: ())
        self.agent.synced = self.agent.answering = True
        self.agent.fact(ModelKey("n", "m")).index = IndexState.READY
        self.cache.put("AcceleratorPool", {**pool(), "metadata": {"name": "cpu", "uid": "p"}})
        self.cache.put("Node", {"metadata": {"name": "n", "uid": "n"}, "spec": {"unschedulable": True}})
        self.cache.pods[SERVER] = self.agent.pod
        self.known(self.agent)
        self.keys: dict[str, KeyMaterial] = {}
        self.pods = Pods(self.cache, self.servers, (), self.keys, asyncio.get_running_loop().time)

    def known(self, agent: ServerAgent | None) -> None:
        """Have the server an agent, or none."""
        self.servers._agents = {SERVER: agent} if agent is not None else {}

    def pod(self, **changes: Any) -> PodView:
        """The pod, with that changed."""
        self.cache.pods[SERVER] = replace(self.cache.pods[SERVER], **changes)
        (found,) = self.pods.of(self.cache.pools["cpu"])
        return found


@pytest.mark.looptime
async def test_a_pod_that_is_not_ready_while_its_triton_answers_holds_its_models() -> None:
    """After an outage of the API server every pod is marked not Ready, and one whose store restarts is for some seconds."""
    seen = Seen()
    assert seen.pod().occupied
    assert seen.pod(ready=False).occupied
    await asyncio.sleep(10 * DOWN_SECONDS)
    later = seen.pod()
    assert later.cordoned
    assert later.occupied
    assert later.down_seconds == 0


@pytest.mark.looptime
async def test_a_pod_is_given_up_once_it_has_been_silent_for_long() -> None:
    seen = Seen()
    seen.agent.answering = False
    assert seen.pod(ready=False).occupied
    await asyncio.sleep(DOWN_SECONDS - 1)
    assert seen.pod().occupied
    seen.agent.answering = True
    assert seen.pod().down_seconds == 0
    seen.agent.answering = False
    assert seen.pod().down_seconds == 0
    await asyncio.sleep(DOWN_SECONDS)
    assert not seen.pod().occupied


@pytest.mark.looptime
async def test_a_pod_is_back_only_from_having_been_away() -> None:
    seen = Seen()
    assert seen.pod().back_seconds is None
    for away, back in ((AWAY_SECONDS - 1, None), (AWAY_SECONDS, 7.0)):
        seen.agent.answering = False
        seen.pod(ready=False)
        await asyncio.sleep(away)
        assert not seen.pod().up
        assert seen.pod().down_seconds == away
        seen.agent.answering = True
        assert seen.pod().up
        await asyncio.sleep(7)
        assert seen.pod().back_seconds == back


@pytest.mark.looptime
async def test_a_pod_that_starts_or_ends_holds_nothing_and_is_not_down() -> None:
    seen = Seen()
    seen.known(None)
    assert not seen.pod(ready=False, phase="Pending").occupied
    await asyncio.sleep(10 * DOWN_SECONDS)
    assert seen.pod().down_seconds == 0, "an image may take long to come"
    assert seen.pod(problem="0/3 nodes are available", unscheduled_since="t").down_seconds == 0
    await asyncio.sleep(1)
    assert seen.pod().down_seconds == 0, "a node may take long to come"
    assert seen.pod().unscheduled_seconds == 1
    assert seen.pod(problem="container triton: ImagePullBackOff", unscheduled_since="").down_seconds == 0
    await asyncio.sleep(1)
    assert seen.pod().down_seconds == 1
    assert seen.pod(phase="Running", problem="").occupied, "a new operator has not looked at it yet"
    assert not seen.pod(deleting=True).occupied


@pytest.mark.looptime
async def test_a_pod_has_old_keys_once_the_secret_has_others() -> None:
    seen = Seen()
    seen.agent.keys = KeyMaterial("key", "user", "password", "certificate", "private")
    assert not seen.pod().old_keys
    seen.keys["cpu"] = seen.agent.keys
    assert not seen.pod().old_keys
    seen.keys["cpu"] = replace(seen.agent.keys, admin_key="another")
    assert seen.pod().old_keys


@pytest.mark.looptime
async def test_a_pod_that_does_not_know_its_pool_s_key_is_replaced_though_nobody_can_say_what_it_holds() -> None:
    seen = Seen()
    seen.agent.synced = seen.agent.answering = False
    seen.agent.refused = True
    assert seen.pod().old_keys
    assert seen.pod().occupied, "others are brought up first"
    await asyncio.sleep(DOWN_SECONDS)
    assert not seen.pod().occupied
