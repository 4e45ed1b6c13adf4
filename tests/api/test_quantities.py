"""Quantities and durations as Kubernetes and Go write them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.api.quantities import duration_seconds, format_bytes, quantity_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("600Mi", 600 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("2000k", 2_000_000),
        ("1024Ki", 2**20),
        ("1048.576k", 2**20),
        ("2M", 2 * 10**6),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("2e6", 2_000_000),
        ("2E6", 2_000_000),
        ("1.5e9", 1_500_000_000),
        ("1048576.1", 2**20 + 1),
        (1073741824, 2**30),
        (" 2Gi ", 2**31),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_quantities(text: str | int, count: int) -> None:
    assert quantity_bytes(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mi",
        "600MB",
        "600 Mi",
        "-1",
        "+1",
        "1.",
        ".5Gi",
        "1ki",
        "1e",
        "1e999",
        "1KiB",
        "600m",
        "١Gi",
        "9223372036854775808",
        "8Ei",
    ],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|too large"):
        quantity_bytes(text)


@pytest.mark.parametrize("text", ["0", "0Gi", "600", 600, "1M", "1023.9Ki", "1048575", "0.1"])
def test_what_is_less_than_a_mebibyte_was_meant_otherwise(text: str | int) -> None:
    with pytest.raises(ValueError, match="is too little; write a number with a unit such as 600Mi"):
        quantity_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("10s", 10), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("0s", 0), ("1m0.5s", 60.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "1d", "10 s", "-5s", "5mins", "10s\n", "1us"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write a number with a unit"):
        duration_seconds(text)


@given(st.integers(0, 2**53), st.sampled_from(["", "Ki", "Mi", "Gi"]))
def test_binary_units_are_powers_of_1024(number: int, unit: str) -> None:
    factor = 1024 ** ["", "Ki", "Mi", "Gi"].index(unit)
    if 2**20 <= number * factor < 2**63:
        assert quantity_bytes(f"{number}{unit}") == number * factor


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for read in (quantity_bytes, duration_seconds):
        with contextlib.suppress(ValueError):
            assert read(text) >= 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (600 * 2**20, "600 MiB"), (3 * 2**29, "1.5 GiB"), (2**50, "1024 TiB")]
)
def test_bytes_are_shown_readably(count: int, text: str) -> None:
    assert format_bytes(count) == text
