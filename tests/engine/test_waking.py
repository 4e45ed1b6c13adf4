"""What wakes a model, without a cluster: the gateway's presence, the leader's answer to a wake, what the cache makes of both."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from ergon.engine.cache import Cache
from ergon.engine.demand import DemandKeeper
from ergon.engine.gateways import GONE_SECONDS, LOOK_SECONDS, GatewayWatch, announce, leader_slice
from ergon.engine.settings import WakingSettings
from ergon.engine.wake import REVIEWS_AT_ONCE, WAITING, TokenReviewer, WakeServer
from ergon.fleet.types import ModelKey
from ergon.kube.errors import Unavailable

KEY = ModelKey("team", "m")
WAKING = WakingSettings("ergon-gateway", "ergon-gateway", "ergon-leader", "10.0.0.7")


def sleepy(name: str = "m", reason: str = "", **spec: Any) -> dict[str, Any]:
    variant = {"name": "v", "accelerators": ["cpu"], "backend": "python", "source": {"uri": "file:///m"}, "memory": "1Mi"}
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": reason}]} if reason else {}
    return {
        "metadata": {"namespace": "team", "name": name, "uid": name, "generation": 1, "resourceVersion": "1"},
        "spec": {"task": "echo", "autoscaling": {"minReplicas": 0, "idleAfter": "60s"}, "variants": [variant], **spec},
        "status": status,
    }


def gateway_slice(*names: str, ready: bool = True) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": [f"10.0.1.{number}"],
            "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "namespace": "ergon-system", "name": name, "uid": name},
        }
        for number, name in enumerate(names)
    ]
    return {"metadata": {"namespace": "ergon-system", "name": "ergon-gateway-x", "uid": "s"}, "endpoints": endpoints}


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def keeper(cache: Cache, clock: Clock, can_wake: Callable[[], bool] = lambda: True) -> DemandKeeper:
    made = DemandKeeper(cache, clock, 1e9, plan_seconds=60, stabilise_seconds=300)
    made.can_wake = can_wake
    return made


def test_a_gateway_is_gone_only_after_a_while_and_back_at_once() -> None:
    cache, clock = Cache(), Clock()
    watch = GatewayWatch(cache, WAKING, clock)
    assert watch.can_wake()  # just started: nobody is taken for gone
    cache.put("GatewaySlice", gateway_slice("one", "two"))
    assert [pod.name for pod in cache.gateways] == ["one", "two"]
    clock.seconds += 500
    assert watch.can_wake()
    cache.put("GatewaySlice", gateway_slice("one", ready=False))
    assert cache.gateways == ()
    clock.seconds += GONE_SECONDS - 1
    assert watch.can_wake()
    clock.seconds += 2
    assert not watch.can_wake()
    cache.put("GatewaySlice", gateway_slice("three"))
    assert watch.can_wake()


def test_without_a_gateway_nothing_sleeps() -> None:
    cache, clock = Cache(), Clock()
    assert not GatewayWatch(cache, None, clock).can_wake()
    cache.put("SpecializedModel", sleepy(reason="Asleep"))
    demand = keeper(cache, clock, lambda: False)
    demand.tick()
    assert not demand.asleep(KEY)


def test_a_change_of_gateways_is_looked_at_for_those_that_may_sleep() -> None:
    cache = Cache()
    cache.put("SpecializedModel", sleepy())
    cache.put("SpecializedModel", sleepy("always", autoscaling={"minReplicas": 1}))
    cache.dirty_models.clear()
    cache.put("GatewaySlice", gateway_slice("one"))
    assert cache.dirty_models == {KEY}
    cache.dirty_models.clear()
    cache.put("GatewaySlice", gateway_slice("one"))
    assert not cache.dirty_models
    cache.drop("GatewaySlice", gateway_slice("one"))
    assert cache.dirty_models == {KEY}


def test_what_slept_sleeps_on_after_a_restart_and_what_is_new_does_not() -> None:
    cache, clock = Cache(), Clock()
    cache.put("SpecializedModel", sleepy(reason="Asleep"))
    cache.put("SpecializedModel", sleepy("new"))
    demand = keeper(cache, clock)
    demand.tick()
    assert demand.asleep(KEY)
    assert not demand.asleep(ModelKey("team", "new"))
    clock.seconds += 61
    demand.tick()
    assert demand.asleep(ModelKey("team", "new"))  # nobody asked for it


def test_a_wake_is_planned_for_at_once_and_once() -> None:
    cache, clock = Cache(), Clock()
    cache.put("SpecializedModel", sleepy(reason="Asleep"))
    demand = keeper(cache, clock)
    demand.tick()
    version = demand.version
    cache.changed.clear()
    assert demand.wake(KEY)
    assert not demand.asleep(KEY)
    assert demand.version == version + 1
    assert cache.changed.is_set()
    assert not demand.wake(KEY)
    assert demand.version == version + 1


def test_when_the_gateway_goes_everything_is_woken_and_when_it_returns_what_is_idle_sleeps() -> None:
    cache, clock, stands = Cache(), Clock(), [True]
    cache.put("SpecializedModel", sleepy(reason="Asleep"))
    demand = keeper(cache, clock, lambda: stands[0])
    demand.tick()
    stands[0], version = False, demand.version
    clock.seconds += 6
    assert KEY in demand.tick()
    assert not demand.asleep(KEY)
    assert demand.version > version  # it is planned for, though nobody ever asked for it
    stands[0] = True
    clock.seconds += 6
    demand.tick()
    assert demand.asleep(KEY)


def test_one_that_may_no_longer_sleep_is_awake_before_the_next_plan() -> None:
    cache, clock = Cache(), Clock()
    cache.put("SpecializedModel", sleepy(reason="Asleep"))
    demand = keeper(cache, clock)
    demand.tick()
    changed = sleepy(reason="Asleep", autoscaling={"minReplicas": 1})
    changed["metadata"].update(generation=2, resourceVersion="2")
    cache.put("SpecializedModel", changed)
    assert not demand.asleep(KEY)


async def asked(server: WakeServer, body: Any, token: str = "good") -> tuple[int, dict[str, Any]]:
    port = await server.start("127.0.0.1", 0)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}/wake", json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json()
    finally:
        await server.close()


async def believe(token: str) -> tuple[int, str] | None:
    return None if token == "good" else (401, "no")


REQUESTS = {
    "asleep": ({"namespace": "team", "model": "m", "requests": 3}, "good", 202, "Waking"),
    "unknown": ({"namespace": "team", "model": "x"}, "good", 404, "NotFound"),
    "no token": ({"namespace": "team", "model": "m"}, "", 401, "Unauthorized"),
    "a bad token": ({"namespace": "team", "model": "m"}, "bad", 401, "Unauthorized"),
    "no names": ({"namespace": "team"}, "good", 400, "Invalid"),
    "no map": ([1], "good", 400, "Invalid"),
    "names that are none": ({"namespace": "team", "model": 3}, "good", 400, "Invalid"),
}


@pytest.mark.parametrize(("body", "token", "code", "word"), REQUESTS.values(), ids=REQUESTS)
def test_a_wake_over_http(body: Any, token: str, code: int, word: str) -> None:
    cache, clock = Cache(), Clock()
    cache.put("SpecializedModel", sleepy(reason="Asleep"))
    demand = keeper(cache, clock)
    demand.tick()
    server = WakeServer(cache, demand, believe, lambda key: 0)
    status, said = asyncio.run(asked(server, body, token))
    assert (status, said.get("state", said.get("reason"))) == (code, word)
    assert demand.asleep(KEY) == (code != 202)


class ApiServer:
    """As much of a client as reviewing takes: what the API server says of a token."""

    def __init__(self, status: dict[str, Any] | None) -> None:
        self.status, self.asked = status, 0

    def within(self, seconds: float) -> "ApiServer":
        return self

    async def create(self, review: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        assert review["spec"]["audiences"] == ["ergon-operator"]
        if self.status is None:
            raise Unavailable("POST TokenReview", "no answer")
        return {"status": self.status}


GOOD = {"authenticated": True, "audiences": ["ergon-operator"], "user": {"username": "system:serviceaccount:e:ergon-gateway"}}
REVIEWS = {
    "good": (GOOD, None),
    "for somebody else": ({**GOOD, "audiences": ["other"]}, 401),
    "no token at all": ({"authenticated": False}, 401),
    "of another account": ({**GOOD, "user": {"username": "system:serviceaccount:e:default"}}, 403),
    "the API server is away": (None, 503),
}


@pytest.mark.parametrize(("status", "code"), REVIEWS.values(), ids=REVIEWS)
def test_a_token_is_what_the_api_server_says(status: dict[str, Any] | None, code: int | None) -> None:
    clock, api = Clock(), ApiServer(status)
    reviewer = TokenReviewer(api, WAKING.username("e"), clock)  # type: ignore[arg-type]

    async def twice() -> list[tuple[int, str] | None]:
        return [await reviewer.refusal("t"), await reviewer.refusal("t")]

    first, second = asyncio.run(twice())
    assert [refusal and refusal[0] for refusal in (first, second)] == [code, code]
    assert api.asked == (2 if code == 503 else 1)  # what the API server said is remembered
    clock.seconds += 11
    asyncio.run(twice())
    assert api.asked == {None: 1, 503: 4}.get(code, 2)  # of a bad one for less long
    clock.seconds += 61
    asyncio.run(twice())
    assert api.asked == {None: 2, 503: 6}.get(code, 3)


async def test_tokens_by_the_thousand_reach_the_api_server_a_few_at_a_time() -> None:
    class Slow(ApiServer):
        now = most = 0

        async def create(self, review: dict[str, Any]) -> dict[str, Any]:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            good = review["spec"]["token"] == "good"
            self.status = GOOD if good else {"authenticated": False}
            return await super().create(review)

    clock, api = Clock(), Slow(None)
    reviewer = TokenReviewer(api, WAKING.username("e"), clock)  # type: ignore[arg-type]
    assert await asyncio.gather(*(reviewer.refusal("good") for _ in range(20))) == [None] * 20
    assert api.asked == 1
    clock.seconds += 61
    *answers, good = await asyncio.gather(*(reviewer.refusal(f"bad {n}") for n in range(1000)), reviewer.refusal("good"))
    assert good is None  # who was known has a turn all the same
    assert {answer and answer[0] for answer in answers} == {401, 503}
    assert api.most == REVIEWS_AT_ONCE
    assert api.asked == 1 + WAITING + 1
    for n in range(1000):
        await reviewer.refusal(f"other {n}")
    asked = api.asked
    assert await reviewer.refusal("good") is None
    assert api.asked == asked  # however many came meanwhile


class Slices:
    """An API server with one EndpointSlice, as much of a client as announcing takes."""

    def __init__(self) -> None:
        self.held: dict[str, Any] | None = None
        self.written: list[str] = []
        self.found: Callable[[], None] = lambda: None

    def within(self, seconds: float) -> "Slices":
        return self

    async def find(self, *_: str) -> dict[str, Any] | None:
        self.found()
        return self.held

    async def delete(self, *_: str) -> None:
        self.held = None
        self.written.append("delete")

    async def apply(self, wanted: dict[str, Any]) -> None:
        self.held = {**wanted, "metadata": {**wanted["metadata"], "uid": "u"}}
        self.written.append("apply")


@pytest.mark.looptime
async def test_the_leader_s_slice_is_put_right_and_else_left_alone() -> None:
    api, leads = Slices(), [True]
    task = asyncio.create_task(announce(api, WAKING, "e", lambda seconds: leads[0]))  # type: ignore[arg-type]
    await asyncio.sleep(600)
    assert api.written == ["apply"]
    api.held = {**leader_slice(WAKING, "e"), "endpoints": []}
    await asyncio.sleep(LOOK_SECONDS + 1)
    assert api.written == ["apply"] * 2
    api.held = None
    await asyncio.sleep(LOOK_SECONDS + 1)
    assert api.written == ["apply"] * 3
    api.held = {**leader_slice(WAKING, "e"), "addressType": "IPv6"}
    await asyncio.sleep(LOOK_SECONDS + 1)
    assert api.written == [*["apply"] * 3, "delete", "apply"]
    api.held, api.found = None, lambda: leads.__setitem__(0, False)  # the Lease goes while the slice is read
    await asyncio.sleep(600)
    assert api.held is None
    task.cancel()


@pytest.mark.looptime
async def test_what_runs_beside_the_loop_outlives_an_error_in_a_round(caplog: pytest.LogCaptureFixture) -> None:
    api, broken = Slices(), [True]

    def find() -> None:
        if broken.pop() if broken else False:
            raise RuntimeError("a bug")

    api.found = find
    task = asyncio.create_task(announce(api, WAKING, "e", lambda seconds: True))  # type: ignore[arg-type]
    await asyncio.sleep(60)
    assert api.written == ["apply"]
    assert "a bug" in caplog.text
    task.cancel()


def test_the_leader_s_slice_points_at_it_alone() -> None:
    made = leader_slice(WAKING, "ergon-system")
    assert made["endpoints"] == [
        {"addresses": ["10.0.0.7"], "conditions": {"ready": True, "serving": True, "terminating": False}}
    ]
    assert made["addressType"] == "IPv4"
    assert made["ports"] == [{"name": "wake", "port": 8082, "protocol": "TCP"}]
