"""A route's status is written when it says something else, not when a figure trembles."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from ergon.demand.cascade import RouteFigures
from ergon.energy.escalation import Allowed
from ergon.engine.cache import Cache
from ergon.engine.routes import RouteKeeper, RouteWriter
from ergon.fleet.types import ModelKey
from ergon.reconcile.routes import RouteModel, RouteView

KEY = ModelKey("team", "languages")
ROUTE = {
    "metadata": {"namespace": "team", "name": "languages", "uid": "u", "generation": 3, "resourceVersion": "1"},
    "spec": {"task": "language"},
}
SMALL = RouteModel("small", "language", {}, 0.8, "Ready", 0.25)
FIGURES = RouteFigures(10.0, 0.2, 0.2, 3.0)


class ApiServer:
    """As much of a client as writing statuses takes; it answers with what it was given."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    async def apply_status(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.written.append(obj["status"])
        return obj


class Events:
    """What was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def record(self, subject: dict[str, Any], level: str, reason: str, message: str) -> None:
        self.told.append((level, reason))


def course(*views: RouteView) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The statuses and events that a course of views leads to."""

    async def run() -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
        cache, api, events = Cache(), ApiServer(), Events()
        cache.put("TaskRoute", ROUTE)
        writer = RouteWriter(api, cache, events, lambda: "2026-01-01T00:00:00Z")  # type: ignore[arg-type]
        for view in views:
            writer.wish(view)
            while writer.queue.depth:  # noqa: ASYNC110 - the queue tells nobody
                await asyncio.sleep(0)
        await writer.queue.close()
        return api.written, events.told

    return asyncio.run(run())


def view(**said: Any) -> RouteView:
    record = Cache()
    record.put("TaskRoute", ROUTE)
    base = RouteView(KEY, record.routes[KEY].spec, models=(SMALL,), fallbacks={"languages": None}, figures=FIGURES)
    return replace(base, **said)


def test_figures_that_tremble_write_nothing() -> None:
    near = RouteFigures(10.9, 0.21, 0.22, 3.2)
    written, told = course(view(), view(figures=near, models=(replace(SMALL, joules=0.27),)), view())
    assert len(written) == 1
    assert written[0]["observedGeneration"] == 3
    assert told == []


def test_figures_that_change_much_are_written() -> None:
    written, _ = course(view(), view(figures=RouteFigures(20.0, 0.5, 0.5, 6.0)))
    assert [status["escalationRate"] for status in written] == [0.2, 0.5]


def test_what_is_written_anyway_is_written_with_figures_of_now() -> None:
    near = RouteFigures(10.9, 0.21, 0.22, 3.2)
    lowered = [Allowed(rate, "site", f"{rate:.0%} may escalate") for rate in (0.3, 0.25)]
    written, _ = course(view(allowed=lowered[0]), view(allowed=lowered[1], figures=near))
    assert [status["escalationRate"] for status in written] == [0.2, 0.21]
    full = [next(c for c in status["conditions"] if c["type"] == "FullEscalation") for status in written]
    assert [each["message"] for each in full] == ["30% may escalate", "25% may escalate"]


def test_who_is_asked_is_written_at_once_and_told_where_nobody_is_left() -> None:
    asleep, down = replace(SMALL, state="Asleep"), replace(SMALL, state="NotReady")
    written, told = course(view(), view(models=(asleep,)), view(models=(down,)), view())
    assert [status["candidates"][0]["state"] for status in written] == ["Ready", "Asleep", "NotReady", "Ready"]
    assert told == [("Normal", "Asleep"), ("Warning", "NoModelReady"), ("Normal", "Ready")]


def test_a_route_that_is_there_before_its_models_warns_nobody() -> None:
    _, told = course(view(models=()), view())
    assert told == [("Normal", "Ready")]
    _, told = course(view(gateway=False))
    assert ("Warning", "NoGateway") in told


def test_a_route_that_is_gone_is_not_written() -> None:
    async def run() -> int:
        cache, api = Cache(), ApiServer()
        writer = RouteWriter(api, cache, Events(), lambda: "")  # type: ignore[arg-type]
        writer.wish(view())
        writer.forget(KEY)
        await writer.queue.close()
        return len(api.written)

    assert asyncio.run(run()) == 0


def cluster(models: int, routes: int) -> Cache:
    """A namespace with so many models of one task, and one of another."""
    cache = Cache()
    pool = {"accelerator": {"class": "cpu"}, "memory": "8Gi", "servers": {"min": 1, "max": 1}}
    cache.put("AcceleratorPool", {"metadata": {"name": "p", "uid": "p", "generation": 1}, "spec": pool})
    for number in range(models + 1):
        variant = {"name": "v", "accelerators": ["cpu"], "backend": "python", "source": {"uri": "file:///m"}, "memory": "1Mi"}
        metadata = {"namespace": "team", "name": f"m{number}", "uid": f"m{number}", "generation": 1, "resourceVersion": "1"}
        spec = {"task": "language" if number < models else "other", "variants": [variant]}
        cache.put("SpecializedModel", {"metadata": metadata, "spec": spec})
    for number in range(routes):
        metadata = {"namespace": "team", "name": f"r{number}", "uid": f"r{number}", "generation": 1, "resourceVersion": "1"}
        cache.put("TaskRoute", {"metadata": metadata, "spec": {"task": "language"}})
    assert all(record.model is not None for record in cache.models.values())
    assert cache.pools["p"].pool is not None
    return cache


def keeper_of(
    cache: Cache, placements: Callable[[ModelKey], tuple[()]], clock: Callable[[], float] = time.monotonic
) -> RouteKeeper:
    """A keeper of routes whose models were never asked for anything."""
    return RouteKeeper(
        cache,
        SimpleNamespace(placements=placements),  # type: ignore[arg-type]
        SimpleNamespace(asleep=lambda key: False),  # type: ignore[arg-type]
        SimpleNamespace(model=lambda key: None, verdict=lambda name: None),  # type: ignore[arg-type]
        "gateway",
        lambda: True,
        lambda key: 0,
        lambda key, seconds: None,
        clock,
    )


def test_a_new_operator_says_of_a_lowered_route_what_the_one_before_it_said() -> None:
    cache, key = cluster(1, 1), ModelKey("team", "r0")
    message = "budget site.a gives way: 40% may escalate, of 100%; quality 0.8 of 0.7"
    condition = {"type": "FullEscalation", "status": "False", "reason": "LoweredByBudget", "message": message}
    cache.routes[key].status = {"allowedRate": 0.4, "conditions": [condition]}
    keeper = keeper_of(cache, lambda key: ())
    assert keeper.look()(cache.routes[key]).allowed == Allowed(0.4, "site.a", message)
    cache.routes[key].status = {"allowedRate": 1.0}  # whatever is written meanwhile
    assert keeper.look()(cache.routes[key]).allowed == Allowed(0.4, "site.a", message)


def test_a_look_at_many_routes_reckons_every_model_once() -> None:
    cache, asked = cluster(300, 100), list[ModelKey]()

    def placements(key: ModelKey) -> tuple[()]:
        asked.append(key)
        return ()

    keeper = keeper_of(cache, placements)
    began, view = time.process_time(), keeper.look()
    views = [view(record) for record in cache.routes.values()]
    assert time.process_time() - began < 1.0
    assert [len(each.models) for each in views] == [300] * 100
    assert sorted(asked) == sorted(ModelKey("team", f"m{number}") for number in range(300))
    keeper.look()(next(iter(cache.routes.values())))
    assert len(asked) == 600  # another look sees what is so by then


@pytest.mark.looptime
async def test_an_error_in_one_route_ends_neither_the_others_nor_the_rounds(caplog: pytest.LogCaptureFixture) -> None:
    cache, asked = cluster(1, 3), list[ModelKey]()
    spec = cache.routes[ModelKey("team", "r1")].spec
    assert spec is not None
    cache.routes[ModelKey("team", "r1")].spec = spec.model_copy(update={"escalation": None})  # as a bug would leave it

    def placements(key: ModelKey) -> tuple[()]:
        asked.append(key)
        return ()

    keeper = keeper_of(cache, placements, asyncio.get_running_loop().time)
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(keeper.scrape(session))
        await asyncio.sleep(200)
        assert not task.done()
        task.cancel()
    for name in ("r0", "r2"):
        assert keeper.look()(cache.routes[ModelKey("team", name)]).allowed == Allowed(1.0)
    assert caplog.text.count("what may escalate of route team/r1 could not be told") == 3
