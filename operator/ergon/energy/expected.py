"""What a request would take, before any was measured: from operating points, as planning counts it. Always assumed."""

from collections.abc import Iterable

from ergon.energy.power import matching_points, power_curve
from ergon.fleet.types import Pool, Variant

TOKENS_A_REQUEST = 100.0
"""Of models whose work is counted in tokens, until requests were measured."""


def expected_joules(places: Iterable[tuple[Variant, Pool]]) -> float | None:
    """Joules that one more request adds, (W - A) / mu x pue, at the cheapest of these places; None where no point says it."""
    return min((joules for variant, pool in places for joules in _joules(variant, pool)), default=None)


def _joules(variant: Variant, pool: Pool) -> list[float]:
    curve = power_curve(variant, pool)
    return [
        pool.pue
        * (curve.executing_watts(point.batch) - curve.awake_at(point.batch))
        / point.work_per_second
        * (TOKENS_A_REQUEST if point.counts_tokens else 1.0)
        for point in matching_points(variant, pool)
    ]
