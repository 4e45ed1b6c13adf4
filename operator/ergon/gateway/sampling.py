"""A route's labelled samples, asked of its models: slowly, and each only once while the model and the samples are the same.

A model that sleeps is not woken for them: it is asked when it is awake for others.
"""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ergon.gateway.columns import Malformed, named
from ergon.gateway.curve import SHARES, Sampled, quality
from ergon.gateway.directory import Directory
from ergon.gateway.failures import Failure
from ergon.gateway.http_models import HttpModels, HttpRequest
from ergon.gateway.metrics import Metrics
from ergon.gateway.routes import Route
from ergon.gateway.rules import Sign, judge
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError

log = logging.getLogger("ergon.gateway")

LOOK_SECONDS = 15.0
BUSY_SHARE = 0.05
"""Share of the time in which a sample is being asked."""
MOST_SAMPLES = 1000
_ANSWER_SECONDS = 30.0
_HEADERS = [(b"Content-Type", b"application/json")]


@dataclass(frozen=True)
class Sample:
    """One labelled request."""

    body: bytes
    expected: str


@dataclass
class _Known:
    """What is known of one route's samples. `answers` by model and place of the sample: whether it was right, and its sign;
    `variants` of the models that gave them."""

    version: str = ""
    samples: tuple[Sample, ...] = ()
    rules: Any = None
    answers: dict[tuple[str, int], tuple[bool, Sign | None]] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=dict)


class Sampler:
    """All routes' samples."""

    def __init__(
        self, client: KubeClient, directory: Directory, models: HttpModels, metrics: Metrics, busy_share: float = BUSY_SHARE
    ) -> None:
        self._client, self._directory, self._models, self._metrics = client, directory, models, metrics
        self._busy_share = busy_share
        self._known: dict[tuple[str, str], _Known] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            routes = {(route.namespace, route.name): route for route in self._directory.routes() if route.samples is not None}
            for key in self._known.keys() - routes.keys():
                self._withdraw(*key)
            for route in routes.values():
                try:
                    await self.look_at(route)
                except KubeError as error:
                    log.warning("samples of route %s/%s cannot be read: %s", route.namespace, route.name, error)
                except Exception:  # one route's samples must end neither the others nor the gateway
                    log.exception("samples of route %s/%s: an error of the gateway itself", route.namespace, route.name)

    async def look_at(self, route: Route) -> None:
        """Ask what was not asked yet, and tell the quality once all is known. Raises KubeError."""
        assert route.samples is not None
        name = route.samples.config_map_name
        found = await self._client.get("v1", "ConfigMap", name, route.namespace)
        known = self._known.setdefault((route.namespace, route.name), _Known())
        version = str(found["metadata"].get("resourceVersion", ""))
        rules = (route.when, route.samples.output)
        if (known.version, known.rules) != (version, rules):
            known.version, known.rules, known.answers = version, rules, {}
            known.samples = read_samples(found.get("data") or {}, f"{route.namespace}/{name}")
        self._forget_changed(route, known)
        for place, sample in enumerate(known.samples):
            for candidate in route.candidates:
                if (candidate.model, place) not in known.answers:
                    answer = await self._ask(route, candidate.served, sample)
                    if answer is None:
                        return  # asleep or away: later
                    known.answers[candidate.model, place] = answer
        self._tell(route, known)

    def _forget_changed(self, route: Route, known: _Known) -> None:
        """Other variants may answer otherwise."""
        models = [model for candidate in route.candidates if (model := self._directory.model(candidate.served)) is not None]
        variants = {model.name: model.variants for model in models}
        same = {name for name in variants if variants[name] == known.variants.get(name)}
        known.answers = {key: answer for key, answer in known.answers.items() if key[0] in same}
        known.variants = variants

    async def _ask(self, route: Route, served: str, sample: Sample) -> tuple[bool, Sign | None] | None:
        assert route.samples is not None
        if not self._directory.addresses(served):
            return None
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reply = await self._models.ask(
                    served, HttpRequest("POST", "/infer", _HEADERS, sample.body), began + _ANSWER_SECONDS, wake=False
                )
        except (Failure, TimeoutError):
            return None
        finally:
            await asyncio.sleep((clock() - began) * (1 / self._busy_share - 1))
        try:
            outputs = reply.outputs(route.names | {route.samples.output})
            return named(outputs, route.samples.output).text() == sample.expected, judge(route.when, outputs)
        except Malformed:
            return False, judge(route.when, {})

    def _tell(self, route: Route, known: _Known) -> None:
        if not known.samples or not route.candidates:
            return
        order = [candidate.model for candidate in route.candidates]
        judged = [sampled(order, known.answers, place) for place in range(len(known.samples))]
        for share in SHARES:
            self._metrics.sample_quality.labels(route.namespace, route.name, f"{share:g}").set(quality(judged, share))

    def _withdraw(self, namespace: str, name: str) -> None:
        del self._known[namespace, name]
        with contextlib.suppress(KeyError):  # never told
            for share in SHARES:
                self._metrics.sample_quality.remove(namespace, name, f"{share:g}")


def sampled(order: list[str], answers: Mapping[tuple[str, int], tuple[bool, Sign | None]], place: int) -> Sampled:
    """One sample's answers by the models in their order, as the route would give them."""
    first, sign = answers[order[0], place]
    escalated = first
    for number, model in enumerate(order[1:], start=1):
        escalated, further = answers[model, place]
        if further is None or number == len(order) - 1:
            break
    urgency = -math.inf if sign is None or len(order) < 2 else sign.urgency
    return Sampled(first, escalated, urgency)


def read_samples(data: Mapping[str, str], where: str) -> tuple[Sample, ...]:
    """The samples of a ConfigMap's keys, in their order; lines that are none are left out, with a word in the log."""
    found, bad = [], 0
    for key in sorted(data):
        for line in data[key].splitlines():
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
                inputs, expected = fields["inputs"], fields["expected"]
            except (ValueError, KeyError, TypeError, RecursionError):
                bad += 1
                continue
            if isinstance(inputs, list) and isinstance(expected, (str, int, float)):
                text = expected if isinstance(expected, str) else json.dumps(expected)
                found.append(Sample(json.dumps({"inputs": inputs}).encode(), text))
            else:
                bad += 1
    if bad:
        log.warning('samples in ConfigMap %s: %d lines are not {"inputs": [...], "expected": "text"}', where, bad)
    return tuple(found[:MOST_SAMPLES])
