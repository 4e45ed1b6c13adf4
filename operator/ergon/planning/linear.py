"""A linear or mixed-integer programme in blocks of columns and rows, solved by HiGHS.

The one place that knows highspy. A solve never raises: without an answer in its limits it returns none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import highspy
import numpy as np

from ergon.planning.arrays import Bools, Floats, Ints

INFINITY = float("inf")


_MOST_SIFTINGS, _SIFTED_ENOUGH = 4, 2e-3
"""After so many, or where the bound is so near to the cost, the prices hardly change; and any prices give a bound."""


class _Quiet(highspy.Highs):
    """HiGHS that writes nothing: enabling its callbacks, which nobody here needs, prints a banner to stdout."""

    def enableCallbacks(self) -> None:  # noqa: N802
        """Called when it is made."""
        self.setOptionValue("output_flag", False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A solution. `bound`: no solution of this programme costs less (solver tolerance taken off). `prices`: by row, its dual."""

    values: Floats
    cost: float
    bound: float
    optimal: bool
    prices: Floats


Prices = Mapping[str, tuple[Ints, Floats]]
"""Prices of rows by what they speak of: for each name the numbers of its rows, ascending, and J of each."""


@dataclass(slots=True)
class _Block:
    cost: Floats
    lower: Floats
    upper: Floats
    whole: bool


@dataclass(slots=True)
class Programme:
    """Minimise cost . x with rows lower <= A x <= upper. Columns are boxed, so that every vector of row prices is a bound."""

    _blocks: list[_Block] = field(default_factory=list)
    _row_lower: list[Floats] = field(default_factory=list)
    _row_upper: list[Floats] = field(default_factory=list)
    _entries: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)
    _named: list[tuple[str, Ints, Ints]] = field(default_factory=list)
    columns: int = 0
    rows: int = 0

    def add_columns(self, cost: Floats, upper: Floats | float, lower: Floats | float = 0.0, *, whole: bool = False) -> Ints:
        """New columns, one for each cost; their numbers."""
        count = len(cost)
        block = _Block(
            np.asarray(cost, float),
            _filled(lower, count),
            _filled(upper, count),
            whole,
        )
        self._blocks.append(block)
        self.columns += count
        return np.arange(self.columns - count, self.columns)

    def add_rows(
        self,
        count: int,
        lower: Floats | float = -INFINITY,
        upper: Floats | float = INFINITY,
        name: str = "",
        of: Ints | None = None,
    ) -> Ints:
        """New rows; their numbers. `name`, `of`: what each speaks of, by which its price is found again in another programme."""
        if name:
            self._named.append((name, np.arange(count) if of is None else of, np.arange(self.rows, self.rows + count)))
        self._row_lower.append(_filled(lower, count))
        self._row_upper.append(_filled(upper, count))
        self.rows += count
        return np.arange(self.rows - count, self.rows)

    def put(self, rows: Ints, columns: Ints, values: Floats | float) -> None:
        """Coefficients; those of the same row and column add up."""
        self._entries.append((rows, columns, _filled(values, len(columns))))

    def name_prices(self, prices: Floats) -> Prices:
        """The prices of rows that have a name."""
        found: dict[str, tuple[Ints, Floats]] = {}
        for name, of, rows in self._named:
            before = found.get(name, (np.zeros(0, np.int64), np.zeros(0)))
            of, priced = np.concatenate([before[0], of]), np.concatenate([before[1], prices[rows]])
            order = np.argsort(of, kind="stable")
            found[name] = (of[order], priced[order])
        return found

    def priced(self, prices: Prices) -> tuple[float, Floats]:
        """At prices of rows by their names, the others 0: J of the rows, and by column its cost less what its rows pay."""
        price = np.zeros(self.rows)
        for name, of, rows in self._named:
            numbers, known = prices.get(name, (of[:0], np.zeros(0)))
            at = np.minimum(np.searchsorted(numbers, of), max(len(numbers) - 1, 0))
            if len(numbers):
                price[rows] = np.where(numbers[at] == of, known[at], 0.0)
        empty: Floats = np.zeros(0)
        lower, upper = np.concatenate([empty, *self._row_lower]), np.concatenate([empty, *self._row_upper])
        price, worth = _worth_of_rows(price, lower, upper)
        reduced = np.concatenate([empty, *(block.cost for block in self._blocks)])
        if self._entries:
            row, column, value = (np.concatenate([entry[k] for entry in self._entries]) for k in range(3))
            reduced -= np.bincount(column.astype(np.int64), weights=value * price[row.astype(np.int64)], minlength=self.columns)
        return worth, reduced

    def boxes(self) -> tuple[Floats, Floats]:
        """By column, its least and its most."""
        empty: Floats = np.zeros(0)
        lower, upper = ([getattr(block, name) for block in self._blocks] for name in ("lower", "upper"))
        return np.concatenate([empty, *lower]), np.concatenate([empty, *upper])

    @property
    def cost(self) -> Floats:
        """By column."""
        return np.concatenate([np.zeros(0), *(block.cost for block in self._blocks)])

    def solver(self, seconds: float, tolerance: float = 1e-7) -> "Solver":
        """The programme, handed over to HiGHS."""
        empty: Floats = np.zeros(0)
        cost, lower, upper = (
            np.concatenate([empty, *(getattr(block, name) for block in self._blocks)]) for name in ("cost", "lower", "upper")
        )
        whole = np.concatenate([empty.astype(bool), *(np.full(len(b.cost), b.whole) for b in self._blocks)])
        row_lower, row_upper = np.concatenate([empty, *self._row_lower]), np.concatenate([empty, *self._row_upper])
        made = Solver(
            cost, lower, upper, whole, row_lower, row_upper, _by_columns(self._entries, self.columns, self.rows), seconds
        )
        made.set_tolerance(tolerance)
        return made


def _filled(values: Floats | float, count: int) -> Floats:
    """One figure for each, or the same for all."""
    return np.full(count, float(values)) if isinstance(values, float | int) else np.array(values, float)


@dataclass(frozen=True, slots=True)
class _Matrix:
    start: Ints
    row: Ints
    value: Floats
    column: Ints


def _by_columns(entries: list[tuple[Ints, Ints, Floats]], columns: int, rows: int) -> _Matrix:
    if not entries:
        return _Matrix(np.zeros(columns + 1, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    row, column, value = (np.concatenate([entry[k] for entry in entries]) for k in range(3))
    place, inverse = np.unique(column.astype(np.int64) * max(rows, 1) + row, return_inverse=True)
    total = np.bincount(inverse, weights=value, minlength=len(place))
    place, total = place[total != 0], total[total != 0]
    column, row = place // max(rows, 1), place % max(rows, 1)
    return _Matrix(np.searchsorted(column, np.arange(columns + 1)), row, total, column)


class Solver:
    """A programme inside HiGHS: it can be solved again with other costs and limits."""

    def __init__(
        self,
        cost: Floats,
        lower: Floats,
        upper: Floats,
        whole: Bools,
        row_lower: Floats,
        row_upper: Floats,
        matrix: _Matrix,
        seconds: float,
    ) -> None:
        self.cost, self.lower, self.upper, self.whole = cost, lower, upper, whole
        self.row_lower, self.row_upper = row_lower, row_upper
        self._matrix, self._seconds = matrix, seconds
        self._highs = _Quiet()  # type: ignore[no-untyped-call]
        for option, setting in (("threads", 1), ("time_limit", seconds), ("random_seed", 0)):
            self._highs.setOptionValue(option, setting)
        programme = highspy.HighsLp()
        programme.num_col_, programme.num_row_ = len(cost), len(row_lower)
        programme.col_cost_, programme.col_lower_, programme.col_upper_ = cost, lower, upper
        programme.row_lower_, programme.row_upper_ = row_lower, row_upper
        programme.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        programme.a_matrix_.start_ = matrix.start
        programme.a_matrix_.index_ = matrix.row
        programme.a_matrix_.value_ = matrix.value
        self._highs.passModel(programme)

    def set_tolerance(self, tolerance: float) -> None:
        """How far rows and columns may be bent (at least 1e-10)."""
        self._highs.setOptionValue("primal_feasibility_tolerance", tolerance)
        self._highs.setOptionValue("mip_feasibility_tolerance", max(tolerance, 1e-10))

    def without_presolve(self) -> None:
        """Solve the programme as it is."""
        self._highs.setOptionValue("presolve", "off")

    def set_cost(self, cost: Floats) -> None:
        """Minimise this from now on."""
        self.cost = cost
        columns = np.arange(len(cost), dtype=np.int32)
        self._highs.changeColsCost(len(cost), columns, cost)

    def set_column(self, column: int, lower: float, upper: float) -> None:
        """Box one column anew."""
        self.lower[column], self.upper[column] = lower, upper
        self._highs.changeColBounds(column, lower, upper)

    def set_row(self, row: int, lower: float, upper: float) -> None:
        """Limit one row anew."""
        self.row_lower[row], self.row_upper[row] = lower, upper
        self._highs.changeRowBounds(row, lower, upper)

    def set_rows(self, rows: Ints, lower: Floats, upper: Floats) -> None:
        """Limit several rows anew."""
        self.row_lower[rows], self.row_upper[rows] = lower, upper
        self._highs.changeRowsBounds(len(rows), rows.astype(np.int32), lower, upper)  # type: ignore[attr-defined]

    def set_columns(self, columns: Ints, lower: Floats, upper: Floats) -> None:
        """Box several columns anew."""
        self.lower[columns], self.upper[columns] = lower, upper
        self._highs.changeColsBounds(len(columns), columns.astype(np.int32), lower, upper)

    def hold(self, columns: Ints, weights: Floats, most: float, slack: float = 1e-7) -> None:
        """Let the weighted sum of these columns be no more than this from now on, up to rounding."""
        self._highs.addRow(-INFINITY, max(0.0, most) * (1 + 1e-9) + slack, len(columns), columns.astype(np.int32), weights)

    def relaxed(self) -> Answer | None:
        """The optimum without whole numbers, with a bound from the row prices that owes nothing to the solver's tolerance."""
        self._highs.clearSolver()  # from scratch, with presolve: from where it stands it may stall on degenerate vertices
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution = self._highs.getSolution()
        values, prices = np.asarray(solution.col_value), np.asarray(solution.row_dual)[: len(self.row_lower)]
        return Answer(values, float(self.cost @ values), self._priced_bound(prices), True, prices)

    def add_columns(self, cost: Floats, upper: Floats, start: Ints, row: Ints, value: Floats) -> None:
        """New columns, from 0 to `upper`; the coefficients of column k are entries start[k] to start[k + 1] - 1."""
        count = len(cost)
        self._highs.addCols(
            count, cost, np.zeros(count), upper, len(row), start[:-1].astype(np.int32), row.astype(np.int32), value
        )
        self.cost = np.concatenate([self.cost, cost])
        self.lower, self.upper = np.concatenate([self.lower, np.zeros(count)]), np.concatenate([self.upper, upper])
        self.whole = np.concatenate([self.whole, np.zeros(count, np.bool_)])

    def go_on(self) -> Answer | None:
        """The optimum without whole numbers, found from the last one; its bound is none, since columns may be missing."""
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution = self._highs.getSolution()
        values, prices = np.asarray(solution.col_value), np.asarray(solution.row_dual)[: len(self.row_lower)]
        return Answer(values, float(self.cost @ values), -INFINITY, True, prices)

    def sifted(self, start: Bools) -> Answer | None:
        """The optimum without whole numbers, found with few columns: those of `start`, then any that the prices call for."""
        active, found = start.copy(), None
        for _ in range(_MOST_SIFTINGS):
            answer = self._with_columns(active).relaxed()
            if answer is None:
                break
            values = self.lower.copy()
            values[active] = answer.values
            found = Answer(values, answer.cost, self._priced_bound(answer.prices), True, answer.prices)
            reduced = np.where(active | (self.upper <= self.lower), 0.0, self._reduced(answer.prices) / (1.0 + np.abs(self.cost)))
            called = np.flatnonzero(reduced < -1e-7)
            if not len(called) or found.cost - found.bound <= _SIFTED_ENOUGH * abs(found.cost):
                break
            most = int(active.sum()) // 3
            active[called[np.argsort(reduced[called], kind="stable")[:most]]] = True
        return found

    def _with_columns(self, active: Bools) -> "Solver":
        """The programme with some of its columns, the others at 0."""
        matrix, number = self._matrix, np.cumsum(active) - 1
        kept = active[matrix.column]
        column = number[matrix.column[kept]]
        count = int(active.sum())
        part = _Matrix(np.searchsorted(column, np.arange(count + 1)), matrix.row[kept], matrix.value[kept], column)
        boxes = (self.cost[active], self.lower[active], self.upper[active], self.whole[active])
        return Solver(*boxes, self.row_lower, self.row_upper, part, self._seconds)

    def _reduced(self, prices: Floats) -> Floats:
        """By column, its cost less what its rows pay."""
        paid = np.bincount(self._matrix.column, weights=self._matrix.value * prices[self._matrix.row], minlength=len(self.cost))
        return self.cost - paid

    def in_whole(self, nodes: int, gap: float = 0.0, start: Floats | None = None) -> Answer | None:
        """The best solution in whole numbers within so many nodes."""
        columns = np.flatnonzero(self.whole).astype(np.int32)
        self._highs.changeColsIntegrality(
            len(columns), columns, np.full(len(columns), int(highspy.HighsVarType.kInteger), np.uint8)
        )
        self._highs.setOptionValue("mip_max_nodes", nodes)
        self._highs.setOptionValue("mip_rel_gap", max(gap, 1e-6))
        if start is not None:
            given = highspy.HighsSolution()
            given.col_value = start.tolist()
            self._highs.setSolution(given)
        self._highs.run()
        info = self._highs.getInfo()
        values = np.asarray(self._highs.getSolution().col_value)
        status = self._highs.getModelStatus()
        solved = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible and len(values) == len(self.cost)
        self._highs.changeColsIntegrality(
            len(columns), columns, np.full(len(columns), int(highspy.HighsVarType.kContinuous), np.uint8)
        )
        if not solved:
            return None
        cost = float(self.cost @ values)
        bound = float(info.mip_dual_bound)
        return Answer(values, cost, bound - 2e-6 * abs(bound), status == highspy.HighsModelStatus.kOptimal, np.zeros(0))

    def _priced_bound(self, price: Floats) -> float:
        """Weak duality: the value of any row prices, with columns at the ends of their boxes."""
        price, rows = _worth_of_rows(price, self.row_lower, self.row_upper)
        reduced = self._reduced(price)
        boxes = np.where(reduced > 0, self.lower, self.upper)
        return float(rows + np.dot(reduced, boxes))


def _worth_of_rows(price: Floats, lower: Floats, upper: Floats) -> tuple[Floats, float]:
    """The prices that rows may have, 0 where a price speaks of a side that has no limit; and J of the rows at these."""
    price = np.where((price > 0) & np.isinf(lower), 0.0, price)
    price = np.where((price < 0) & np.isinf(upper), 0.0, price)
    limits = np.where(price > 0, lower, upper)
    return price, float(np.dot(price, np.where(price == 0, 0.0, limits)))
