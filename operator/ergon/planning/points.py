"""The best operating point of every variant on every pool (planning.md, Candidates), for all of them at once.

Rows are variants or their points, columns are pools: a thousand models on twenty pools are a few array operations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ergon.fleet.points import points_on
from ergon.fleet.types import OperatingPoint, Pool, Variant
from ergon.planning.arrays import Bools, Floats, Ints

LEAST_BUSY_SHARE = 0.05
"""A latency target that leaves less of a server than this for planned work cannot be met by queueing theory that holds."""

_SAME = 1e-12
"""Marginal energies this close, relative, are one up to rounding."""

_NO_PRODUCT, _OTHER = -1, -2


def busy_share_limit(pool: Pool, slo_seconds: float | None, latency_seconds: float) -> float | None:
    """rho_m: the busy share of a server up to which a point keeps the latency target; None where it cannot."""
    if slo_seconds is None:
        return pool.max_busy_share
    if latency_seconds >= slo_seconds:
        return None
    limit = min(pool.max_busy_share, (slo_seconds - latency_seconds) / (slo_seconds + 2 * latency_seconds))
    return limit if limit >= LEAST_BUSY_SHARE else None


def sound(point: OperatingPoint) -> bool:
    """Whether the point's figures can be figures; what cannot is left out, as if it were not said."""
    latency, watts, awake, memory = point.latency_seconds, point.watts, point.awake_watts, point.memory_bytes
    return (
        0 < point.work_per_second < math.inf
        and (latency is None or 0 <= latency < math.inf)
        and (watts is None or 0 <= watts < math.inf)
        and (awake is None or 0 <= awake < math.inf)
        and (memory is None or 0 <= memory < math.inf)
    )


def matching_points(variant: Variant, pool: Pool) -> list[OperatingPoint]:
    """The points that speak of the pool: those of its product, or where none names it, those of its class."""
    usable = [point for point in variant.points if sound(point)]
    return points_on(usable, pool.product, pool.accelerator_class)


@dataclass(frozen=True, slots=True)
class BestPoints:
    """Per (variant, pool). `index` is the point's place in its variant, -1 where none is feasible; watts are the server's.

    `mu` is work per second (0 unknown), `slope_watts` W - A, `awake_watts` A - I, `rho` the busy share limit.
    """

    index: Ints
    mu: Floats
    rho: Floats
    slope_watts: Floats
    awake_watts: Floats
    memory_bytes: Floats
    any_matches: Bools
    any_fits: Bools


@dataclass(frozen=True, slots=True)
class _Points:
    """All points of all variants, one a row. NaN: not said."""

    variant: Ints
    place: Ints
    product: Ints
    class_: Ints
    mu: Floats
    latency: Floats
    watts: Floats
    awake: Floats
    memory: Floats


def best_points(variants: Sequence[Variant], slo_seconds: Floats, pools: Sequence[Pool]) -> BestPoints:
    """The feasible point with the least marginal energy of each variant on each pool; ties: larger rate, lower awake watts.

    `slo_seconds` has one entry a variant, infinite where there is no target.
    """
    shape = (len(variants), len(pools))
    points = _flatten(variants, pools)
    busy = np.array([_busy_watts(pool) for pool in pools], float)
    idle = np.array([pool.idle_watts for pool in pools], float)
    best = BestPoints(
        index=np.full(shape, -1, np.int64),
        mu=np.zeros(shape),
        rho=np.broadcast_to(np.array([pool.max_busy_share for pool in pools], float), shape).copy(),
        slope_watts=np.broadcast_to(np.maximum(busy - idle, 0), shape).copy(),
        awake_watts=np.zeros(shape),
        memory_bytes=np.broadcast_to(np.array([float(v.memory_bytes) for v in variants])[:, None], shape).copy(),
        any_matches=np.zeros(shape, np.bool_),
        any_fits=np.zeros(shape, np.bool_),
    )
    if points.variant.size and pools:
        _choose(points, slo_seconds, pools, best)
    return best


def _busy_watts(pool: Pool) -> float:
    return max(pool.idle_watts, pool.busy_watts if pool.busy_watts is not None else pool.idle_watts)


def _flatten(variants: Sequence[Variant], pools: Sequence[Pool]) -> _Points:
    """All points that are sound, each variant's in an order that owes nothing to how they were written: the smallest first."""
    products = {name: number for number, name in enumerate(sorted({p.product for p in pools if p.product is not None}))}
    classes = {name: number for number, name in enumerate(sorted({p.accelerator_class for p in pools}))}
    nan = float("nan")
    rows = [
        (
            v,
            place,
            _NO_PRODUCT if point.product is None else products.get(point.product, _OTHER),
            _NO_PRODUCT if point.accelerator_class is None else classes.get(point.accelerator_class, _OTHER),
            point.work_per_second,
            point.latency_seconds or 0.0,
            nan if point.watts is None else point.watts,
            nan if point.awake_watts is None else point.awake_watts,
            variant.memory_bytes if point.memory_bytes is None else point.memory_bytes,
            -1.0 if point.memory_bytes is None else point.memory_bytes,
            point.batch,
            -1.0 if point.latency_seconds is None else point.latency_seconds,
        )
        for v, variant in enumerate(variants)
        for place, point in enumerate(variant.points)
        if sound(point)
    ]
    table = np.array(rows, float).reshape(len(rows), 12)
    watts, awake = (np.where(np.isnan(table[:, column]), -1.0, table[:, column]) for column in (6, 7))
    v, product, class_, mu, said, batch, latency = (table[:, column] for column in (0, 2, 3, 4, 9, 10, 11))
    table = table[np.lexsort((class_, product, awake, watts, latency, mu, batch, said, v)), :9]
    whole = table[:, :4].astype(np.int64)
    return _Points(whole[:, 0], whole[:, 1], whole[:, 2], whole[:, 3], *(table[:, column] for column in range(4, 9)))


def _choose(points: _Points, slo_seconds: Floats, pools: Sequence[Pool], best: BestPoints) -> None:
    """Fill `best` where points match."""
    with_points, starts = np.unique(points.variant, return_index=True)
    row_of_point = np.repeat(np.arange(len(with_points)), np.diff(np.append(starts, len(points.variant))))
    matched = _matched(points, pools, starts, row_of_point)
    fits = matched & (points.memory[:, None] <= np.array([float(pool.memory_bytes) for pool in pools]))
    rho = _rho(points, slo_seconds, pools)
    feasible = fits & ~np.isnan(rho)

    idle = np.array([pool.idle_watts for pool in pools], float)
    watts = np.where(np.isnan(points.watts)[:, None], np.array([_busy_watts(p) for p in pools]), points.watts[:, None])
    watts = np.maximum(watts, idle)
    awake = np.where(np.isnan(points.awake)[:, None], idle, points.awake[:, None])
    awake = np.clip(awake, idle, watts)
    mu = np.broadcast_to(points.mu[:, None], feasible.shape)

    energy = np.where(feasible, (watts - awake) / mu, np.inf)
    best_energy = np.minimum.reduceat(energy, starts, axis=0)[row_of_point]
    least = energy <= best_energy * (1 + _SAME) + _SAME * 1e-3
    rate = np.where(feasible & least, mu, -np.inf)
    tied = feasible & least & (rate == np.maximum.reduceat(rate, starts, axis=0)[row_of_point])
    height = np.where(tied, awake, np.inf)
    tied &= height == np.minimum.reduceat(height, starts, axis=0)[row_of_point]
    rows = np.arange(len(points.variant))[:, None]
    chosen = np.minimum.reduceat(np.where(tied, rows, len(rows)), starts, axis=0)

    v, p = np.nonzero(chosen < len(rows))
    point = chosen[v, p]
    variant = with_points[v]
    best.any_matches[with_points] = np.logical_or.reduceat(matched, starts, axis=0)
    best.any_fits[with_points] = np.logical_or.reduceat(fits, starts, axis=0)
    best.index[variant, p] = points.place[point]
    best.mu[variant, p] = points.mu[point]
    best.rho[variant, p] = rho[point, p]
    best.slope_watts[variant, p] = (watts - awake)[point, p]
    best.awake_watts[variant, p] = (awake - idle)[point, p]
    best.memory_bytes[variant, p] = points.memory[point]


def _matched(points: _Points, pools: Sequence[Pool], starts: Ints, row_of_point: Ints) -> Bools:
    products = {name: number for number, name in enumerate(sorted({p.product for p in pools if p.product is not None}))}
    classes = {name: number for number, name in enumerate(sorted({p.accelerator_class for p in pools}))}
    pool_product = np.array([_OTHER - 1 if p.product is None else products[p.product] for p in pools])
    pool_class = np.array([classes[p.accelerator_class] for p in pools])
    by_product = points.product[:, None] == pool_product
    product_is_named = np.logical_or.reduceat(by_product, starts, axis=0)[row_of_point]
    by_class = (points.product == _NO_PRODUCT)[:, None] & (points.class_[:, None] == pool_class)
    matched: Bools = by_product | (by_class & ~product_is_named)
    return matched


def _rho(points: _Points, slo_seconds: Floats, pools: Sequence[Pool]) -> Floats:
    """The busy share limit of each point on each pool, NaN where the latency target cannot be met."""
    slo = slo_seconds[points.variant]
    limit = np.ones(len(slo))
    timed = np.isfinite(slo)
    limit[timed] = (slo[timed] - points.latency[timed]) / (slo[timed] + 2 * points.latency[timed])
    rho: Floats = np.minimum(np.array([pool.max_busy_share for pool in pools], float), limit[:, None])
    late = timed & (points.latency >= slo)
    rho[timed[:, None] & (late[:, None] | (rho < LEAST_BUSY_SHARE))] = np.nan
    return rho
