"""What agents learn of their pools and pods after they were made."""

from dataclasses import fields, replace
from typing import Any

from ergon.api.parse import parse_pool
from ergon.engine.cache import Cache
from ergon.engine.cached_pods import PodRecord
from ergon.engine.server import ServerAgent
from ergon.engine.servers import Servers
from ergon.fleet.types import ModelKey, ServerKey
from ergon.kube.builders import template_hash
from ergon.kube.keys import KeyMaterial
from tests.engine.test_orphans import agent
from tests.engine.world import pool

MIB = 2**20
GPU = {"accelerator": {"class": "gpu"}, "power": {"idleWatts": 1}}


def put(cache: Cache, generation: int, **spec: Any) -> str:
    """The pool as it is edited; the hash of its template."""
    obj = {**pool("cpu", **spec), "metadata": {"name": "cpu", "uid": "p", "generation": generation}}
    obj["metadata"]["resourceVersion"] = str(generation)
    cache.put("AcceleratorPool", obj)
    parsed: Any = parse_pool(obj)
    return template_hash(parsed)


def following(cache: Cache, pod_hash: str) -> tuple[Servers, Any]:
    """Servers with one agent, whose pod has that template."""
    unused: Any = None
    servers, one = Servers(cache, unused, lambda _: ()), agent()
    one.pod = cache.pods[ServerKey("cpu", 0)] = replace(one.pod, template_hash=pod_hash)
    one.memory_bytes = 100 * MIB
    servers._agents = {one.key: one}
    return servers, one


def test_a_pool_whose_memory_is_edited_has_that_much_room_at_once() -> None:
    cache = Cache()
    servers, server = following(cache, put(cache, 1, memory="100Mi", **GPU))
    servers.follow(cache, {})
    assert not server.has_room(ModelKey("n", "m"), 150 * MIB)
    put(cache, 2, memory="200Mi", **GPU)
    servers.follow(cache, {})
    assert server.has_room(ModelKey("n", "m"), 150 * MIB)
    put(cache, 3, memory="200Mi", maxModels=1, **GPU)
    server.fact(ModelKey("n", "other")).memory_bytes = MIB
    servers.follow(cache, {})
    assert not server.has_room(ModelKey("n", "m"), 1)


def test_a_pod_of_an_older_template_has_the_memory_that_it_was_made_with() -> None:
    cache = Cache()
    servers, server = following(cache, put(cache, 1, memory="100Mi"))
    new = put(cache, 2, memory="200Mi")  # of class cpu, where that is the pod's own limit
    servers.follow(cache, {})
    assert server.memory_bytes == 100 * MIB
    server.pod = cache.pods[server.key] = replace(server.pod, template_hash=new)
    servers.follow(cache, {})
    assert server.memory_bytes == 200 * MIB


async def test_a_server_that_refuses_old_keys_is_asked_again_with_the_pool_s_present_ones() -> None:
    """A container that is started again takes them from the Secret, while its pod stays the same."""
    old = KeyMaterial("old", "user", "password", "certificate", "private")
    new, cache = replace(old, admin_key="new"), Cache()
    asked: list[KeyMaterial] = []

    class Quiet(ServerAgent):
        async def run(self) -> None:
            """It is never read."""

        async def close(self) -> None:
            """It has no connections."""

    def connect(pod: PodRecord, zone: str, node_ready: bool, keys: KeyMaterial) -> ServerAgent:
        asked.append(keys)
        given = {f.name: getattr(agent(), f.name) for f in fields(ServerAgent) if f.init and not f.name.startswith("_")}
        return Quiet(**{**given, "keys": keys, "pod": pod})

    servers = Servers(cache, connect, lambda _: ())
    cache.pods[ServerKey("cpu", 0)] = agent().pod
    servers.follow(cache, {"cpu": old})
    servers.follow(cache, {"cpu": new})
    assert asked == [old], "it answers to the old ones"
    (one,) = servers.all()
    one.refused = True
    servers.follow(cache, {"cpu": new})
    assert asked == [old, new]
    await servers.close()
