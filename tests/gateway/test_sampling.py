"""A route's quality, told from labelled samples."""

import asyncio
import json
import math
from typing import Any

import pytest

from ergon.gateway import sampling
from ergon.gateway.rules import Reason, Sign
from ergon.gateway.sampling import Sampler, read_samples, sampled
from ergon.kube.client import KubeClient
from tests.gateway.wire import Server, answered, wire


class OneMap(KubeClient):
    """The API server as far as samples need it: one ConfigMap."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        self.version = 1
        self.lines = lines

    async def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """The ConfigMap."""
        data = "\n".join(json.dumps(line) for line in self.lines)
        return {"metadata": {"resourceVersion": str(self.version)}, "data": {"a.jsonl": data}}


def test_a_sample_goes_as_far_as_the_route_would() -> None:
    unsure, sure = Sign(Reason.CONFIDENCE, 0.4), None
    answers = {("a", 0): (False, unsure), ("b", 0): (False, unsure), ("c", 0): (True, unsure)}
    assert (sampled(["a", "b", "c"], answers, 0).first, sampled(["a", "b", "c"], answers, 0).escalated) == (False, True)
    assert not sampled(["a", "b"], answers, 0).escalated
    assert sampled(["a", "b"], {**answers, ("a", 0): (True, sure)}, 0).urgency == -math.inf
    assert sampled(["a"], answers, 0).urgency == -math.inf


def test_lines_that_are_no_samples_are_left_out() -> None:
    data = {
        "b": '{"inputs": [], "expected": 3}\n\nnonsense\n[]\n{"inputs": 1, "expected": "x"}',
        "a": '{"inputs": [1], "expected": "y"}',
    }
    assert [(sample.body, sample.expected) for sample in read_samples(data, "a/b")] == [
        (b'{"inputs": [1]}', "y"),
        (b'{"inputs": []}', "3"),
    ]


async def test_every_model_is_asked_each_sample_once_and_the_curve_is_told() -> None:
    def model(label: str, score: float) -> Server:
        outputs = [
            {"name": "LABEL", "datatype": "BYTES", "shape": [1], "data": [label]},
            {"name": "SCORE", "datatype": "FP32", "shape": [1], "data": [score]},
        ]
        return Server(lambda number, _: answered({"outputs": outputs}))

    small, big = model("cat", 0.2), model("dog", 0.9)
    async with wire(small, big) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route(samples={"configMapName": "labelled", "output": "LABEL"})
        route = world.directory.route("a", "r")
        assert route is not None
        client = OneMap(*({"inputs": [{"name": "X"}], "expected": word} for word in ("dog", "dog", "cat", "dog")))
        sampler = Sampler(client, world.directory, world.serving.http_models, world.metrics, 1.0)
        await sampler.look_at(route)
        await sampler.look_at(route)
        assert (len(small.requests), len(big.requests)) == (4, 4)

        def told(rate: str) -> float:
            return world.counted("ergon_gateway_sample_quality", namespace="a", route="r", rate=rate)

        assert (told("0"), told("1")) == (0.25, 0.75)
        client.version = 2
        await sampler.look_at(route)
        assert (len(small.requests), len(big.requests)) == (8, 8)


async def test_a_model_that_changed_is_asked_again_and_no_other_is() -> None:
    small, big = Server(lambda number, _: answered()), Server(lambda number, _: answered())
    async with wire(small, big) as world:
        world.model("small", "127.0.0.2", quality=0.1)
        world.model("big", "127.0.0.3", quality=0.9)
        world.route(samples={"configMapName": "labelled", "output": "SCORE"})
        client = OneMap({"inputs": [], "expected": "0.9"})
        sampler = Sampler(client, world.directory, world.serving.http_models, world.metrics, 1.0)
        for uri in ("file:///x", "file:///x", "file:///y"):
            world.model("big", "127.0.0.3", quality=0.9, uri=uri)
            route = world.directory.route("a", "r")
            assert route is not None
            await sampler.look_at(route)
        assert (len(small.requests), len(big.requests)) == (1, 2)


async def test_an_error_over_one_routes_samples_ends_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneFails(OneMap):
        async def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
            if name == "bad":
                raise OverflowError("as a fault would")
            return await super().get(api_version, kind, name, namespace)

    monkeypatch.setattr(sampling, "LOOK_SECONDS", 0.01)
    asked = asyncio.Event()

    def answers(_: int, __: bytes) -> bytes:
        asked.set()
        return answered()

    async with wire(Server(answers)) as world:
        world.model("m", "127.0.0.2")
        world.route("a", samples={"configMapName": "bad", "output": "SCORE"})
        world.route("b", samples={"configMapName": "good", "output": "SCORE"})
        client = OneFails({"inputs": [], "expected": "0.9"})
        task = asyncio.create_task(Sampler(client, world.directory, world.serving.http_models, world.metrics, 1.0).run())
        await asyncio.wait_for(asked.wait(), 5)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})


async def test_a_model_that_sleeps_is_not_woken_for_samples() -> None:
    async with wire(wake=lambda _: (202, {})) as world:
        world.model("small", asleep=True)
        world.route(samples={"configMapName": "labelled", "output": "LABEL"})
        route = world.directory.route("a", "r")
        assert route is not None
        sampler = Sampler(OneMap({"inputs": [], "expected": "x"}), world.directory, world.serving.http_models, world.metrics, 1.0)
        await sampler.look_at(route)
        assert world.wakes == []
