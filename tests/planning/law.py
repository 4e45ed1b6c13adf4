"""The planning contract read a second time, apart from the planner: candidates, reasons, rho, power, scopes and demand.

Everything that judges plans (the judge, the exact optimum, the bench) stands on this file and never on the planner's.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ergon.fleet.types import Fleet, Model, ModelKey, OperatingPoint, Pool, Variant, WattLimit

LEAST_RHO = 0.05
LIMIT_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Use:
    """How a variant runs on one server of a pool. `work_per_second` is mu, None where no operating point matches."""

    work_per_second: float | None
    watts: float
    awake_watts: float
    idle_watts: float
    memory_bytes: int
    rho: float
    batch: int

    @property
    def marginal_joules(self) -> float:
        """Energy that one more unit of work costs on an awake server, before pue."""
        return (self.watts - self.awake_watts) / self.work_per_second if self.work_per_second else math.inf


Judged = str | tuple[Use, ...]
"""A reason why not, or the uses that the law allows: one, or several where points tie."""


def demand_of(fleet: Fleet, key: ModelKey) -> float:
    """Work per second asked of a model; what is no number or not above zero counts as none."""
    demand = fleet.demand.get(key, 0.0)
    return demand if demand > 0 else 0.0


def least_and_most(model: Model) -> tuple[int, float]:
    """minReplicas and maxReplicas; a fixed count is both."""
    if model.fixed_replicas is not None:
        return model.fixed_replicas, model.fixed_replicas
    return model.min_replicas, math.inf if model.max_replicas is None else model.max_replicas


def matching_points(variant: Variant, pool: Pool) -> list[OperatingPoint]:
    """The points measured on the pool's product, else those on its class."""
    by_product = [point for point in variant.points if point.product is not None and point.product == pool.product]
    return by_product or [p for p in variant.points if p.product is None and p.accelerator_class == pool.accelerator_class]


def rho_at(pool: Pool, slo: float | None, latency: float) -> float | None:
    """The busy share that leaves room for queueing, None where the latency is too high."""
    if slo is None:
        return pool.max_busy_share
    if latency >= slo:
        return None
    rho = min(pool.max_busy_share, (slo - latency) / (slo + 2 * latency))
    return rho if rho >= LEAST_RHO else None


def sound(point: OperatingPoint) -> bool:
    """Whether the point's figures can be figures."""
    rest = (point.latency_seconds, point.watts, point.awake_watts, point.memory_bytes)
    return 0 < point.work_per_second < math.inf and all(f is None or 0 <= f < math.inf for f in rest)


def broken(variant: Variant) -> bool:
    """Whether something is said of the variant that cannot be."""
    return variant.memory_bytes < 0 or not all(sound(point) for point in variant.points)


def _use(point: OperatingPoint, variant: Variant, pool: Pool, rho: float) -> Use:
    idle = pool.idle_watts
    said = point.watts if point.watts is not None else pool.busy_watts if pool.busy_watts is not None else idle
    watts = max(said, idle)
    awake = min(max(point.awake_watts if point.awake_watts is not None else idle, idle), watts)
    memory = variant.memory_bytes if point.memory_bytes is None else point.memory_bytes
    return Use(point.work_per_second, watts, awake, idle, memory, rho, point.batch)


def judge_candidate(fleet: Fleet, model: Model, variant: Variant, pool: Pool) -> Judged:
    """The first reason that holds against (model, variant, pool), or how it would run there."""
    if pool.accelerator_class not in variant.accelerators:
        return "AcceleratorMismatch"
    if not takes_namespace(fleet, pool, model.key.namespace):
        return "NamespaceNotAllowed"
    if model.pool_selector is not None and not model.pool_selector.matches(pool.labels):
        return "PoolNotSelected"
    if pool.backends and variant.backend not in pool.backends:
        return "BackendMissing"
    if variant.quality < model.min_quality:
        return "QualityTooLow"
    verdict = judge_points(model.slo_latency_seconds, variant, pool)
    return "PoolDeleted" if pool.deleting and not isinstance(verdict, str) else verdict


def judge_points(slo: float | None, variant: Variant, pool: Pool) -> Judged:
    """What the operating points say, the rest of the law being met."""
    points = [point for point in matching_points(variant, pool) if sound(point)]
    if not points:
        if variant.memory_bytes > pool.memory_bytes:
            return "MemoryTooSmall"
        busy = pool.idle_watts if pool.busy_watts is None else max(pool.busy_watts, pool.idle_watts)
        return (Use(None, busy, pool.idle_watts, pool.idle_watts, variant.memory_bytes, pool.max_busy_share, 0),)
    fitting = [p for p in points if (variant.memory_bytes if p.memory_bytes is None else p.memory_bytes) <= pool.memory_bytes]
    if not fitting:
        return "MemoryTooSmall"
    uses = [
        _use(point, variant, pool, rho)
        for point in fitting
        if (rho := rho_at(pool, slo, point.latency_seconds or 0.0)) is not None
    ]
    if not uses:
        return "LatencyTooHigh"
    least = min(use.marginal_joules for use in uses)
    frugal = [use for use in uses if use.marginal_joules <= least * (1 + 1e-12) + 1e-15]
    most = max(use.work_per_second or 0.0 for use in frugal)
    return tuple(sorted((use for use in frugal if use.work_per_second == most), key=lambda use: use.awake_watts))


def takes_namespace(fleet: Fleet, pool: Pool, namespace: str) -> bool:
    """Whether the pool takes models of the namespace; a pool that names none takes the operator's own."""
    if pool.namespaces is None:
        return namespace == fleet.operator_namespace
    return pool.namespaces.matches(fleet.namespace_labels(namespace))


class Law:
    """The law over one fleet, each judgement made once."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.pools = {pool.name: pool for pool in fleet.pools}
        self.models = {model.key: model for model in fleet.models}

    @cached_property
    def judged(self) -> dict[tuple[ModelKey, str, str], Judged]:
        """By (model, variant, pool). Pools that differ in nothing a variant sees are judged once."""
        kinds: dict[str, tuple[object, ...]] = {}
        for pool in self.fleet.pools:
            kinds[pool.name] = (
                *(pool.accelerator_class, pool.product, pool.backends, pool.memory_bytes, pool.max_busy_share),
                *(pool.idle_watts, pool.busy_watts, pool.deleting),
                *(repr(pool.namespaces), tuple(sorted(pool.labels.items()))),
            )
        found: dict[tuple[ModelKey, str, str], Judged] = {}
        for model in self.fleet.models:
            for variant in model.variants:
                seen: dict[tuple[object, ...], Judged] = {}
                for pool in self.fleet.pools:
                    kind = kinds[pool.name]
                    if kind not in seen:
                        seen[kind] = judge_candidate(self.fleet, model, variant, pool)
                    found[model.key, variant.name, pool.name] = seen[kind]
        return found

    def uses(self, key: ModelKey, variant: str, pool: str) -> tuple[Use, ...]:
        """How the variant may run there; empty where it is no candidate."""
        verdict = self.judged.get((key, variant, pool), "")
        return () if isinstance(verdict, str) else verdict

    @cached_property
    def candidates(self) -> dict[ModelKey, list[tuple[str, str, Use]]]:
        """Every candidate (variant, pool, use) by model; of points that tie, the first."""
        found: dict[ModelKey, list[tuple[str, str, Use]]] = {key: [] for key in self.models}
        for (key, variant, pool), verdict in self.judged.items():
            if not isinstance(verdict, str):
                found[key].append((variant, pool, verdict[0]))
        return found

    def priority(self, key: ModelKey) -> int:
        """The model's priority, capped by the highest maxPriority of the pools it has a candidate in."""
        caps = [self.pools[pool].max_priority for _, pool, _ in self.candidates[key]]
        return min(self.models[key].priority, max(caps, default=1000))


def running(pool: Pool, servers: int) -> int:
    """Of the ordinals 0 to servers - 1 those that run."""
    return servers - sum(1 for ordinal in pool.unavailable if 0 <= ordinal < servers)


def standing_watts(pool: Pool, servers: int) -> float:
    """Host and idle watts of a pool with so many servers, before pue; all of the maximum where the pool never scales in."""
    on = running(pool, servers) if pool.scale_in else pool.servers_max
    return pool.host_watts * math.ceil(on / pool.servers_per_node) + pool.idle_watts * on


def sunk_watts(pool: Pool) -> float:
    """What the pool draws with the servers that run always and nothing on them; one that is being deleted needs none."""
    return pool.pue * standing_watts(pool, 0 if pool.deleting else pool.servers_min)


def pool_watts(pool: Pool, servers: int, loads: Iterable[tuple[int, Use, float]]) -> float:
    """Power of a pool at the wall. `loads`: ordinal, use and busy share of every replica that serves something."""
    steps: dict[int, float] = {}
    slopes = []
    for ordinal, use, busy_share in loads:
        steps[ordinal] = max(steps.get(ordinal, 0.0), use.awake_watts - use.idle_watts)
        slopes.append(busy_share * (use.watts - use.awake_watts))
    return pool.pue * (standing_watts(pool, servers) + math.fsum(steps.values()) + math.fsum(slopes))


def pools_in(limit: WattLimit, fleet: Fleet) -> frozenset[str]:
    """Names of the pools in a limit's scope."""
    return frozenset(pool.name for pool in fleet.pools if limit.pools is None or limit.pools.matches(pool.labels))


def models_in(limit: WattLimit, fleet: Fleet) -> frozenset[ModelKey] | None:
    """The models a limit is about; None where it is about pools."""
    if limit.namespaces is None:
        return None
    selector = limit.namespaces
    namespaces = {model.key.namespace for model in fleet.models}
    chosen = {name for name in namespaces if selector.matches(fleet.namespace_labels(name))}
    return frozenset(model.key for model in fleet.models if model.key.namespace in chosen)


def hopeless_watts(limit: WattLimit, fleet: Fleet) -> float:
    """Watts above 0.95 x limit that the servers that run always draw alone; 0 where they stay below."""
    if limit.namespaces is not None:
        return 0.0
    names = pools_in(limit, fleet)
    return max(0.0, math.fsum(sunk_watts(pool) for pool in fleet.pools if pool.name in names) - LIMIT_SHARE * limit.watts)
