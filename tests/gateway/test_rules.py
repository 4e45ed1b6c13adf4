"""Which answers ask for a bigger model, and how much."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.api.route import Comparison
from ergon.gateway.columns import Column, Malformed, of_bytes, of_json
from ergon.gateway.rules import Reason, Sign, judge

BELOW = Comparison(output="SCORE", below=0.5)
ABOVE = Comparison(output="ENTROPY", above=2.0)
UNKNOWN = Comparison(output="LABEL", equals=["unknown", "other"])
EMPTY = Comparison(output="LABEL", empty=True)


def score(*rows: float) -> Column:
    return Column((len(rows), 1), rows)


def label(*rows: str) -> Column:
    return Column((len(rows), 1), rows)


@pytest.mark.parametrize(
    ("rule", "outputs", "reason"),
    [
        (BELOW, {"SCORE": score(0.9)}, None),
        (BELOW, {"SCORE": score(0.5)}, None),
        (BELOW, {"SCORE": score(0.49)}, Reason.CONFIDENCE),
        (BELOW, {"SCORE": score(0.9, 0.2)}, Reason.CONFIDENCE),
        (BELOW, {"SCORE": Column((1, 3), [0.1, 0.8, 0.1])}, None),
        (BELOW, {"SCORE": Column((2, 2), [0.9, 0.1, 0.4, 0.4])}, Reason.CONFIDENCE),
        (BELOW, {"SCORE": Column((), [0.2])}, Reason.CONFIDENCE),
        (BELOW, {"SCORE": score(math.nan)}, Reason.MALFORMED),
        (BELOW, {"SCORE": label("high")}, Reason.MALFORMED),
        (BELOW, {"SCORE": score(10**400)}, Reason.MALFORMED),
        (UNKNOWN, {"LABEL": score(10**400)}, Reason.MALFORMED),
        (UNKNOWN, {"LABEL": score(math.nan)}, None),
        (BELOW, {"SCORE": Column((0, 1), [])}, Reason.MALFORMED),
        (BELOW, {"OTHER": score(0.9)}, Reason.MALFORMED),
        (BELOW, {}, Reason.MALFORMED),
        (ABOVE, {"ENTROPY": score(2.0)}, None),
        (ABOVE, {"ENTROPY": score(2.1)}, Reason.CONFIDENCE),
        (ABOVE, {"ENTROPY": score(1.0, 3.0)}, Reason.CONFIDENCE),
        (UNKNOWN, {"LABEL": label("en")}, None),
        (UNKNOWN, {"LABEL": label("unknown")}, Reason.ABSTAINED),
        (UNKNOWN, {"LABEL": label("en", "other")}, Reason.ABSTAINED),
        (Comparison(output="CLASS", equals=["3"]), {"CLASS": score(3)}, Reason.ABSTAINED),
        (EMPTY, {"LABEL": label("en")}, None),
        (EMPTY, {"LABEL": label("")}, Reason.EMPTY),
        (EMPTY, {"LABEL": label("en", " \n")}, Reason.EMPTY),
    ],
)
def test_a_comparison_over_an_answer(rule: Comparison, outputs: dict[str, Column], reason: Reason | None) -> None:
    sign = judge([rule], outputs)
    assert (sign and sign.reason) == reason


def test_no_rule_speaks_against_no_answer() -> None:
    assert judge([], {}) is None


def test_of_several_signs_the_most_urgent_speaks() -> None:
    outputs = {"SCORE": score(0.4), "LABEL": label("unknown")}
    assert judge([BELOW, UNKNOWN], outputs) == Sign(Reason.ABSTAINED, math.inf)
    assert judge([UNKNOWN, BELOW], outputs) == Sign(Reason.ABSTAINED, math.inf)


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0.01, 1))
def test_the_least_sure_row_decides(scores: list[float], bound: float) -> None:
    sign = judge([Comparison(output="SCORE", below=bound)], {"SCORE": score(*scores)})
    assert (sign is not None) == (min(scores) < bound)


@given(st.floats(0, 0.49), st.floats(0, 0.49))
def test_the_less_sure_answer_is_the_more_urgent_one(one: float, other: float) -> None:
    signs = [judge([BELOW], {"SCORE": score(value)}) for value in (one, other)]
    assert signs[0] is not None
    assert signs[1] is not None
    assert (signs[0].urgency > signs[1].urgency) == (0.5 - one > 0.5 - other)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "INT64", "UINT16"])
def test_binary_numbers_are_read_as_they_were_written(datatype: str) -> None:
    kinds = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "i1", "INT64": "<i8", "UINT16": "<u2"}
    values = np.array([[1, 2], [3, 4]], dtype=kinds[datatype])
    assert list(of_bytes("X", datatype, [2, 2], values.tobytes()).rows()) == [[1, 2], [3, 4]]


def test_bf16_is_the_upper_half_of_a_float() -> None:
    data = struct.pack("<f", 0.5)[2:] + struct.pack("<f", -2.0)[2:]
    assert list(of_bytes("X", "BF16", [2], data).flat) == [0.5, -2.0]


@given(st.lists(st.text()))
def test_texts_come_back(texts: list[str]) -> None:
    raw = [text.encode(errors="replace") for text in texts]
    data = b"".join(struct.pack("<I", len(part)) + part for part in raw)
    assert list(of_bytes("X", "BYTES", [len(texts)], data).flat) == [part.decode() for part in raw]


@given(
    st.binary(max_size=64),
    st.sampled_from(["BYTES", "FP32", "BOOL", "BF16", "STRING", ""]),
    st.lists(st.integers(0, 4), max_size=3),
)
def test_whatever_bytes_come_the_worst_is_malformed(data: bytes, datatype: str, shape: list[int]) -> None:
    try:
        column = of_bytes("X", datatype, shape, data)
    except Malformed:
        return
    assert len(column.flat) == math.prod(shape)


@pytest.mark.parametrize(
    ("shape", "data"),
    [([1], []), ([2], [1]), ([1], None), (None, [1]), ([-1], [1]), (["1"], [1]), ([1], [None]), ([1], [{}]), ([1, 1], "x")],
)
def test_json_that_is_no_tensor_is_malformed(shape: object, data: object) -> None:
    with pytest.raises(Malformed):
        of_json("X", shape, data)


def test_nested_json_is_as_good_as_flat() -> None:
    assert list(of_json("X", [2, 2], [[1, 2], [3, 4]]).rows()) == list(of_json("X", [2, 2], [1, 2, 3, 4]).rows())
