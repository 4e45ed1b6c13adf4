"""Operating points corrected by what executions take here: learned apart from interference, applied in small, bounded steps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ergon.demand.counters import Window
from ergon.demand.service import Fit, Shape, declared_shape
from ergon.demand.work import LARGEST_SIZE, LEAST_SIZE, counts_tokens
from ergon.fleet.points import points_on
from ergon.fleet.types import ModelKey, OperatingPoint, Variant

ALONE_SHARE = 0.1
"""Below this busy share of all others on its server a replica counts as alone."""

LARGEST_STEP = 1.05
"""A point moves at most by this factor a plan, up or down."""

LEAST_FACTOR, LARGEST_FACTOR = 0.25, 4.0
"""Of service time over declared; beyond, the declared point is not believed, and a person should look."""

SURE = 0.7
"""Confidence from which what is learned is used: a declared point far from the batches that are seen may reach no more."""

_STILL = 0.02
"""What is learned must differ by so much before a point moves, so that learned points and plans settle."""

_SIZE_SECONDS = 30.0
"""The last minute, so to say: what is older than this counts for less than 1/e in a request's size."""

_SIZE_STILL = 0.05
_INTERFERENCE_MEMORY = 500.0
_LARGEST_SLOWDOWN = 5.0


class ServiceKey(NamedTuple):
    """What has a service time of its own: a variant on a product (the pool's, or its class where it names none)."""

    model: ModelKey
    variant: str
    product: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A declared point that is not what is seen: the service time is `factor` times the declared, outside what is corrected."""

    key: ServiceKey
    batch: int
    factor: float
    message: str


def points_for(points: Iterable[OperatingPoint], product: str | None, accelerator_class: str) -> tuple[OperatingPoint, ...]:
    """The points that speak of a pool: those of its product, or where none names it, those of its class (planning.md)."""
    usable = [point for point in points if 0 < point.work_per_second < math.inf]
    return tuple(points_on(usable, product, accelerator_class))


@dataclass(slots=True)
class _Service:
    """One key's learning. `applied`: the factor in force by declared batch; `recent` the log of the last minute over the fit."""

    points: tuple[OperatingPoint, ...]
    instances: int
    shape: Shape
    fit: Fit
    applied: dict[int, float]
    recent_sum: float = 0.0
    recent_weight: float = 0.0
    recent_at: float = 0.0

    @property
    def recent(self) -> float:
        # A handful of executions says little of a request's size: five more of size 1 are taken as seen.
        return self.recent_sum / (self.recent_weight + 5.0)


class Learning:
    """All service times and the interference of every product."""

    def __init__(self) -> None:
        """Nothing learned."""
        self._services: dict[ServiceKey, _Service] = {}
        self._interference: dict[str, tuple[float, float]] = {}
        self._by_variant: dict[tuple[ModelKey, str], list[ServiceKey]] = {}
        self._kept: dict[ServiceKey, tuple[str, list[float], dict[str, float]]] = {}

    def learn(
        self, key: ServiceKey, points: Sequence[OperatingPoint], instances: int, window: Window, others_share: float
    ) -> None:
        """Takes in one replica's window; `others_share` is the busy share of the other replicas on its server then.

        Alone it trains the service time, else the product's interference. Models that count tokens, and variants without
        points, are passed over.
        """
        service = self._service(key, points, instances)
        if service is None or not window.complete:
            return
        self._let_fade(service, window.end_seconds)
        alone = others_share < ALONE_SHARE
        slowdown = 1.0 if alone else self.slowdown(key.product, others_share)
        for batch in window.batches:
            if batch.executions <= 0 or batch.busy_seconds <= 0:
                continue
            requests, seconds = batch.size / window.rows_per_request, batch.busy_seconds / batch.executions
            requests = max(1.0, requests)
            fitted = service.fit.ratio(service.shape, requests) * service.shape.seconds(requests)
            sure = service.fit.confidence(service.shape, requests) >= SURE
            if sure:
                ratio = math.log(min(16.0, max(1 / 16, seconds / fitted / slowdown)))
                service.recent_sum += ratio * batch.executions
                service.recent_weight += batch.executions
            if alone:
                service.fit.learn(service.shape, requests, seconds, batch.executions)
            elif sure:
                self._note_interference(key.product, seconds / fitted - 1, others_share)

    def size(self, key: ServiceKey) -> float:
        """How much more than the points in force say a request keeps the server busy now (see ergon.demand.work)."""
        service = self._services.get(key)
        if service is None:
            return 1.0
        recent = math.copysign(max(0.0, abs(service.recent) - _SIZE_STILL), service.recent)
        best = max(service.points, key=lambda point: point.work_per_second)
        sure = service.fit.confidence(service.shape, best.batch) >= SURE
        behind = service.fit.ratio(service.shape, best.batch) / service.applied[best.batch] if sure else 1.0
        behind = behind if abs(math.log(behind)) > 2 * _STILL else 1.0
        return min(LARGEST_SIZE, max(LEAST_SIZE, math.exp(recent) * behind))

    def plan_passed(self) -> list[Finding]:
        """Moves every point one step towards what is learned; says which are beyond what is corrected. Once a plan."""
        findings = []
        for key, service in self._services.items():
            for batch, applied in service.applied.items():
                if service.fit.confidence(service.shape, batch) < SURE:
                    continue
                learned = service.fit.ratio(service.shape, batch)
                if not LEAST_FACTOR <= learned <= LARGEST_FACTOR:
                    findings.append(_finding(key, batch, learned))
                target = min(LARGEST_FACTOR, max(LEAST_FACTOR, learned))
                if abs(math.log(target / applied)) > _STILL:
                    step = min(LARGEST_STEP, max(1 / LARGEST_STEP, target / applied))
                    service.applied[batch] = min(LARGEST_FACTOR, max(LEAST_FACTOR, applied * step))
        return findings

    def factor(self, key: ServiceKey, batch: int) -> float:
        """Service time in force over the declared one at a declared point's batch."""
        service = self._services.get(key)
        return service.applied.get(batch, 1.0) if service is not None else 1.0

    def confidence(self, key: ServiceKey, batch: int) -> float:
        """How sure the learned service time at a batch is, 0 to 1."""
        service = self._services.get(key)
        return service.fit.confidence(service.shape, batch) if service is not None else 0.0

    def slowdown(self, product: str, others_share: float) -> float:
        """How many times longer an execution takes while the others keep the server busy for `others_share` of the time."""
        moment, weight = self._interference.get(product, (0.0, 0.0))
        # The prior: no interference, worth 50 windows at a share of 0.3.
        return 1 + max(0.0, moment / (weight + 4.5)) * others_share

    def interference(self, product: str) -> float:
        """The product's interference factor: what `slowdown` adds for others that keep the server busy all the time."""
        return self.slowdown(product, 1.0) - 1

    def corrected(self, model: ModelKey, variant: Variant) -> Variant:
        """The variant with its points at the service times in force: rate divided, latency multiplied by the factor.

        Points of a class stay, for products on which nothing was learned, and stand beside those of each product that was.
        """
        self._take_up(model, variant)
        points = list(variant.points)
        for key in self._by_variant.get((model, variant.name), ()):
            service = self._services[key]
            if all(factor == 1.0 for factor in service.applied.values()) or not set(service.points) <= set(variant.points):
                continue
            of_class = any(point.product is None and point.accelerator_class != key.product for point in service.points)
            points = points if of_class else [point for point in points if point not in service.points]
            points += [_at_factor(point, service.applied[point.batch], key.product) for point in service.points]
        return variant if points == list(variant.points) else replace(variant, points=tuple(points))

    def _take_up(self, model: ModelKey, variant: Variant) -> None:
        """Goes on from what was kept over a restart, before the first window is seen."""
        if not self._kept:
            return
        groups: dict[tuple[str | None, str | None], list[OperatingPoint]] = {}
        for point in variant.points:
            named = point.product is not None
            groups.setdefault((point.product, None if named else point.accelerator_class), []).append(point)
        for key in [key for key in self._kept if key.model == model and key.variant == variant.name]:
            instances = self._kept[key][0].partition(";")[0]
            for (product, _), points in groups.items():
                fits = instances.isdigit() and self._kept[key][0] == _signature(points, int(instances))
                if fits and product in (None, key.product):
                    self._service(key, tuple(points), int(instances))
                    break

    def forget(self, model: ModelKey) -> None:
        """Drops all of a model."""
        for key in [key for key in self._services if key.model == model]:
            del self._services[key]
            self._by_variant.pop((model, key.variant), None)
        for key in [key for key in self._kept if key.model == model]:
            del self._kept[key]

    def to_state(self) -> dict[str, Any]:
        """What survives a restart, as JSON can hold it: some 200 bytes a key."""
        services = [
            [*key.model, key.variant, key.product, _signature(s.points, s.instances), s.fit.state(), _rounded(s.applied)]
            for key, s in sorted(self._services.items())
        ]
        kept = [[*key.model, key.variant, key.product, *rest] for key, rest in sorted(self._kept.items())]
        return {
            "services": services + kept,
            "interference": {name: [float(f"{x:.6g}") for x in pair] for name, pair in sorted(self._interference.items())},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Learning":
        """From what `to_state` gave. What cannot be read is left out, what was learned of other points not used."""
        made = cls()
        services, interference = state.get("services"), state.get("interference")
        for entry in services if isinstance(services, list) else ():
            try:
                namespace, name, variant, product, signature, fit, applied = entry
                numbers = [float(x) for x in fit]
                factors = {str(b): float(f) for b, f in applied.items()}
            except (TypeError, ValueError, AttributeError):
                continue
            if len(numbers) == 7 and all(map(math.isfinite, numbers)) and all(0 < f < 100 for f in factors.values()):
                key = ServiceKey(ModelKey(str(namespace), str(name)), str(variant), str(product))
                made._kept[key] = (str(signature), numbers, factors)
        for product, pair in interference.items() if isinstance(interference, dict) else ():
            if isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, int | float) and math.isfinite(x) for x in pair):
                made._interference[str(product)] = (float(pair[0]), max(0.0, float(pair[1])))
        return made

    def _service(self, key: ServiceKey, points: Sequence[OperatingPoint], instances: int) -> _Service | None:
        known = self._services.get(key)
        if known is not None and known.instances == instances and (known.points is points or known.points == tuple(points)):
            return known
        shape = declared_shape(points, instances)
        if shape is None or counts_tokens(points):
            return None
        # Other points or instances: what was learned was relative to the old ones.
        service = _Service(tuple(points), instances, shape, Fit(), {point.batch: 1.0 for point in points})
        kept = self._kept.pop(key, None)
        if kept is not None and kept[0] == _signature(service.points, instances):
            service.fit = Fit(kept[1])
            service.applied.update({int(b): f for b, f in kept[2].items() if b.isdigit() and int(b) in service.applied})
        self._services[key] = service
        named = self._by_variant.setdefault((key.model, key.variant), [])
        if key not in named:
            named.append(key)
            named.sort()
        return service

    def _let_fade(self, service: _Service, now: float) -> None:
        keep = math.exp(-max(0.0, now - service.recent_at) / _SIZE_SECONDS)
        service.recent_sum, service.recent_weight = service.recent_sum * keep, service.recent_weight * keep
        service.recent_at = max(now, service.recent_at)

    def _note_interference(self, product: str, excess: float, others_share: float) -> None:
        moment, weight = self._interference.get(product, (0.0, 0.0))
        keep = 1 - 1 / _INTERFERENCE_MEMORY
        excess = min(_LARGEST_SLOWDOWN * others_share, max(-others_share, excess))
        self._interference[product] = (moment * keep + excess * others_share, weight * keep + others_share**2)


def _at_factor(point: OperatingPoint, factor: float, product: str) -> OperatingPoint:
    latency = point.latency_seconds
    return replace(
        point,
        product=point.product or (product if product != point.accelerator_class else None),
        work_per_second=point.work_per_second / factor,
        latency_seconds=None if latency is None else latency * factor,
    )


def _finding(key: ServiceKey, batch: int, factor: float) -> Finding:
    words = f"{factor:.1f}" if factor >= 1 else f"{factor:.2g}"
    message = (
        f"variant {key.variant} on {key.product}: an execution of batch {batch} takes {words} times what its profile says; "
        "measure it again (ergon profile)"
    )
    return Finding(key, batch, factor, message)


def _signature(points: Sequence[OperatingPoint], instances: int) -> str:
    """What the points were when this was learned, in few characters: other points, another beginning."""
    return f"{instances};" + ",".join(sorted(f"{p.batch}:{p.work_per_second:.6g}" for p in points))


def _rounded(applied: Mapping[int, float]) -> dict[str, float]:
    return {str(batch): round(factor, 4) for batch, factor in sorted(applied.items())}
