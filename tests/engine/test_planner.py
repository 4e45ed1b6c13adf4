"""When plans are made: at once for what changed, a better one when all is quiet, and none that is out of date."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ergon.engine.cache import Cache
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.engine.fleet import RETRY_SECONDS, Planner
from ergon.engine.servers import Servers
from ergon.engine.settings import Settings
from ergon.fleet.types import Fleet, ModelKey, Replica, ServerKey
from ergon.planning import Effort, Plan, plan
from ergon.reconcile import rearranging
from ergon.reconcile.observed import IndexState
from tests.engine.test_orphans import agent
from tests.engine.world import model, pool

QUIET_SECONDS = Settings().improve_after_seconds


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def put(cache: Cache, obj: dict[str, Any], uid: str, generation: int = 1) -> None:
    obj["metadata"] |= {"uid": uid, "generation": generation, "resourceVersion": f"{generation}"}
    cache.put(obj["kind"], obj)


def echo(name: str) -> dict[str, Any]:
    return model("n", name, "file:///echo")


def made(*names: str) -> tuple[Planner, Cache, Clock]:
    """A planner of two pools, of which only the dear one has a server."""
    cache, clock = Cache(), Clock()
    servers = Servers(cache, lambda *_: pytest.fail("no server is connected to"), lambda _: ())
    put(cache, pool("dear", power={"idleWatts": 100}, servers={"min": 0, "max": 1}), "p1")
    put(cache, pool("cheap", power={"idleWatts": 10}, servers={"min": 0, "max": 0}), "p2")
    for name in names:
        put(cache, echo(name), name)
    demand = DemandKeeper(cache, clock, 0.0, plan_seconds=60, stabilise_seconds=300)
    energy = EnergyKeeper(cache, servers, clock, clock)
    return Planner(cache, servers, demand, energy, Settings(), clock, lambda *_: None), cache, clock


async def planned(planner: Planner) -> set[ModelKey]:
    planner.begin()
    return await planner.settle(30)


def where(planner: Planner, name: str) -> list[ServerKey]:
    return [replica.server for replica in planner.placements(ModelKey("n", name))]


async def test_what_changed_is_planned_at_once_and_what_is_better_when_all_is_quiet() -> None:
    planner, cache, clock = made("a")
    assert not planner.made_once
    await planned(planner)
    assert where(planner, "a") == [ServerKey("dear", 0)]
    put(cache, pool("cheap", power={"idleWatts": 10}, servers={"min": 0, "max": 1}), "p2", 2)
    await planned(planner)
    assert where(planner, "a") == [ServerKey("dear", 0)], "a change moves nothing that stands well"
    planner.begin()
    assert not planner.busy
    clock.seconds += QUIET_SECONDS
    assert await planned(planner) == {ModelKey("n", "a")}
    assert where(planner, "a") == [ServerKey("cheap", 0)]
    clock.seconds += QUIET_SECONDS
    planner.begin()
    assert not planner.busy, "what is best already is not sought again"


async def test_a_better_plan_that_comes_too_late_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    planner, cache, clock = made("a")
    await planned(planner)
    put(cache, pool("cheap", power={"idleWatts": 10}, servers={"min": 0, "max": 1}), "p2", 2)
    await planned(planner)
    go_on = threading.Event()

    def slow(fleet: Fleet, *, effort: Effort, before: Plan | None) -> Plan:
        if effort == Effort.normal():
            assert go_on.wait(30)
        return plan(fleet, effort=effort, before=before)

    monkeypatch.setattr(rearranging, "plan", slow)
    clock.seconds += QUIET_SECONDS
    planner.begin()
    assert await planner.settle(0.01) == set()
    assert planner.busy
    put(cache, echo("b"), "b")
    assert await planned(planner) == {ModelKey("n", "b")}
    assert where(planner, "a") == [ServerKey("dear", 0)]
    clock.seconds += QUIET_SECONDS
    planner.begin()
    assert not planner.busy, "one thread improves at a time"
    go_on.set()
    await planner.close()


async def test_a_planner_that_fails_keeps_the_last_plan_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    planner, cache, clock = made("a")
    await planned(planner)
    answers: list[Callable[..., Plan]] = [fail, plan]
    monkeypatch.setattr(rearranging, "plan", lambda *a, **k: answers.pop(0)(*a, **k))
    put(cache, echo("b"), "b")
    assert await planned(planner) == set()
    assert where(planner, "a") == [ServerKey("dear", 0)]
    planner.begin()
    assert not planner.busy
    clock.seconds += RETRY_SECONDS
    assert await planned(planner) == {ModelKey("n", "b")}


def fail(*_: object, **__: object) -> Plan:
    raise ArithmeticError("a bug")


def test_the_first_look_at_a_large_fleet_holds_the_loop_for_a_moment_only() -> None:
    """Nothing else is done meanwhile: no Lease is renewed and nobody is woken. Looking at 10,000 models once took 3.6 s."""
    planner, cache, _ = made("a")
    one = cache.models[ModelKey("n", "a")]
    assert one.model is not None
    cpu = [agent() for _ in range(40)]
    for ordinal, server in enumerate(cpu):
        server.pod = replace(server.pod, key=ServerKey("dear", ordinal))
    planner._servers._agents = {server.key: server for server in cpu}
    for number in range(10_000):
        key = ModelKey("n", f"m{number}")
        at = {"pool": "dear", "server": number % 40, "variant": "cpu", "state": "Ready"}
        away = {"pool": "cheap", "server": 0, "variant": "cpu", "state": "Ready"}
        cache.models[key] = replace(one, key=key, model=replace(one.model, key=key), status={"placements": [at, away]})
        facts = cpu[number % 40].fact(key)
        facts.index, facts.loaded_revision = IndexState.READY, one.model.variants[0].load_revision
    began = time.process_time()
    snapshot = planner._take_snapshot((frozenset(), frozenset()))
    took = time.process_time() - began
    print(f"{took:.2f} s")
    assert took < 1.0
    assert snapshot.current.count(Replica(ModelKey("n", "m41"), "cpu", ServerKey("dear", 1))) == 1
    assert snapshot.current.count(Replica(ModelKey("n", "m41"), "cpu", ServerKey("cheap", 0))) == 1
    assert len(snapshot.current) == 20_000
