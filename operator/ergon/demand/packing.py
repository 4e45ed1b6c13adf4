"""A model's past in few characters, for a state that survives a restart."""

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ergon.demand.history import PER_QUARTER, QUARTERS, Floats, History

_STEP = 0.05
"""Rates are kept to 5 %, as steps of their logarithm below the largest."""

_DAY = 96
_HOURS = (QUARTERS - _DAY) // 4
_LONGEST_TEXT = 20_000


def pack_numbers(numbers: Sequence[float]) -> str:
    """Numbers as half precision over the largest of them, which stands before."""
    values = np.nan_to_num(np.array(numbers, float), posinf=0, neginf=0)
    largest = float(np.abs(values).max(initial=0)) or 1.0
    return f"{largest:.6g} " + base64.b85encode((values / largest).astype(np.float16).tobytes()).decode()


def unpack_numbers(text: Any, count: int) -> Floats | None:
    """What `pack_numbers` made of so many numbers; None for anything else."""
    try:
        largest, packed = text.split(" ", 1)
        raw = base64.b85decode(packed)
        values = np.frombuffer(raw, np.float16).astype(float) * float(largest)
    except (AttributeError, ValueError):
        return None
    return values if len(values) == count and bool(np.isfinite(values).all()) else None


def pack_past(history: History, row: int) -> str:
    """The quarters of the last day and the hours before it: newest quarter, largest rate, steps below it."""
    newest = (history.closed_minute + 1) // PER_QUARTER - 1
    if newest < 0:
        return ""
    quarters = history.quarters[row, (newest - np.arange(QUARTERS)) % QUARTERS].astype(float)
    hours = quarters[_DAY:].reshape(_HOURS, 4)
    known = (~np.isnan(hours)).sum(1)
    means = np.where(known > 0, np.nansum(hours, 1) / np.maximum(known, 1), np.nan)
    values = np.concatenate([quarters[:_DAY], means])
    largest = float(np.nanmax(values, initial=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = 255 + np.round(np.log(values / largest) / _STEP) if largest > 0 else np.where(np.isnan(values), np.nan, 1)
    codes = np.where(np.isnan(values), 0, np.where(values <= 0, 1, np.clip(steps, 2, 255))).astype(np.uint8)
    return f"{newest} {largest:.6g} " + base64.b85encode(zlib.compress(codes.tobytes(), 9)).decode()


def unpack_past(history: History, row: int, text: Any, now_seconds: float | None = None) -> float | None:
    """Puts a packed past back in its place; the last known rate, None where there is none or the text is no past.

    One whose newest quarter is not over at `now_seconds` was kept by a clock that ran ahead: it is moved back until it is, since
    no minute is counted before the newest one that is known.
    """
    try:
        newest_text, largest, packed = text.split(" ", 2)
        newest = int(newest_text)
        if len(packed) > _LONGEST_TEXT:
            return None
        raw = zlib.decompressobj().decompress(base64.b85decode(packed), _DAY + _HOURS + 1)
        codes = np.frombuffer(raw, np.uint8).astype(float)
        values = np.where(codes == 0, np.nan, np.where(codes == 1, 0, np.exp((codes - 255) * _STEP) * float(largest)))
    except (AttributeError, ValueError, zlib.error, binascii.Error):
        return None
    if len(values) != _DAY + _HOURS or newest < 0 or not np.nan_to_num(values).max() < np.inf:
        return None
    if now_seconds is not None:
        newest = min(newest, int(now_seconds // 60) // PER_QUARTER - 1)
    quarters = np.concatenate([values[:_DAY], np.repeat(values[_DAY:], 4)])
    now = history.closed_minute // PER_QUARTER if history.closed_minute >= 0 else newest
    numbers = newest - np.arange(len(quarters))
    fits = (numbers > now - QUARTERS) & (numbers <= now)
    history.quarters[row, numbers[fits] % QUARTERS] = quarters[fits]
    if history.closed_minute < 0:
        history.closed_minute = (newest + 1) * PER_QUARTER - 1
    known = values[~np.isnan(values)]
    return float(known[0]) if known.size else None
