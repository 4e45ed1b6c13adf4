"""A store's disk that is too small: who does not fit is told so in figures, and comes by itself once there is room."""

import time

import pytest

from tests.engine.world import World, model, pool, until, write_model

pytestmark = pytest.mark.cluster

WEIGHTS_BYTES = 3 << 20


def write_heavy(world: World, name: str) -> str:
    """A model directory of 3 MiB."""
    uri = write_model(world.cluster.models, name)
    (world.cluster.models / name / "1" / "weights").write_bytes(b"\1" * WEIGHTS_BYTES)
    return uri


def test_a_model_too_big_for_the_store_says_so_and_comes_when_another_one_goes(world: World) -> None:
    small = pool("small", disk="5Mi", servers={"min": 1, "max": 1}, power={"idleWatts": 1})
    small["metadata"]["labels"] = {"size": "small"}
    on_small = {"pools": {"matchLabels": {"size": "small"}}}
    world.apply(small)
    with world.namespace() as ns:
        uri = write_heavy(world, f"{ns}-heavy")
        world.apply(model(ns, "first", uri, **on_small))
        world.ready(ns, "first", 90)
        world.apply(model(ns, "second", uri, **on_small))
        condition = world.reason(ns, "second", "DiskFull")
        assert condition["status"] == "False"
        assert f"file:///{ns}-heavy has 3.0 MiB, the store of small-0 has 2.0 MiB left" in condition["message"], condition
        assert world.condition(world.model(ns, "second"), "Stalled")["reason"] == "DiskFull"
        assert world.ask(ns, "first") == 42
        world.kubectl("delete", "sm", "first", "-n", ns)
        began = time.monotonic()
        world.ready(ns, "second", 20)
        print(f"DiskFull is over {time.monotonic() - began:.1f} s after another model was deleted")
        assert world.ask(ns, "second") == 42
        world.kubectl("delete", "ap", "small", "--wait=false")
        until(lambda: world.get("ap", "small") is None, "the pool gone", 60)
