"""What a plan leaves to the one after it: the arrays it was made from, and the prices of its bound.

A value like any other: it comes with a plan and is handed to the next, so the same snapshot and ground give the same plan.
"""

from dataclasses import dataclass

import numpy as np

from ergon.planning.arrays import Floats, Ints
from ergon.planning.linear import Prices
from ergon.planning.pool_programme import LEVELS
from ergon.planning.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """`prices`: in watts, of the rows of the pool level by what they speak of; empty where there are none."""

    problem: Problem
    prices: Prices

    def prices_for(self, problem: Problem) -> Prices:
        """The prices of what there is in another problem too, by its own numbers."""
        old, new = self.problem, problem
        models = _places([model.key for model in old.models], [model.key for model in new.models])
        pools = _places([pool.name for pool in old.pools], [pool.name for pool in new.pools])
        found: dict[str, tuple[Ints, Floats]] = {}
        for name, (numbers, prices) in self.prices.items():
            match name.split()[0]:
                case "model":
                    renumbered = models[numbers]
                case "pool":
                    renumbered = pools[numbers]
                case "level":
                    renumbered = np.where(pools[numbers // LEVELS] < 0, -1, pools[numbers // LEVELS] * LEVELS + numbers % LEVELS)
                case "place":
                    m, p = models[numbers // len(pools)], pools[numbers % len(pools)]
                    renumbered = np.where((m < 0) | (p < 0), -1, m * len(new.pools) + p)
                case _:
                    same = old.fleet.watt_limits == new.fleet.watt_limits
                    renumbered = numbers if same else np.full(len(numbers), -1)
            kept = np.flatnonzero(renumbered >= 0)
            kept = kept[np.argsort(renumbered[kept], kind="stable")]
            found[name] = (renumbered[kept], prices[kept])
        return found


def _places(old: list[object], new: list[object]) -> Ints:
    """Where each of the old is among the new, -1 where it is not."""
    place = {what: number for number, what in enumerate(new)}
    return np.array([place.get(what, -1) for what in old], np.int64)
