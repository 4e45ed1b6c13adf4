"""Replicas that move: a model leaves its server, a node is cordoned; nobody who asks is refused meanwhile."""

import pytest

from tests.engine.world import World, model, pool, until, write_model

pytestmark = pytest.mark.cluster


def test_a_model_moved_to_another_pool_refuses_nobody(world: World) -> None:
    with world.namespace() as ns:
        world.apply(pool("other", drainTimeout="60s"))
        world.kubectl("label", "ap", "other", "side=right")
        world.kubectl("label", "ap", "cpu", "side=left", "--overwrite")
        uri = write_model(world.cluster.models, f"{ns}-echo")
        world.apply(model(ns, "echo", uri, pools={"matchLabels": {"side": "left"}}))
        world.ready(ns, "echo")
        with world.clients(ns, "echo") as clients:
            world.apply(model(ns, "echo", uri, pools={"matchLabels": {"side": "right"}}))
            until(lambda: world.endpoints(ns, "echo") == ["ergon-other-0"], "traffic going to the other pool", 60)
        clients.assert_unharmed()
        world.kubectl("delete", "sm", "echo", "-n", ns)
        world.kubectl("delete", "ap", "other", "--wait=false")
        until(lambda: world.get("ap", "other") is None, "the pool gone", 60)


def test_a_drain_that_a_client_outstays_is_told(world: World) -> None:
    """A kept-alive connection through a ClusterIP stays where it is: at drainTimeout the replica goes, and an event says so."""
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo"), replicas=1))
        world.ready(ns, "echo")
        with world.clients(ns, "echo"):
            world.kubectl("scale", "sm/echo", "-n", ns, "--replicas=0")

            def told() -> bool:
                events = world.get("events", "-n", ns) or {"items": []}
                return any(e["reason"] == "DrainTimedOut" and "requests still came" in e["message"] for e in events["items"])

            until(told, "the event", 30)


def test_a_cordoned_node_is_emptied_before_its_pod_goes(world: World) -> None:
    with world.namespace() as ns:
        world.apply(pool("wide", drainTimeout="60s", servers={"min": 1, "max": 2}))
        world.kubectl("label", "ap", "wide", "side=wide")
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo"), pools={"matchLabels": {"side": "wide"}}))
        world.ready(ns, "echo", 90)
        pod = world.get("pod", "ergon-wide-0", "-n", "ergon-system") or {}
        node = pod["spec"]["nodeName"]
        try:
            with world.clients(ns, "echo") as clients:
                world.kubectl("cordon", node)
                until(lambda: world.endpoints(ns, "echo") == ["ergon-wide-1"], "traffic on a server elsewhere", 60)
            clients.assert_unharmed()

            def replaced() -> bool:
                held = world.get("pod", "ergon-wide-0", "-n", "ergon-system")
                return held is None or held["metadata"]["uid"] != pod["metadata"]["uid"]

            until(replaced, "the emptied pod gone from its node", 90)
            assert world.ask(ns, "echo") == 42
        finally:
            world.kubectl("uncordon", node)
            world.kubectl("delete", "sm", "echo", "-n", ns)
            world.kubectl("delete", "ap", "wide", "--wait=false")
        until(lambda: world.get("ap", "wide") is None, "the pool gone", 60)
