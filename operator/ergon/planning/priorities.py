"""What a model's priority counts for: no more than the pools it may be on allow (planning.md, Input)."""

from dataclasses import replace

import numpy as np

from ergon.fleet.types import Fleet, Model, Pool
from ergon.planning.arrays import Ints
from ergon.planning.candidates import judge


def capped(priority: Ints, model: Ints, max_priority: Ints) -> Ints:
    """Every model's priority, at most the highest `max_priority` among its candidates; without any it stays. `model` and
    `max_priority` have one entry a candidate.
    """
    cap = np.full(len(priority), -1, np.int64)
    np.maximum.at(cap, model, max_priority)
    return np.where(cap >= 0, np.minimum(priority, cap), priority).astype(np.int64)


def with_capped_priorities(fleet: Fleet) -> Fleet:
    """The fleet with every model at the priority that it counts for. Only models above some pool's maxPriority are judged."""
    pools = sorted(fleet.pools, key=lambda pool: -pool.max_priority)
    least = pools[-1].max_priority if pools else 0
    asked = [place for place, model in enumerate(fleet.models) if pools and model.priority > least]
    if not asked:
        return fleet
    highest = [(place, pool.max_priority) for place in asked for pool in _first(fleet, fleet.models[place], pools)]
    priority = np.array([model.priority for model in fleet.models], np.int64)
    model_of, most = np.array(highest, np.int64).reshape(-1, 2).T
    models = zip(fleet.models, capped(priority, model_of, most).tolist(), strict=True)
    return replace(fleet, models=tuple(m if m.priority == counts else replace(m, priority=counts) for m, counts in models))


def _first(fleet: Fleet, model: Model, pools: list[Pool]) -> list[Pool]:
    """The first of the pools that the model has a candidate in, if any."""
    fits = (pool for pool in pools if any(judge(fleet, model, variant, pool) is None for variant in model.variants))
    return [found] if (found := next(fits, None)) is not None else []
