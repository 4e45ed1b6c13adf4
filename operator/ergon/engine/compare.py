"""Whether an object in the cluster already says what we would write, so that nothing is written when nothing changed."""

from typing import Any


def covers(actual: Any, desired: Any) -> bool:
    """Whether `actual` holds all that `desired` says: maps may hold more (server defaults), lists must match item by item."""
    if isinstance(desired, dict):
        if not isinstance(actual, dict):
            return not desired and actual is None
        return all(covers(actual.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        if not isinstance(actual, list):
            return not desired and actual is None
        return len(actual) == len(desired) and all(covers(a, d) for a, d in zip(actual, desired, strict=True))
    return bool(actual == desired) or (desired is None and actual is None)
