"""Models as fluids over pools, a linear programme: how loaded a fleet is, and about where its energy would go."""

from dataclasses import dataclass

import highspy
import numpy as np


@dataclass(frozen=True)
class Item:
    """A model: by pool, the servers' busy room and memory room it takes there as a whole, and its watts."""

    choices: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Fluid:
    """`load`: the least share that fits all; `watts` by pool."""

    load: float
    watts: dict[str, float]


def fluid(items: list[Item], servers: dict[str, float], *, busy: bool = True, memory: bool = True, least_energy: bool) -> Fluid:
    """Spread the items so that the fullest pool is as empty as can be, or so that they take the least watts.

    `busy` and `memory` say which room counts.
    """
    items = [item for item in items if item.choices]
    pools = {name: number for number, name in enumerate(servers)}
    columns = [(number, pool) for number, item in enumerate(items) for pool in item.choices]
    figures = np.array([items[number].choices[pool] for number, pool in columns]).reshape(-1, 3)
    pool_of = np.array([pools[pool] for _, pool in columns], dtype=np.int32)
    count = len(columns)
    rows = len(items) + 2 * len(pools)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = count + 1, rows
    lp.col_cost_ = np.append(figures[:, 2], 0.0) if least_energy else np.append(np.zeros(count), 1.0)
    lp.col_lower_, lp.col_upper_ = np.zeros(count + 1), np.append(np.ones(count), 1.0 if least_energy else np.inf)
    rooms = np.array([servers[name] for name in pools] * 2)
    lp.row_lower_ = np.append(np.ones(len(items)), np.full(2 * len(pools), -np.inf))
    lp.row_upper_ = np.append(np.ones(len(items)), np.zeros(2 * len(pools)))
    item_of = np.array([number for number, _ in columns], dtype=np.int32)
    index = np.column_stack([item_of, len(items) + pool_of, len(items) + len(pools) + pool_of]).reshape(-1)
    value = np.column_stack([np.ones(count), figures[:, 0] * busy, figures[:, 1] * memory]).reshape(-1)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.append(np.arange(0, 3 * count + 1, 3), 3 * count + len(rooms))
    lp.a_matrix_.index_ = np.append(index, np.arange(len(items), rows)).astype(np.int32)
    lp.a_matrix_.value_ = np.append(value, -rooms)
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(lp)
    solver.run()
    values = np.array(solver.getSolution().col_value)
    watts = np.bincount(pool_of, figures[:, 2] * values[:-1], len(pools))
    return Fluid(float(values[-1]), {name: float(watts[number]) for name, number in pools.items()})
