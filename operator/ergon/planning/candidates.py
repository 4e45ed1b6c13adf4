"""Which pools may serve which variants, and the first reason that holds for each that may not (planning.md, Candidates)."""

from dataclasses import dataclass
from enum import StrEnum

from ergon.api.quantities import format_bytes
from ergon.fleet.types import Fleet, Model, Pool, Variant


class Reason(StrEnum):
    """Why a variant is, or is not, on a pool."""

    LEAST_ENERGY = "LeastEnergy"
    KEPT = "Kept"
    MORE_ENERGY = "MoreEnergy"
    NO_ROOM = "NoRoom"
    FAILED_THERE = "FailedThere"
    ACCELERATOR_MISMATCH = "AcceleratorMismatch"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    POOL_NOT_SELECTED = "PoolNotSelected"
    BACKEND_MISSING = "BackendMissing"
    QUALITY_TOO_LOW = "QualityTooLow"
    MEMORY_TOO_SMALL = "MemoryTooSmall"
    POOL_DELETED = "PoolDeleted"


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
    if variant.memory_bytes > pool.memory_bytes:
        return Rejection(
            Reason.MEMORY_TOO_SMALL, f"needs {format_bytes(variant.memory_bytes)}, a server has {format_bytes(pool.memory_bytes)}"
        )
    if pool.deleting:
        return Rejection(Reason.POOL_DELETED, "the pool is being deleted")
    return None


def _takes_namespace(fleet: Fleet, pool: Pool, namespace: str) -> bool:
    if pool.namespaces is None:
        return namespace == fleet.operator_namespace
    return pool.namespaces.matches(fleet.namespace_labels(namespace))
