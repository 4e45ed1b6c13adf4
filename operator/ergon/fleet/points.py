"""Which operating points speak of a pool: the one rule that planning, demand and energy share."""

from collections.abc import Iterable

from ergon.fleet.types import OperatingPoint


def points_on(points: Iterable[OperatingPoint], product: str | None, accelerator_class: str) -> list[OperatingPoint]:
    """Those of the pool's product, or where none names it, those of its class (docs/planning.md); in the order given.

    A point that names a product never speaks of another by its class. Which points are usable at all is the caller's to say.
    """
    known = list(points)
    of_product = [point for point in known if point.product is not None and point.product == product]
    return of_product or [p for p in known if p.product is None and p.accelerator_class == accelerator_class]
