"""What is decided of a budget at one moment, and how it is said."""

import math
from dataclasses import dataclass
from enum import StrEnum

from ergon.energy.accounts import Provenance
from ergon.energy.giving_way import WORDS, Given, Saving, Way
from ergon.fleet.types import ModelKey, WattLimit

SHOWN_MODELS = 5


class LimitKind(StrEnum):
    """The field of `limits` that is judged."""

    WATTS = "watts"
    KILOWATT_HOURS = "kilowattHours"
    CARBON_GRAMS = "carbonGrams"


UNITS = {LimitKind.WATTS: "W", LimitKind.KILOWATT_HOURS: "kWh", LimitKind.CARBON_GRAMS: "g CO2"}


class BudgetReason(StrEnum):
    """Why a condition of a budget holds or not, and why an event is told."""

    WITHIN_LIMIT = "WithinLimit"
    GIVING_WAY = "GivingWay"
    GIVING_BACK = "GivingBack"
    OVER_LIMIT = "OverLimit"
    FEASIBLE = "Feasible"
    SERVERS_ALONE = "ServersAlone"
    PROTECTED_DEMAND = "ProtectedDemand"
    WINDOW_OVER = "WindowOver"


@dataclass(frozen=True, slots=True)
class LimitVerdict:
    """One limit. All amounts are in its unit (W, kWh, g). `used`: the 60 s mean, or in this window. `projected`: at the
    window's end, as things go. `allowance`: what may be used now (W), or up to now so that the forecast's shape fits the limit.

    `watts`: what the scope may draw now for this limit, None where it binds nothing. `infeasible_in_seconds`: until protected
    demand alone crosses the limit, where the forecast shows it.
    """

    kind: LimitKind
    limit: float
    used: float
    projected: float
    allowance: float
    provenance: Provenance
    within: bool
    feasible: bool
    watts: float | None
    infeasible_in_seconds: float | None = None

    @property
    def share(self) -> float:
        """Of the limit, the larger of used and projected: the tightest limit of a budget is the one it reports."""
        return max(self.used, self.projected) / self.limit


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """Something that people should hear of once."""

    reason: BudgetReason
    warning: bool
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A budget at one moment. `limits` has one entry a limit, the tightest first.

    `watt_limit`: for the planner, which holds 0.95 of it; None where nothing binds or the budget only observes. It never goes
    below what protected demand takes. `shed_below_priority`: models below it may be shed now, 0: none.
    """

    limits: tuple[LimitVerdict, ...]
    within: bool
    within_reason: BudgetReason
    within_message: str
    feasible: bool
    feasible_reason: BudgetReason
    feasible_message: str
    watt_limit: WattLimit | None
    shed_below_priority: int
    gives_way: Given
    events: tuple[BudgetEvent, ...] = ()

    @property
    def tightest(self) -> LimitVerdict:
        """The limit that a status reports."""
        return self.limits[0]


def within_sentence(limits: tuple[LimitVerdict, ...], given: Given, window: str) -> str:
    """Every limit, and who gives way."""
    parts = [_used(limit, window) for limit in limits]
    if given.savings:
        parts.append(given_sentence(given))
    elif given.missing_watts > 0:
        parts.append(f"plans are held to {figure(given.missing_watts)} W less than is asked for")
    return "; ".join(parts)


def given_sentence(given: Given) -> str:
    """Who gives way, in the order in which they do."""
    ways = [way for way in Way if any(saving.way is way for saving in given.savings)]
    return ", then ".join(_way(way, [saving for saving in given.savings if saving.way is way]) for way in ways)


def infeasible_sentence(limit: LimitVerdict, protected: float, servers_alone: bool, shed_below: int, window: str) -> str:
    """What cannot be held, when it is crossed, and what to do about it."""
    unit = UNITS[limit.kind]
    over = f"limits.{limit.kind} of {figure(limit.limit)} {unit}{window if limit.kind is not LimitKind.WATTS else ''}"
    when = f"crossed in {span(limit.infeasible_in_seconds)}" if limit.infeasible_in_seconds else "crossed now"
    if servers_alone:
        return (
            f"the servers that always run take {figure(protected)} {unit}, more than {over}: lower servers.min or raise the limit"
        )
    who = f"models of priority {shed_below} and above" if shed_below > 0 else "all models, since shedBelowPriority is 0,"
    return (
        f"{who} and the servers that always run need {figure(protected)} {unit}, more than {over}, {when}; they are "
        "served all the same: raise the limit, or shedBelowPriority"
    )


def named(keys: tuple[ModelKey, ...]) -> str:
    """Some names, and how many more."""
    shown = ", ".join(str(key) for key in keys[:SHOWN_MODELS])
    return shown + (f" and {len(keys) - SHOWN_MODELS} more" if len(keys) > SHOWN_MODELS else "")


def figure(value: float) -> str:
    """Three digits, with thousands set apart: nobody reads more, and no status is written for less."""
    if value <= 0 or not math.isfinite(value):
        return "0"
    places = 2 - math.floor(math.log10(value))
    return f"{round(value, places):,.{max(0, places)}f}"


def span(seconds: float | None) -> str:
    """A time to come, in words: 40 min, 2 h 10 min."""
    minutes = round((seconds or 0.0) / 60)
    hours, rest = divmod(minutes, 60)
    return f"{minutes} min" if hours == 0 else f"{hours} h" if rest == 0 else f"{hours} h {rest} min"


def _used(limit: LimitVerdict, window: str) -> str:
    unit = UNITS[limit.kind]
    if limit.kind is LimitKind.WATTS:
        return f"{figure(limit.used)} W of {figure(limit.limit)} W, mean of 60 s"
    return (
        f"{figure(limit.used)} of {figure(limit.limit)} {unit}{window}, {figure(limit.projected)} projected, "
        f"{figure(limit.allowance)} allowed up to now"
    )


def _way(way: Way, savings: list[Saving]) -> str:
    models = tuple(dict.fromkeys(key for saving in savings for key in saving.models))
    watts = figure(sum(saving.watts for saving in savings))
    return f"{WORDS[way]} ({named(models) + ': ' if models else ''}{watts} W)"
