"""Output tensors of an answer as rows of plain values, whether they came as JSON, as binary data or by gRPC. Pure."""

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Value = str | float

_NUMPY = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_LENGTH = struct.Struct("<I")


class Malformed(Exception):
    """An answer is not what KServe v2 says it should be, or lacks an output; the text says what."""


@dataclass(frozen=True, slots=True)
class Column:
    """One output tensor: `flat` holds its values in row-major order; the first dimension of `shape` counts the rows."""

    shape: tuple[int, ...]
    flat: Sequence[Value]

    def rows(self) -> Iterator[Sequence[Value]]:
        """The values row by row; a tensor without dimensions is one row."""
        count = self.shape[0] if self.shape else 1
        width = len(self.flat) // count if count else 0
        return (self.flat[row * width : (row + 1) * width] for row in range(count))

    def text(self) -> str:
        """The first value as text, a number as JSON writes it; empty where there is none."""
        if not self.flat:
            return ""
        value = self.flat[0]
        return value if isinstance(value, str) else json.dumps(value)


def of_json(name: str, shape: Any, data: Any) -> Column:
    """A tensor whose values stand in JSON, flat or nested. Raises Malformed where they do not fit the shape."""
    sizes = _sizes(name, shape)
    flat = data if isinstance(data, list) else None
    if flat is not None and flat and isinstance(flat[0], list):
        flat = list(_flattened(flat))
    if flat is None or len(flat) != math.prod(sizes):
        raise Malformed(f"output {name} does not hold as many values as its shape says")
    if not all(isinstance(value, (str, int, float)) for value in flat):
        raise Malformed(f"output {name} holds what is neither a number nor text")
    return Column(sizes, flat)


def of_bytes(name: str, datatype: Any, shape: Any, data: bytes) -> Column:
    """A tensor in KServe's binary form. Raises Malformed where the bytes do not fit datatype and shape."""
    sizes = _sizes(name, shape)
    flat: Sequence[Value]
    if datatype == "BYTES":
        flat = _texts(name, data)
    elif datatype == "BF16" and len(data) % 2 == 0:
        flat = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).tolist()
    else:
        kind = _NUMPY.get(datatype)
        if kind is None or len(data) % np.dtype(kind).itemsize:
            raise Malformed(f"output {name} of type {datatype!s:.20} has {len(data)} bytes")
        flat = np.frombuffer(data, kind).tolist()
    if len(flat) != math.prod(sizes):
        raise Malformed(f"output {name} does not hold as many values as its shape says")
    return Column(sizes, flat)


def named(columns: Mapping[str, Column], name: str) -> Column:
    """The output of that name. Raises Malformed where the answer lacks it."""
    try:
        return columns[name]
    except KeyError:
        raise Malformed(f"the answer has no output {name}") from None


def _sizes(name: str, shape: Any) -> tuple[int, ...]:
    if isinstance(shape, (list, tuple)) and all(isinstance(size, int) and size >= 0 for size in shape):
        return tuple(shape)
    raise Malformed(f"output {name} has no shape")


def _flattened(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flattened(value)
        else:
            yield value


def _texts(name: str, data: bytes) -> list[str]:
    """Texts with their length in four bytes before each."""
    texts, place = [], 0
    while place < len(data):
        end = place + _LENGTH.size
        length = _LENGTH.unpack_from(data, place)[0] if end <= len(data) else len(data)
        if end + length > len(data):
            raise Malformed(f"output {name} breaks off within a text")
        texts.append(data[end : end + length].decode(errors="replace"))
        place = end + length
    return texts
