"""Which pools may serve which variants, and the first reason that holds for each that may not (planning.md, Candidates).

`judge` says it in words for one pair; `judge_all` gives the reasons of all pairs at once, by the same rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ergon.api.quantities import format_bytes
from ergon.fleet.types import Fleet, Model, Pool, Variant
from ergon.planning.arrays import Bools, Ints
from ergon.planning.points import BestPoints, busy_share_limit, matching_points


class Reason(StrEnum):
    """Why a variant is, or is not, on a pool."""

    LEAST_ENERGY = "LeastEnergy"
    KEPT = "Kept"
    SPILLED = "Spilled"
    MORE_ENERGY = "MoreEnergy"
    NOT_NEEDED = "NotNeeded"
    NO_ROOM = "NoRoom"
    WATT_LIMIT = "WattLimit"
    FAILED_THERE = "FailedThere"
    ACCELERATOR_MISMATCH = "AcceleratorMismatch"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    POOL_NOT_SELECTED = "PoolNotSelected"
    BACKEND_MISSING = "BackendMissing"
    QUALITY_TOO_LOW = "QualityTooLow"
    MEMORY_TOO_SMALL = "MemoryTooSmall"
    LATENCY_TOO_HIGH = "LatencyTooHigh"
    POOL_DELETED = "PoolDeleted"


ORDER = (
    Reason.ACCELERATOR_MISMATCH,
    Reason.NAMESPACE_NOT_ALLOWED,
    Reason.POOL_NOT_SELECTED,
    Reason.BACKEND_MISSING,
    Reason.QUALITY_TOO_LOW,
    Reason.MEMORY_TOO_SMALL,
    Reason.LATENCY_TOO_HIGH,
    Reason.POOL_DELETED,
)
"""The reasons against a pool, in the order in which they are judged."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a variant cannot be on a pool at all."""

    reason: Reason
    message: str


def judge(fleet: Fleet, model: Model, variant: Variant, pool: Pool) -> Rejection | None:
    """The first reason why the pool cannot serve the variant, or None where it can."""
    if pool.accelerator_class not in variant.accelerators:
        return Rejection(
            Reason.ACCELERATOR_MISMATCH,
            f"runs on {', '.join(sorted(variant.accelerators))}, the pool is {pool.accelerator_class}",
        )
    if not _takes_namespace(fleet, pool, model.key.namespace):
        return Rejection(
            Reason.NAMESPACE_NOT_ALLOWED,
            f"the pool's spec.namespaces does not select namespace {model.key.namespace} by its labels",
        )
    if model.pool_selector is not None and not model.pool_selector.matches(pool.labels):
        return Rejection(Reason.POOL_NOT_SELECTED, "spec.pools does not select the pool's labels")
    if pool.backends and variant.backend not in pool.backends:
        return Rejection(
            Reason.BACKEND_MISSING, f"needs backend {variant.backend}, the pool has {', '.join(sorted(pool.backends))}"
        )
    if variant.quality < model.min_quality:
        return Rejection(Reason.QUALITY_TOO_LOW, f"quality {variant.quality:g} is below minQuality {model.min_quality:g}")
    points = matching_points(variant, pool)
    sizes = [variant.memory_bytes if point.memory_bytes is None else point.memory_bytes for point in points]
    least_bytes = min(sizes, default=variant.memory_bytes)
    if least_bytes > pool.memory_bytes:
        return Rejection(
            Reason.MEMORY_TOO_SMALL, f"needs {format_bytes(least_bytes)}, a server has {format_bytes(pool.memory_bytes)}"
        )
    latencies = [p.latency_seconds or 0.0 for p, size in zip(points, sizes, strict=True) if size <= pool.memory_bytes]
    target = model.slo_latency_seconds
    if latencies and all(busy_share_limit(pool, target, latency) is None for latency in latencies):
        return Rejection(
            Reason.LATENCY_TOO_HIGH,
            f"takes {min(latencies) * 1e3:g} ms alone there, which leaves too little of {(target or 0) * 1e3:g} ms for a queue",
        )
    if pool.deleting:
        return Rejection(Reason.POOL_DELETED, "the pool is being deleted")
    return None


def _takes_namespace(fleet: Fleet, pool: Pool, namespace: str) -> bool:
    if pool.namespaces is None:
        return namespace == fleet.operator_namespace
    return pool.namespaces.matches(fleet.namespace_labels(namespace))


def judge_all(
    fleet: Fleet, models: Sequence[Model], model_of: Ints, variants: Sequence[Variant], pools: Sequence[Pool], best: BestPoints
) -> Ints:
    """Per (variant, pool) the place in ORDER of the first reason that holds, or len(ORDER) for a candidate."""
    memory = np.array([float(pool.memory_bytes) for pool in pools])
    own_fits = np.array([float(v.memory_bytes) for v in variants])[:, None] <= memory
    fits = np.where(best.any_matches, best.any_fits, own_fits)
    in_time = ~best.any_matches | (best.index >= 0)
    quality = np.array([v.quality for v in variants])
    least_quality = np.array([m.min_quality for m in models])[model_of] if len(models) else quality
    good_enough = np.broadcast_to((quality >= least_quality)[:, None], fits.shape)
    deleting = np.broadcast_to(np.array([pool.deleting for pool in pools], np.bool_), fits.shape)
    holds = (
        ~_class_fits(variants, pools),
        ~_namespace_fits(fleet, models, pools)[model_of],
        ~_selector_fits(models, pools)[model_of],
        ~_backend_fits(variants, pools),
        ~good_enough,
        ~fits,
        ~in_time,
        deleting,
    )
    first = np.full(fits.shape, len(ORDER), np.int64)
    for place in reversed(range(len(ORDER))):
        first[holds[place]] = place
    return first


def _class_fits(variants: Sequence[Variant], pools: Sequence[Pool]) -> Bools:
    rows = {kinds: [pool.accelerator_class in kinds for pool in pools] for kinds in {v.accelerators for v in variants}}
    return _stack([rows[v.accelerators] for v in variants], len(pools))


def _backend_fits(variants: Sequence[Variant], pools: Sequence[Pool]) -> Bools:
    rows = {b: [not pool.backends or b in pool.backends for pool in pools] for b in {v.backend for v in variants}}
    return _stack([rows[v.backend] for v in variants], len(pools))


def _namespace_fits(fleet: Fleet, models: Sequence[Model], pools: Sequence[Pool]) -> Bools:
    names = {model.key.namespace for model in models}
    rows = {name: [_takes_namespace(fleet, pool, name) for pool in pools] for name in names}
    return _stack([rows[model.key.namespace] for model in models], len(pools))


def _selector_fits(models: Sequence[Model], pools: Sequence[Pool]) -> Bools:
    every = [True] * len(pools)
    return _stack(
        [every if (s := m.pool_selector) is None else [s.matches(pool.labels) for pool in pools] for m in models], len(pools)
    )


def _stack(rows: list[list[bool]], columns: int) -> Bools:
    return np.array(rows, np.bool_).reshape(len(rows), columns)
