"""Figures in statuses: rounded, and rewritten only when they have changed much, so that a quiet fleet writes nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHANGED_MUCH = 0.2
"""A figure is rewritten when it is a fifth away from what stands."""
DIGITS = 3
_LEAST_WORK, _LEAST_OF_CAPACITY, _LEAST_SHARE = 0.05, 0.02, 0.05
"""What a rate per second moves by at least, absolutely and of what the model can serve, and a busy share, before it has changed:
chance alone moves small ones by a fifth all the time.
"""
_LONGEST_METHOD, _LONGEST_MESSAGE = 128, 512
_FOLLOWS = frozenset({"headroom", "method"})
"""Made from the others, or of how they were made: nothing is rewritten for it alone."""
_WITH_DEMAND = ("steady at ", "up from ", "down from ")
"""How sentences of the demand's course begin: one says no more than another while the figures are the same."""


@dataclass(frozen=True, slots=True)
class DemandView:
    """What is asked of a model, in work per second, and why it has so many replicas. `capacity`: None without profiles."""

    unit: str
    observed: float
    forecast: float
    capacity: float | None
    method: str
    message: str


@dataclass(frozen=True, slots=True)
class EnergyView:
    """What a model takes, over the last hour. None: nothing was answered in it."""

    watts: float
    joules_per_request: float | None
    joules_per_thousand_tokens: float | None
    provenance: str


@dataclass(frozen=True, slots=True)
class PoolEnergy:
    """A pool's power now, host and PUE included, and what it rests on."""

    watts: float
    provenance: str


def demand_status(view: DemandView) -> dict[str, Any]:
    """The status's `demand`."""
    body: dict[str, Any] = {
        "unit": view.unit,
        "observed": rounded(view.observed),
        "forecast": rounded(view.forecast),
        "method": view.method[:_LONGEST_METHOD],
        "message": view.message[:_LONGEST_MESSAGE],
    }
    if view.capacity is not None:
        body["capacity"] = rounded(view.capacity)
        body["headroom"] = round(max(0.0, 1 - view.forecast / view.capacity), 2) if view.capacity > 0 else 0.0
    return body


def energy_status(view: EnergyView) -> dict[str, Any]:
    """The status's `energy`."""
    figures = {
        "watts": view.watts,
        "joulesPerRequest": view.joules_per_request,
        "joulesPerThousandTokens": view.joules_per_thousand_tokens,
    }
    return {**{name: rounded(value) for name, value in figures.items() if value is not None}, "provenance": view.provenance}


def rounded(value: float) -> float:
    """Three digits."""
    if value == 0 or not math.isfinite(value):
        return 0.0
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


def keep(new: Mapping[str, Any], previous: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The previous figures while none of the new ones has changed much and no text says something else; else the new ones.

    Texts with figures in them count as the same while the figures do: they are compared without their digits.
    """
    if previous is None or previous.keys() != new.keys():
        return new
    return previous if all(_alike(new[name], previous[name], _least(name, new)) for name in new.keys() - _FOLLOWS) else new


def keep_figures(new: Mapping[str, Any], previous: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The same for some figures among others: those of the previous status while none has changed much."""
    mine = {name: new[name] for name in names if name in new}
    stands = {name: previous[name] for name in names if name in previous}
    return dict(keep(mine, stands))


def same_wording(one: str, other: str) -> bool:
    """Whether two sentences differ in nothing but their figures."""
    return _wording(one) == _wording(other)


def _least(name: str, figures: Mapping[str, Any]) -> float:
    """By how much a figure moves at least before it has changed."""
    if name in ("observed", "forecast"):
        return max(_LEAST_WORK, _LEAST_OF_CAPACITY * float(figures.get("capacity", 0.0)))
    return _LEAST_SHARE if name == "busyShare" else 0.0


def _alike(new: Any, old: Any, least: float = 0.0) -> bool:
    if isinstance(new, int | float) and isinstance(old, int | float):
        return abs(new - old) <= max(least, CHANGED_MUCH * max(abs(new), abs(old)))
    if isinstance(new, str) and isinstance(old, str):
        return same_wording(new, old)
    return bool(new == old)


def _wording(text: str) -> str:
    if text.startswith(_WITH_DEMAND):
        return _WITH_DEMAND[0]
    return "".join(character for character in text if not (character.isdigit() or character in ".,"))
