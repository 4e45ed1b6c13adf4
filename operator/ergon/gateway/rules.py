"""Whether an answer asks for a bigger model: a route's comparisons over named outputs. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ergon.api.route import Comparison
from ergon.gateway.columns import Column, Malformed, Value, named


class Reason(StrEnum):
    """Why the next model is asked."""

    CONFIDENCE = "Confidence"
    ABSTAINED = "Abstained"
    EMPTY = "Empty"
    MALFORMED = "Malformed"
    LATE = "Late"
    UNAVAILABLE = "Unavailable"
    FORCED = "Forced"


@dataclass(frozen=True)
class Sign:
    """One sign that a bigger model should be asked. The larger `urgency`, the less the answer is worth: how far a number is
    beyond its bound, as a share of the bound; infinite for an answer that says nothing."""

    reason: Reason
    urgency: float = math.inf


def judge(when: Sequence[Comparison], outputs: Mapping[str, Column]) -> Sign | None:
    """The most urgent sign in an answer; None where it is good as it is. An output that is named and missing is a sign too."""
    found: Sign | None = None
    for comparison in when:
        try:
            sign = _compared(comparison, named(outputs, comparison.output))
        except Malformed:
            return Sign(Reason.MALFORMED)
        if sign is not None and (found is None or sign.urgency > found.urgency):
            found = sign
    return found


def _compared(comparison: Comparison, column: Column) -> Sign | None:
    if not column.flat:
        raise Malformed(f"output {comparison.output} holds no values")
    if comparison.below is not None or comparison.above is not None:
        return _by_number(comparison, column)
    if comparison.empty:
        return Sign(Reason.EMPTY) if any(not _text(value).strip() for value in column.flat) else None
    return Sign(Reason.ABSTAINED) if any(_text(value) in comparison.equals for value in column.flat) else None


def _by_number(comparison: Comparison, column: Column) -> Sign | None:
    """The row that is furthest beyond the bound speaks for the answer."""
    largest = [max(map(_number, row)) for row in column.rows()]
    if comparison.below is not None:
        bound, beyond = comparison.below, comparison.below - min(largest)
    else:
        assert comparison.above is not None
        bound, beyond = comparison.above, max(largest) - comparison.above
    return Sign(Reason.CONFIDENCE, beyond / (abs(bound) or 1.0)) if beyond > 0 else None


def _number(value: Value) -> float:
    if isinstance(value, str) or math.isnan(number := _float(value)):
        raise Malformed("not a number")
    return number


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        raise Malformed("too large for a number") from None


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{_float(value):g}"
