"""A state that is too long is cut to what fits, from the end, and only where it may be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.engine.packed import packed, united, unpacked

entries = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60)


@given(entries, entries, entries, st.integers(0, 2000))
def test_what_stays_fits_and_is_the_first_of_each(one: list[float], other: list[float], must: list[float], most: int) -> None:
    state: dict[str, Any] = {
        "must": must,
        "one": one,
        "deep": {"other": {str(n): value for n, value in enumerate(other)}, "too": 1},
    }
    found = packed(state, most, [[("one",)], [("deep", "other")]])
    if found is None:
        assert packed({"must": must, "one": [], "deep": {"other": {}, "too": 1}}, most, []) is None
        return
    text, share = found
    assert len(text) <= most
    kept = unpacked(text)
    assert (kept["must"], kept["deep"]["too"]) == (must, 1)
    assert kept["one"] == one[: len(kept["one"])]
    assert list(kept["deep"]["other"].values()) == other[: len(kept["deep"]["other"])]
    assert (kept == state) == (share == 1.0) or not (one or other)
    assert kept["deep"]["other"] == state["deep"]["other"] or not kept["one"], "the first group goes first"


def test_what_may_go_goes_only_as_far_as_it_must() -> None:
    state = {"list": [number / 7 for number in range(4000)]}
    whole = packed(state, 10**6, ())
    assert whole is not None
    found = packed(state, len(whole[0]) // 2, [[("list",)]])
    assert found is not None
    assert len(unpacked(found[0])["list"]) > 4000 * 0.4


def test_pieces_become_one() -> None:
    pieces: list[dict[str, Any]] = [{"version": 1, "models": {"a": 1}}, {"models": {"b": 2}}, {"models": {}}]
    assert united(pieces) == {"version": 1, "models": {"a": 1, "b": 2}}


@pytest.mark.parametrize("text", ["", "AAAA", "H4sIAAAAAAAC/wMAAAAAAAAAAAA=", "bm8="])
def test_what_was_never_packed_is_refused(text: str) -> None:
    with pytest.raises((ValueError, OSError, EOFError)):
        unpacked(text)
