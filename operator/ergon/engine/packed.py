"""A state as few characters as a ConfigMap can hold, cut where it is too much. It takes tenths of a second: for a thread."""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, Protocol

from pydantic import BaseModel

Object = dict[str, Any]
Path = tuple[str, ...]
"""Names from the outside in, of a list or a dict whose first entries are worth most."""

LARGEST_PLAIN_BYTES = 64 << 20
"""Of an unpacked state: more is none of ours (measured: 3 MB for 1,000 models and 2,000 replicas)."""
_TRIES = 5
_EASY = 0.95
"""Of the room for what may go: the busiest entries are the longest."""


class Plain(Protocol):
    """What knows how it looks as JSON."""

    def plain(self) -> Object:
        """Itself, as JSON can hold it."""
        ...


def united(pieces: Iterable[Mapping[str, Any]]) -> Object:
    """Pieces of a state as one: dicts of the same name are joined."""
    whole: Object = {}
    for piece in pieces:
        for name, value in piece.items():
            whole[name] = {**whole[name], **value} if isinstance(whole.get(name), dict) else value
    return whole


def packed(state: Mapping[str, Any], most_characters: int, may_go: Sequence[Sequence[Path]]) -> tuple[str, float] | None:
    """A state in so many characters at most, and how much was kept of what may go: 1 where that is all.

    Where it is too long, the last entries of what is named by the first group of `may_go` are left out, as few as need be, then
    those of the next one. None where nothing of what may go can stay, and it is still too long.
    """
    plain = json.dumps(state, separators=(",", ":"), allow_nan=False, default=_plain)
    text = _packed(plain)
    if len(text) <= most_characters:
        return text, 1.0
    whole: Object = json.loads(plain)
    for group in may_go:
        without = _cut(whole, group, 0.0)
        least = _text(without)
        if len(least) > most_characters:
            whole, text = without, least
            continue
        share = (most_characters - len(least)) / max(1, len(text) - len(least))
        for _ in range(_TRIES):
            share *= _EASY
            fitted = _text(_cut(whole, group, share))
            if len(fitted) <= most_characters:
                return fitted, share
        return least, 0.0
    return None


def unpacked(text: str) -> Object:
    """The state that was packed. Raises ValueError, OSError or EOFError where it is none."""
    with gzip.GzipFile(fileobj=BytesIO(base64.b64decode(text))) as file:
        plain = file.read(LARGEST_PLAIN_BYTES + 1)
    if len(plain) > LARGEST_PLAIN_BYTES:
        raise ValueError(f"more than {LARGEST_PLAIN_BYTES >> 20} MiB")
    state = json.loads(plain)
    if not isinstance(state, dict):
        raise ValueError("no object")
    return state


def _plain(value: BaseModel | Plain) -> Object:
    return value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, BaseModel) else value.plain()


def _text(state: Object) -> str:
    return _packed(json.dumps(state, separators=(",", ":"), allow_nan=False))


def _packed(plain: str) -> str:
    return base64.b64encode(gzip.compress(plain.encode(), 6, mtime=0)).decode()


def _cut(state: Object, paths: Iterable[Path], share: float) -> Object:
    """The state with only the first entries of what the paths name."""
    for name, *inner in paths:
        value = state.get(name)
        if inner and isinstance(value, dict):
            state = {**state, name: _cut(value, [tuple(inner)], share)}
        elif isinstance(value, dict):
            state = {**state, name: dict(list(value.items())[: int(share * len(value))])}
        elif isinstance(value, list):
            state = {**state, name: value[: int(share * len(value))]}
    return state
