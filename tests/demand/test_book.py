"""The whole room as the engine and the simulator drive it: counters in, demand out."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from ergon.demand import Book, Counters, Limits, Seen, Tenant
from ergon.demand.scaling import Trigger
from ergon.fleet.types import Model, ModelKey, ServerKey
from tests.demand.things import CODE, NER, OTHER, Server, model, point, server, variant

POINTS = (point(1, 20.0), point(8, 80.0))
LIMITS = {NER: Limits()}
NOW = 1_000_000_000.0


class World:
    """A server with replicas that are driven in steps of 5 s."""

    def __init__(self, book: Book | None = None, **tenants: Tenant) -> None:
        self.book = book if book is not None else Book()
        self.now = NOW
        keys = {"ner": NER, "code": CODE, "other": OTHER}
        self.view = server({keys[name]: tenant for name, tenant in tenants.items()})
        self.replicas = {keys[name]: Server() for name in tenants}
        self.pending: dict[ModelKey, int] = {}
        self.read()

    def read(self) -> None:
        self.book.observe(self.view, {key: each.read(self.now, self.pending.get(key, 0)) for key, each in self.replicas.items()})

    def run(self, seconds: float, drive: Callable[[Mapping[ModelKey, Server]], None]) -> None:
        """Five seconds again and again, with a plan every minute."""
        for _ in range(int(seconds / 5)):
            self.now += 5
            drive(self.replicas)
            self.read()
            if self.now % 60 == 0:
                self.book.demand(self.now + 7, LIMITS)


def steady(requests: int = 100, seconds_each: float = 0.1) -> Callable[[Mapping[ModelKey, Server]], None]:
    return lambda replicas: replicas[NER].execute(requests, 8, seconds_each)


def test_demand_is_what_is_asked_for() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(1200, steady(80))
    found = world.book.demand(world.now + 7, LIMITS)[NER]
    assert found.observed == pytest.approx(16, rel=0.01)
    assert found.work_per_second == pytest.approx(16, rel=0.05)
    assert found.headroom < 1
    assert found.reason.startswith("steady at 16 work/s")
    assert (found.least_replicas, found.asleep, found.urgent) == (1, False, False)


def test_longer_requests_are_more_demand_within_two_minutes_and_stay_the_same_load() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(1200, steady(80))
    world.run(120, steady(80, 0.2))
    at_once = world.book.demand(world.now + 7, LIMITS)[NER]
    assert at_once.work_per_second > 1.5 * 16

    def share() -> float:
        demand = world.book.demand(world.now + 7, LIMITS)[NER]
        (points,) = [each.points for each in world.book.corrected(model(points=POINTS)).variants]
        return demand.p90 / max(each.work_per_second for each in points)

    world.run(1800, steady(80, 0.2))
    assert share() == pytest.approx(0.4, rel=0.15)  # 16 requests/s, eight at once in 0.2 s
    world.run(1800, steady(80, 0.2))
    assert share() == pytest.approx(0.4, rel=0.15)
    assert world.book.demand(world.now + 7, LIMITS)[NER].mean == pytest.approx(16, rel=0.1)


def test_generative_work_is_tokens_by_busy_seconds() -> None:
    tokens = tuple(replace(each, counts_tokens=True, work_per_second=each.work_per_second * 10) for each in POINTS)
    world = World(ner=Tenant(variant(tokens)))
    world.run(600, steady(80))
    assert world.book.demand(world.now + 7, LIMITS)[NER].mean == pytest.approx(0.2 * 800, rel=0.05)
    world.run(300, steady(80, 0.2))
    assert world.book.demand(world.now + 7, LIMITS)[NER].mean == pytest.approx(0.4 * 800, rel=0.1)
    assert world.book.corrected(model(points=tokens)).variants[0].points == tokens


def test_an_operator_restart_keeps_what_was_learned_and_forecast() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(3600, steady(80, 0.2))
    state = json.loads(json.dumps(world.book.to_state()))
    again = World(Book.from_state(state), ner=Tenant(variant(POINTS)))
    assert again.book.corrected(model(points=POINTS)).variants[0].points[1].work_per_second == pytest.approx(40, rel=0.1)
    assert len(json.dumps(state)) < 4000


def asked_steadily(until: float) -> dict[str, object]:
    """The state of an operator that saw 10 requests a second for two hours."""
    world = World(ner=Tenant(variant(POINTS)))
    world.run(until - NOW, steady(50))
    state: dict[str, object] = json.loads(json.dumps(world.book.to_state()))
    return state


@pytest.mark.parametrize("into_the_quarter", [20, 70, 410, 890])
def test_a_new_operator_plans_for_what_was_asked_before_it_has_read_anything(into_the_quarter: int) -> None:
    now = NOW + 7200 - NOW % 900 + into_the_quarter
    book = Book.from_state(asked_steadily(now - now % 5), now=now)
    for later in (7, 67, 127, 247):
        found = book.demand(now + later, LIMITS, all_read=False)[NER]
        assert found.mean == pytest.approx(10, rel=0.1), later
        assert 9 <= found.p90 <= 15
    assert book.demand(now + 3600, LIMITS)[NER].p90 < 9, "once all is read, nothing seen is nothing asked"


@pytest.mark.parametrize("ahead_seconds", [600, 86_400, 40 * 86_400])
def test_a_clock_that_ran_ahead_does_not_stop_the_forecast(ahead_seconds: int) -> None:
    now = NOW + 7200
    state = asked_steadily(now)
    world = World(Book.from_state(state, now=now - ahead_seconds), ner=Tenant(variant(POINTS)))
    world.now = now - ahead_seconds
    world.run(240, steady(150))
    assert world.book.demand(world.now + 7, LIMITS)[NER].p90 > 20


@pytest.mark.parametrize("state", [{}, {"version": 2}, {"version": 1, "learning": 3, "forecasts": {"x": 1, "a/b": {}}}], ids=str)
def test_a_state_that_cannot_be_read_starts_afresh(state: dict[str, object]) -> None:
    assert Book.from_state(state).demand(NOW, LIMITS)[NER].work_per_second == 0


def test_a_hot_reload_loses_nothing_but_a_moment() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(600, steady(80))
    world.replicas[NER] = Server()
    world.run(600, steady(80))
    assert world.book.demand(world.now + 7, LIMITS)[NER].p90 == pytest.approx(16, rel=0.05)


def test_lies_are_not_believed_and_do_not_last() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(600, steady(80))
    lie = Counters(world.now + 1, 10**30, -3, queue_seconds=float("nan"))
    assert world.book.observe(world.view, {NER: lie}) == {}
    assert world.book.observe(world.view, {}) == {}
    world.run(600, steady(80))
    assert world.book.demand(world.now + 7, LIMITS)[NER].p90 == pytest.approx(16, rel=0.05)


def test_counters_that_step_down_are_believed_the_third_time() -> None:
    book, view = Book(), server({NER: Tenant(variant(POINTS))})
    far = Server()
    far.execute(80_000, 8, 0.1)
    book.observe(view, {NER: far.read(NOW)})
    less = Server()
    less.execute(40_000, 8, 0.1)
    found = []
    for step in range(1, 6):
        less.execute(80, 8, 0.1)
        found.append(NER in book.observe(view, {NER: less.read(NOW + 5 * step)}))
    assert found == [False, False, False, True, True]


def test_a_replica_that_went_is_no_gap_and_a_server_that_went_no_demand() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(600, steady(80))
    world.book.server_gone(ServerKey("xeon", 0))
    for minute in range(1, 20):
        world.book.demand(world.now + 60 * minute + 7, LIMITS)
    assert world.book.demand(world.now + 1207, LIMITS)[NER].mean == pytest.approx(0, abs=0.5)


def test_a_growing_line_is_seen_within_ten_seconds() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(600, steady(80))
    assert world.book.urgent(world.now, LIMITS) == {}
    for waiting in (40, 160):
        world.pending[NER] = waiting
        world.run(5, steady(80))
    found = world.book.urgent(world.now, LIMITS)[NER]
    assert (found.trigger, found.urgent) == (Trigger.QUEUE, True)
    assert found.work_per_second > 20


def test_what_the_caller_knows_counts_too() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(300, steady(80))
    world.run(10, steady(400))
    world.book.seen(NER, Seen(unserved=10.0))
    assert world.book.urgent(world.now, LIMITS)[NER].trigger is Trigger.SHORTFALL
    world.book.seen(NER, Seen(latency_seconds=0.5, latency_target_seconds=0.2))
    assert world.book.urgent(world.now, LIMITS)[NER].trigger is Trigger.LATENCY


def test_a_sleeping_model_wakes() -> None:
    book, limits = Book(), {NER: Limits(0, can_wake=True, idle_after_seconds=60)}
    assert not book.demand(NOW, limits)[NER].asleep
    assert book.demand(NOW + 60, limits)[NER].asleep
    book.wake(NER, NOW + 61)
    assert book.urgent(NOW + 61, limits)[NER].least_replicas == 1


def test_neighbours_slow_a_model_down_without_teaching_its_points() -> None:
    world = World(ner=Tenant(variant(POINTS)), code=Tenant(variant(POINTS)))
    world.run(600, steady(80))

    def both(replicas: Mapping[ModelKey, Server]) -> None:
        replicas[NER].execute(80, 8, 0.13)
        replicas[CODE].execute(160, 8, 0.1)

    world.run(1200, both)
    assert world.book.corrected(model(points=POINTS)).variants[0].points == pytest.approx(POINTS)
    assert world.book.learning.interference("Xeon") > 0.3
    assert world.book.demand(world.now + 7, LIMITS)[NER].mean == pytest.approx(16, rel=0.15)


def test_a_forgotten_model_leaves_nothing() -> None:
    world = World(ner=Tenant(variant(POINTS)))
    world.run(300, steady(80))
    world.book.forget(NER)
    assert world.book.to_state() == Book().to_state()
    untouched: Model = model(points=POINTS)
    assert world.book.corrected(untouched) is untouched


def test_a_model_that_was_loaded_since_the_last_look_began_at_nothing_and_one_that_stood_before_us_did_not() -> None:
    book, loaded = Book(), Server()
    empty, holds = server({}), server({NER: Tenant(variant(POINTS))})
    book.observe(empty, {}, NOW)
    loaded.execute(12, 1, 0.1)
    window = book.observe(holds, {NER: loaded.read(NOW + 5)}, NOW + 5)[NER]
    assert (window.completed, window.seconds) == (12, 5)
    assert window.busy_seconds == pytest.approx(1.2)
    assert Book().observe(holds, {NER: loaded.read(NOW)}, NOW) == {}
    loaded.execute(1000, 1, 0.1)
    book.observe(empty, {}, NOW + 10)
    assert book.observe(holds, {NER: loaded.read(NOW + 15)}, NOW + 15) == {}, "more than the time since can hold"
