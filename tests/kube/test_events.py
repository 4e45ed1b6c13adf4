"""Events: counted when they repeat, bounded by object, and never in the way of what happens."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ergon.kube.client import KubeClient
from ergon.kube.events import EventRecorder
from ergon.kube.pace import Pace
from tests.kube.server import Request, say, serving, status

MODEL = {
    "apiVersion": "ergon.dev/v1alpha1",
    "kind": "SpecializedModel",
    "metadata": {"name": "ner", "namespace": "finance", "uid": "u1"},
}
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


async def written(act: Callable[[EventRecorder, Clock], None], *answers: Any) -> list[Request]:
    """What reaches the API server when something is recorded."""
    async with serving(*(answers or (say(201),))) as script:
        pace = Pace(attempt_seconds=3.0, total_seconds=3.0)  # a busy machine may take a second to connect
        async with KubeClient(script.configuration(), pace=pace) as client:
            clock = Clock()
            recorder = EventRecorder(client, "ergon-0", now=clock)
            act(recorder, clock)
            await recorder.flush()
        return script.requests


async def test_an_event_says_who_about_what_and_why() -> None:
    (event,) = await written(lambda events, _: events.record(MODEL, "Warning", "FetchFailed", "no such bucket"))
    assert (event.method, event.path) == ("POST", "/apis/events.k8s.io/v1/namespaces/finance/events")
    body = event.body
    assert body["regarding"] == {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "SpecializedModel",
        "name": "ner",
        "namespace": "finance",
        "uid": "u1",
    }
    assert (body["type"], body["reason"], body["note"]) == ("Warning", "FetchFailed", "no such bucket")
    assert (body["reportingController"], body["reportingInstance"]) == ("ergon.dev/operator", "ergon-0")
    assert body["eventTime"] == "2026-01-01T00:00:00.000000Z"


async def test_an_event_of_a_cluster_scoped_object_stands_in_default() -> None:
    pool = {"apiVersion": "ergon.dev/v1alpha1", "kind": "AcceleratorPool", "metadata": {"name": "l4", "uid": "u2"}}
    (event,) = await written(lambda events, _: events.record(pool, "Normal", "Ready", "3 servers"))
    assert event.path.endswith("/namespaces/default/events")
    assert "namespace" not in event.body["regarding"]


async def test_the_same_again_is_counted() -> None:
    def act(events: EventRecorder, clock: Clock) -> None:
        for _ in range(50):
            events.record(MODEL, "Normal", "Ready", "2 replicas")
            clock.now += timedelta(seconds=1)

    first, second = await written(act)
    assert (first.method, second.method) == ("POST", "PATCH")
    assert second.body == {"series": {"count": 50, "lastObservedTime": "2026-01-01T00:00:49.000000Z"}}


async def test_an_event_whose_creation_was_not_answered_is_counted_on() -> None:
    def act(events: EventRecorder, clock: Clock) -> None:
        for _ in range(2):
            events.record(MODEL, "Normal", "Ready", "2 replicas")

    first, second = await written(act, status(409, "it exists"), say(200))
    assert (first.method, second.method) == ("POST", "PATCH")
    assert second.body["series"]["count"] == 2


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_step_of_the_clock_loses_no_event_and_lets_none_flood(hours: int) -> None:
    def act(events: EventRecorder, clock: Clock) -> None:
        events.record(MODEL, "Normal", "Ready", "2 replicas")
        clock.now += timedelta(hours=hours)
        events.record(MODEL, "Normal", "Ready", "2 replicas")
        for number in range(100):
            events.record(MODEL, "Normal", "Moved", f"to server {number}")

    requests = await written(act)
    assert 2 + 23 <= len(requests) <= 2 + 25
    assert {request.body.get("reason") for request in requests} >= {"Ready", "Moved"}


async def test_after_ten_minutes_it_is_a_new_event() -> None:
    def act(events: EventRecorder, clock: Clock) -> None:
        events.record(MODEL, "Normal", "Ready", "2 replicas")
        clock.now += timedelta(minutes=11)
        events.record(MODEL, "Normal", "Ready", "2 replicas")

    first, second = await written(act)
    assert (first.method, second.method) == ("POST", "POST")
    assert first.body["metadata"]["name"] != second.body["metadata"]["name"]


async def test_one_object_cannot_flood() -> None:
    def act(events: EventRecorder, clock: Clock) -> None:
        for number in range(100):
            events.record(MODEL, "Normal", "Moved", f"to server {number}")
        clock.now += timedelta(minutes=5)
        events.record(MODEL, "Normal", "Moved", "later")
        events.record({**MODEL, "metadata": {"name": "other", "namespace": "finance", "uid": "u9"}}, "Normal", "Ready", "x")

    assert len(await written(act)) == 25 + 1 + 1


async def test_one_reason_over_many_objects_cannot_flood() -> None:
    def act(events: EventRecorder, clock: Clock) -> None:
        for number in range(1000):
            metadata = {"name": f"m{number}", "namespace": "finance", "uid": f"v{number}"}
            events.record({**MODEL, "metadata": metadata}, "Warning", "NoPoolFits", "there is no pool")
        events.record(MODEL, "Warning", "FetchFailed", "no such bucket")
        clock.now += timedelta(seconds=3)
        events.record(MODEL, "Warning", "NoPoolFits", "there is no pool")

    written_reasons = [request.body["reason"] for request in await written(act)]
    assert (written_reasons.count("NoPoolFits"), written_reasons.count("FetchFailed")) == (100 + 1, 1)


async def test_long_and_odd_messages_fit_the_api() -> None:
    (event,) = await written(lambda events, _: events.record(MODEL, "Normal", "R" * 500, "ü" * 3000 + "\ud800"))
    assert len(event.body["note"].encode()) <= 1024
    assert len(event.body["reason"]) <= 128


@pytest.mark.parametrize("answer", [status(403, "no"), status(409, "there"), status(503, "down"), status(422, "odd")])
async def test_what_the_server_does_not_take_is_dropped(answer: Any) -> None:
    requests = await written(lambda events, _: events.record(MODEL, "Normal", "Ready", "x"), answer)
    assert requests


async def test_nonsense_is_logged_and_never_raised() -> None:
    for nonsense in ({}, {"metadata": None}, None):
        assert await written(lambda events, _, odd=nonsense: events.record(odd, "Normal", "Ready", "x")) == []  # type: ignore[misc]


async def test_recording_never_waits_and_running_writes() -> None:
    async with serving(say(201)) as script, KubeClient(script.configuration()) as client:
        recorder = EventRecorder(client, "ergon-0")
        for number in range(5000):
            metadata = {"name": f"m{number}", "namespace": "finance", "uid": f"u{number}"}
            recorder.record({**MODEL, "metadata": metadata}, "Normal", f"Reason{number // 50}", "x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(recorder.run(), 0.5)
        assert 0 < len(script.requests) <= 120  # 100 at once, then 20 a second, of all events together
