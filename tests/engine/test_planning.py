"""The planner on real servers: models go to the next best pool and come back, emptied servers go, a limit sheds and says so."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.engine.askers import Askers
from tests.engine.world import World, model, pool, until, write_model

pytestmark = pytest.mark.cluster

SECONDS = 90.0


@pytest.fixture(autouse=True, scope="module")
def operator_that_improves_soon(running: World) -> Iterator[None]:
    """An operator that seeks better places after 5 s of quiet; afterwards one that waits a minute, as by default."""
    for operator in running.operators:
        if operator.process.poll() is None:
            operator.stop()
    soon = running.operator("--improve-after=5")
    soon.leads()
    yield
    soon.stop()


@contextmanager
def pools(world: World, **specs: dict[str, Any]) -> Iterator[None]:
    """Pools of the test's own, told apart from others by the label `test`; all gone afterwards."""
    for name, spec in specs.items():
        world.apply(pool(name, **{"drainTimeout": "15s", **spec}))
        world.kubectl("label", "ap", name, "test=planning")
    try:
        yield
    finally:
        world.kubectl("delete", "ap", *specs, "--wait=false")
        until(lambda: all(world.get("ap", name) is None for name in specs), "the pools gone", SECONDS)


@contextmanager
def echoes(world: World, namespace: str, *names: str, **spec: Any) -> Iterator[None]:
    """Models that echo, on the test's own pools; gone afterwards."""
    uri = write_model(world.cluster.models, f"{namespace}-echo")
    selected = {"pools": {"matchLabels": {"test": "planning"}}}
    world.apply(*(model(namespace, name, uri, **selected, **spec) for name in names))
    try:
        yield
    finally:
        world.kubectl("delete", "sm", "-n", namespace, "--all", "--ignore-not-found")


def stand(world: World, namespace: str, name: str) -> list[str]:
    """The pools of a model's replicas."""
    return [p["pool"] for p in world.model(namespace, name).get("status", {}).get("placements", [])]


def running(world: World, name: str) -> int:
    """Servers that a pool should have."""
    return int((world.get("ap", name) or {}).get("status", {}).get("servers", {}).get("desired", -1))


def test_what_finds_no_room_goes_to_the_next_best_pool_and_comes_back(world: World) -> None:
    thrifty = {"power": {"idleWatts": 10}, "maxModels": 2, "servers": {"min": 0, "max": 1}}
    costly = {"power": {"idleWatts": 100}, "maxModels": 1, "servers": {"min": 0, "max": 1}}
    with world.namespace() as ns, pools(world, thrifty=thrifty, costly=costly), echoes(world, ns, "a", "b", "c"):
        for name in "abc":
            world.ready(ns, name, SECONDS)
        on = {name: stand(world, ns, name)[0] for name in "abc"}
        assert sorted(on.values()) == ["costly", "thrifty", "thrifty"]
        spilled = next(name for name in on if on[name] == "costly")
        verdicts = {a["pool"]: a["reason"] for a in world.model(ns, spilled)["status"]["alternatives"]}
        assert verdicts["thrifty"] == "NoRoom"
        with world.clients(ns, spilled) as clients:
            world.kubectl("delete", "sm", next(name for name in on if name != spilled), "-n", ns)
            until(lambda: world.endpoints(ns, spilled) == ["ergon-thrifty-0"], "the spilled model coming back", SECONDS)
        clients.assert_unharmed()
        until(lambda: running(world, "costly") == 0, "the emptied pool without servers", SECONDS)
        until(lambda: world.get("pod", "ergon-costly-0", "-n", "ergon-system") is None, "its pod gone", SECONDS)


def test_an_idle_model_gives_its_memory_to_one_that_matters_more_and_comes_back(world: World) -> None:
    """A server of 80 MiB holds one of two models of 50: the more important one as soon as it is there, and as long."""
    small = {"memory": "80Mi", "servers": {"min": 1, "max": 1}}
    with world.namespace() as ns, pools(world, small=small), echoes(world, ns, "idle", priority=10):
        world.ready(ns, "idle", SECONDS)
        uri = write_model(world.cluster.models, f"{ns}-echo")
        world.apply(model(ns, "vital", uri, pools={"matchLabels": {"test": "planning"}}, priority=900))
        world.ready(ns, "vital", SECONDS)
        assert world.endpoints(ns, "vital") == ["ergon-small-0"]
        until(lambda: stand(world, ns, "idle") == [] and world.endpoints(ns, "idle") == [], "the idle one gone", SECONDS)
        verdicts = {a["pool"]: a["reason"] for a in world.model(ns, "idle")["status"]["alternatives"]}
        assert verdicts["small"] == "NoRoom"
        world.kubectl("delete", "sm", "vital", "-n", ns)
        world.ready(ns, "idle", SECONDS)
        assert world.endpoints(ns, "idle") == ["ergon-small-0"]


def test_more_models_than_move_at_once_are_rearranged_by_stages_and_nobody_who_asks_notices(world: World) -> None:
    """Ten at a time, each loaded at its new place before it leaves the old one; asked through the Gateway all the while."""
    names = [f"m{number:02}" for number in range(14)]
    roomy = {"memory": "2Gi", "servers": {"min": 0, "max": 1}}
    dear, closed = {**roomy, "power": {"idleWatts": 100}}, {**roomy, "power": {"idleWatts": 10}, "servers": {"min": 0, "max": 0}}
    with world.namespace() as ns, pools(world, dear=dear, thrifty=closed), echoes(world, ns, *names):
        for name in names:
            world.ready(ns, name, SECONDS)
        with ExitStack() as clients:
            steady = {name: clients.enter_context(Askers(world, ns, name, clients=1, rate=4)) for name in names}
            for client in steady.values():
                client.begun()
            world.kubectl("patch", "ap", "thrifty", "--type=merge", "-p", '{"spec":{"servers":{"max":1}}}')
            until(lambda: {p for name in names for p in stand(world, ns, name)} == {"thrifty"}, "all on the other pool", 240)
            until(lambda: running(world, "dear") == 0, "the emptied pool without servers", SECONDS)
        assert {name: client.failed for name, client in steady.items() if client.failed} == {}
        assert min(client.answered for client in steady.values()) > 10


def test_a_watt_limit_sheds_the_least_important_and_says_so(world: World) -> None:
    spec = {"power": {"idleWatts": 100, "offDelay": "0s"}, "maxModels": 1, "servers": {"min": 0, "max": 2}}
    budget = {"apiVersion": "ergon.dev/v1alpha1", "kind": "EnergyBudget", "metadata": {"name": "tight"}}
    scope = {"pools": {"matchLabels": {"test": "planning"}}}
    with world.namespace() as ns, pools(world, limited=spec), echoes(world, ns, "vital", priority=900):
        world.ready(ns, "vital", SECONDS)
        with echoes(world, ns, "spare", priority=10):
            world.ready(ns, "spare", SECONDS)
            try:
                shedding = {**scope, "shedBelowPriority": 100}
                world.apply({**budget, "spec": {**shedding, "limits": {"watts": 120}}})
                condition = world.reason(ns, "spare", "ShedByBudget", 30)
                assert condition["status"] == "False"
                assert world.endpoints(ns, "vital") == ["ergon-limited-0"]
                until(lambda: f"no watts are left for {ns}/spare" in within(world)["message"], "who was shed, by name", 30)
                assert within(world)["reason"] in ("GivingWay", "OverLimit")  # the latter until a minute is over
                world.apply({**budget, "spec": {**shedding, "limits": {"watts": 1000}}})
                world.ready(ns, "spare", SECONDS)
                until(lambda: within(world)["reason"] == "WithinLimit", "the budget being held", 30)
            finally:
                world.kubectl("delete", "ebud", "tight", "--ignore-not-found")


def test_what_is_protected_is_served_though_it_takes_more_than_the_limit(world: World) -> None:
    spec = {"power": {"idleWatts": 100, "offDelay": "0s"}, "servers": {"min": 0, "max": 1}}
    budget = {"apiVersion": "ergon.dev/v1alpha1", "kind": "EnergyBudget", "metadata": {"name": "tight"}}
    scope = {"pools": {"matchLabels": {"test": "planning"}}, "limits": {"watts": 50}}
    with world.namespace() as ns, pools(world, limited=spec), echoes(world, ns, "vital", priority=900):
        world.ready(ns, "vital", SECONDS)
        try:
            world.apply({**budget, "spec": scope})
            found = until(lambda: feasible(world) if feasible(world).get("status") == "False" else None, "the excess said", 60)
            assert found["reason"] == "ProtectedDemand"
            assert "they are served all the same" in found["message"]
            assert world.endpoints(ns, "vital") == ["ergon-limited-0"]
        finally:
            world.kubectl("delete", "ebud", "tight", "--ignore-not-found")


def within(world: World) -> dict[str, str]:
    """Whether a budget is met, and who gives way for it."""
    return {"message": "", "reason": "", **world.condition(world.get("ebud", "tight") or {}, "WithinBudget")}


def feasible(world: World) -> dict[str, str]:
    """Whether what is protected fits the budget."""
    return world.condition(world.get("ebud", "tight") or {}, "Feasible")
