"""Which variants may be on which pools and at which operating points, taken over from before for all that is the same.

Judging all pairs is a quarter of planning again after one change; hardly any of them differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Variant
from ergon.planning.arrays import Ints
from ergon.planning.candidates import judge_all
from ergon.planning.points import BestPoints, best_points


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """`number`: of a variant, by model and name. `model_of`: by variant. `best`, `reason`: by (variant, pool)."""

    variants: tuple[Variant, ...]
    number: Mapping[tuple[ModelKey, str], int]
    model_of: Ints
    best: BestPoints
    reason: Ints


Before = tuple[Fleet, tuple[Model, ...], tuple[Pool, ...], Judged]


def judged_again(fleet: Fleet, models: tuple[Model, ...], pools: tuple[Pool, ...], before: Before | None) -> Judged:
    """All variants on all pools; from before what is the same there. Models and pools are in the order of their names."""
    if before is None or not _same_world(fleet, pools, before[0], before[2]):
        return _judged(fleet, models, pools)
    _, old_models, _, old = before
    if models == old_models:
        return old
    place = {model.key: m for m, model in enumerate(old_models)}
    old_first = np.searchsorted(old.model_of, np.arange(len(old_models) + 1))
    sources = [place.get(model.key, -1) for model in models]
    sources = [m if m >= 0 and old_models[m] == model else -1 for m, model in zip(sources, models, strict=True)]
    new = _judged(fleet, tuple(model for model, m in zip(models, sources, strict=True) if m < 0), pools)
    rows: list[int] = []
    added = len(old.variants)
    for model, m in zip(models, sources, strict=True):
        start, count = (int(old_first[m]), len(model.variants)) if m >= 0 else (added, len(model.variants))
        rows += range(start, start + count)
        added += 0 if m >= 0 else count
    return _spliced(old, new, np.array(rows, np.int64), models)


def _same_world(fleet: Fleet, pools: tuple[Pool, ...], old: Fleet, old_pools: tuple[Pool, ...]) -> bool:
    """Whether pools differ only in which of their servers can be had, and namespaces not at all."""
    return (
        len(pools) == len(old_pools)
        and all(a == b or replace(a, unavailable=b.unavailable) == b for a, b in zip(pools, old_pools, strict=True))
        and fleet.namespaces == old.namespaces
        and fleet.operator_namespace == old.operator_namespace
    )


def _judged(fleet: Fleet, models: tuple[Model, ...], pools: tuple[Pool, ...]) -> Judged:
    variants = tuple(variant for model in models for variant in sorted(model.variants, key=lambda variant: variant.name))
    model_of = np.repeat(np.arange(len(models)), [len(model.variants) for model in models])
    slo = np.array([np.inf if m.slo_latency_seconds is None else m.slo_latency_seconds for m in models])
    best = best_points(variants, slo[model_of] if len(models) else slo, pools)
    reason = judge_all(fleet, models, model_of, variants, pools, best)
    return Judged(variants, _numbers(models, variants), model_of, best, reason)


def _numbers(models: Sequence[Model], variants: Sequence[Variant]) -> dict[tuple[ModelKey, str], int]:
    keys = (model.key for model in models for _ in model.variants)
    return {(key, variant.name): number for number, (key, variant) in enumerate(zip(keys, variants, strict=True))}


def _spliced(old: Judged, new: Judged, rows: Ints, models: tuple[Model, ...]) -> Judged:
    """Rows of the old, and after them of the new, in another order."""
    both = (*old.variants, *new.variants)
    names = [field.name for field in fields(BestPoints)]
    best = BestPoints(**{name: np.concatenate([getattr(old.best, name), getattr(new.best, name)])[rows] for name in names})
    variants = tuple(both[row] for row in rows.tolist())
    model_of = np.repeat(np.arange(len(models)), [len(model.variants) for model in models])
    return Judged(variants, _numbers(models, variants), model_of, best, np.concatenate([old.reason, new.reason])[rows])
