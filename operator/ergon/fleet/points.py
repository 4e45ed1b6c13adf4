"""Which operating points speak of a pool: the one rule that planning, demand and energy share."""

from collections.abc import Iterable

from ergon.fleet.types import OperatingPoint, Variant


def points_on(points: Iterable[OperatingPoint], product: str | None, accelerator_class: str) -> list[OperatingPoint]:
    """Those of the pool's product, or where none names it, those of its class (docs/planning.md); in the order given.

    A point that names a product never speaks of another by its class. Which points are usable at all is the caller's to say.
    """
    known = list(points)
    of_product = [point for point in known if point.product is not None and point.product == product]
    return of_product or [p for p in known if p.product is None and p.accelerator_class == accelerator_class]


def least_declared_bytes(variant: Variant, product: str | None, accelerator_class: str) -> int:
    """Memory that a variant declares for servers of a pool: the least that one of its points there says, else the variant's."""
    said = points_on(variant.points, product, accelerator_class)
    return min((variant.memory_bytes if p.memory_bytes is None else p.memory_bytes for p in said), default=variant.memory_bytes)
