"""How much of a model the plan must hold, and when: up at once, down after a quiet while, to sleep when idle.

A small state machine a model. It speaks in demand, not in replicas: the planner turns work per second into replicas on servers,
and knows what one carries where.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from ergon.demand.places import Held
from ergon.fleet.types import Model

STABILISE_SECONDS = 300.0
"""A lower demand is followed once nothing higher was asked for in so long."""

FAST_SECONDS = 10.0
"""What is seen over so long is enough to add replicas; and a line must be worked off within three times as long."""

CENSORED_STEP = 1.25
"""Where requests wait, what is answered says what was possible, not what is asked: a quarter more is assumed a step.

Steps are FAST_SECONDS apart, so a demand of twice the capacity is reached in 40 s."""

SUSTAINED_SECONDS = 60.0
"""Over which the rate of a model is seen that has places for its bursts: what is over sooner is over before a replica comes."""

BURST_SECONDS = 120.0
"""What has waited or come late for so long is no burst, whatever the rate: a burst lasts some twenty seconds, its line about as
long again."""

_WAITING_AT_LEAST = 2
_GROWS = 1.2
_PATIENCE_SECONDS = 1.0
"""What a request may wait where no latency target says it."""

_STILL = 0.95
"""A demand that falls by less is not followed: a p90 from some sixty errors is no surer than that."""


class Trigger(StrEnum):
    """Why more is needed now."""

    NONE = ""
    SHORTFALL = "Shortfall"
    QUEUE = "Queue"
    LATENCY = "Latency"
    WAKE = "Wake"


class Direction(StrEnum):
    """What a decision does to the demand that is planned for."""

    UP = "Up"
    DOWN = "Down"
    STEADY = "Steady"
    ASLEEP = "Asleep"
    FIXED = "Fixed"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the spec allows. `can_wake`: a gateway wakes the model when it is asked for; without one, 0 replicas count as 1.

    `percentile` of its answers is to keep the latency target.
    """

    min_replicas: int = 1
    max_replicas: int | None = None
    fixed_replicas: int | None = None
    idle_after_seconds: float = 600.0
    can_wake: bool = False
    percentile: int = 95

    @classmethod
    def of(cls, model: Model, *, can_wake: bool) -> "Limits":
        """The limits of a model's spec."""
        return cls(
            model.min_replicas, model.max_replicas, model.fixed_replicas, model.idle_after_seconds, can_wake, model.slo_percentile
        )

    @property
    def may_sleep(self) -> bool:
        """Whether it needs no replica while nobody asks."""
        return self.min_replicas == 0 and self.can_wake and self.fixed_replicas is None

    @property
    def least(self) -> int:
        """Replicas that an awake model holds whatever is asked of it."""
        return max(1, self.min_replicas)


@dataclass(frozen=True, slots=True)
class Signals:
    """What is seen of a model now. Work in work per second, times in seconds.

    `observed`: what came in the last FAST_SECONDS; of a model that has places for its bursts, in SUSTAINED_SECONDS. `places`:
    the rate that those places are for, 0 without. `unserved`: what the plan cannot serve of the demand. `pending`: requests that
    wait, None where not known. `queue_seconds`: the mean wait of those answered last, None where none was. Both also as they were
    some ten seconds ago. `latency_seconds`: the percentile of the worst server, None where not known, beside the target.
    """

    observed: float = 0.0
    places: float = 0.0
    requests_per_second: float = 0.0
    unserved: float = 0.0
    pending: int | None = None
    pending_before: int | None = None
    queue_seconds: float | None = None
    queue_seconds_before: float | None = None
    latency_seconds: float | None = None
    latency_target_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the plan must hold: demand in work per second, at least `least_replicas`. `urgent`: now, and only by adding.

    `reason` is one sentence of stable wording. `asleep`: no replica at all until somebody asks.
    """

    work_per_second: float
    least_replicas: int
    direction: Direction
    urgent: bool
    asleep: bool
    reason: str
    trigger: Trigger = Trigger.NONE


_EXPECTED = "awake: at this time it was asked for on earlier days too"

_LARGEST_ASSUMED = {Trigger.QUEUE: 4.0, Trigger.LATENCY: 2.0}
"""Times what was seen that the assumption may reach; lateness may have other causes than load, a growing line hardly."""


class Scaling:
    """One model: what was recommended in the last minutes, when it was last asked for, what is assumed beyond what is seen."""

    __slots__ = (
        "_asked_at", "_asleep", "_assumed", "_planned", "_pressed_at", "_recent", "_stabilise_seconds", "_stepped_at",
        "_woken_at",
    )  # fmt: skip

    def __init__(self, now: float, stabilise_seconds: float = STABILISE_SECONDS) -> None:
        """Known since `now`, which counts as asked for: nothing goes to sleep because the operator has just started."""
        self._stabilise_seconds = stabilise_seconds
        self._recent = Held()
        self._asked_at = now
        self._woken_at: float | None = None
        self._asleep = False
        self._stepped_at = -math.inf
        self._pressed_at: float | None = None
        self._assumed = 0.0
        self._planned = 0.0

    @property
    def asked_at(self) -> float:
        """When the model was last asked for."""
        return self._asked_at

    def asked(self, now: float) -> None:
        """A request was seen."""
        self._asked_at = max(self._asked_at, now)

    def wake(self, now: float) -> None:
        """Somebody asks for the model and it may be asleep: needed at once."""
        self._woken_at = now
        self.asked(now)

    def rest(self) -> None:
        """The model was asleep before this process began: it goes on sleeping until somebody asks."""
        self._asked_at = -math.inf

    def decide(self, now: float, forecast: float, seen: Signals, limits: Limits, recurring: float = 0.0) -> Decision:
        """The periodic decision: the forecast's p90, what is seen where that is urgent, nothing below the last minutes.

        `recurring`: work that came at this time on earlier days; while it is expected, nothing sleeps.
        """
        trigger, urgent_demand = self._urgent(now, seen)
        self._recommend(now, max(forecast, urgent_demand))
        if limits.fixed_replicas is not None:
            return self._fixed(limits.fixed_replicas)
        idle = self._is_idle(now, limits)
        if idle and recurring <= 0:
            self._planned, self._assumed, self._asleep = 0.0, 0.0, True
            self._recent.clear()
            since = "" if self._asked_at == -math.inf else f"no request for {_span(now - self._asked_at)}, and "
            return Decision(0.0, 0, Direction.ASLEEP, urgent=False, asleep=True, reason=f"asleep: {since}the gateway wakes it")
        expected, self._asleep = idle and self._asleep, False
        held = self._recent.largest
        held = self._planned if _STILL * self._planned <= held <= self._planned else held
        woken = self._woken_at is not None
        self._woken_at = None
        decision = self._sentence(held, max(forecast, urgent_demand), trigger, limits, woken)
        return replace(decision, direction=Direction.UP, reason=_EXPECTED) if expected and not woken else decision

    def look(self, now: float, seen: Signals, limits: Limits) -> Decision | None:
        """The fast path: a decision that only adds, or None where nothing is urgent."""
        if limits.fixed_replicas is not None:
            return None
        if self._woken_at is not None:
            self._woken_at, self._asleep = None, False
            demand = max(self._planned, seen.observed)
            self._recommend(now, demand)
            self._planned = demand
            return Decision(
                demand, limits.least, Direction.UP, True, False, "awake: it was asked for while it had no replica", Trigger.WAKE
            )
        trigger, demand = self._urgent(now, seen)
        if trigger is Trigger.NONE or demand <= self._planned * 1.02:
            return None
        self._recommend(now, demand)
        before, self._planned = self._planned, demand
        reason = f"up from {_figure(before)} to {_figure(demand)} work/s: {_WHY[trigger]}"
        return Decision(demand, limits.least, Direction.UP, True, False, reason, trigger)

    def _urgent(self, now: float, seen: Signals) -> tuple[Trigger, float]:
        """Why more is needed now, and how much work per second is to be planned for."""
        trigger = self._pressed(now, seen)
        if trigger is Trigger.NONE:
            self._assumed = 0.0
            return trigger, 0.0
        if trigger is Trigger.SHORTFALL:
            return trigger, seen.observed
        if now - self._stepped_at >= FAST_SECONDS:
            self._stepped_at = now
            self._assumed = max(self._assumed, self._planned, seen.observed) * CENSORED_STEP
        self._assumed = min(self._assumed, _LARGEST_ASSUMED[trigger] * seen.observed)
        return trigger, max(self._assumed, seen.observed)

    def _pressed(self, now: float, seen: Signals) -> Trigger:
        """What presses. A burst within the rate that places are kept for does not: how much of it may wait was decided there."""
        trigger = _trigger(seen)
        if trigger is Trigger.NONE:
            self._pressed_at = None
            return trigger
        if self._pressed_at is None:
            self._pressed_at = now
        burst = seen.observed <= seen.places and now - self._pressed_at < BURST_SECONDS
        return Trigger.NONE if burst and trigger is not Trigger.SHORTFALL else trigger

    def _recommend(self, now: float, demand: float) -> None:
        self._recent.add(now, demand, self._stabilise_seconds)

    def _is_idle(self, now: float, limits: Limits) -> bool:
        return limits.may_sleep and self._woken_at is None and now - self._asked_at >= limits.idle_after_seconds

    def _fixed(self, replicas: int) -> Decision:
        demand = self._recent.largest
        self._planned = demand
        reason = f"{replicas} {'replica' if replicas == 1 else 'replicas'}: spec.replicas says so"
        return Decision(demand, replicas, Direction.FIXED, urgent=False, asleep=False, reason=reason)

    def _sentence(self, held: float, recommended: float, trigger: Trigger, limits: Limits, woken: bool) -> Decision:
        before, self._planned = self._planned, held
        least = limits.least
        shown, was = _figure(held), _figure(before)
        if woken:
            direction, reason = Direction.UP, "awake: it was asked for while it had no replica"
        elif shown == was:
            direction, reason = Direction.STEADY, f"steady at {shown} work/s"
        elif held > before:
            direction, reason = Direction.UP, f"up from {was} to {shown} work/s: {_WHY[trigger]}"
        else:
            direction, reason = Direction.DOWN, f"down from {was} to {shown} work/s: nothing higher was needed for a while"
        if direction is Direction.STEADY and _figure(recommended) != shown and recommended < held:
            reason = f"steady at {shown} work/s: {_figure(recommended)} would do, but it was more a short while ago"
        urgent = woken or (direction is Direction.UP and trigger is not Trigger.NONE)
        return Decision(held, least, direction, urgent, False, reason, Trigger.WAKE if woken else trigger)


_WHY = {
    Trigger.NONE: "the forecast has risen",
    Trigger.SHORTFALL: "more is asked for than the plan can serve",
    Trigger.QUEUE: "requests wait, and ever more of them",
    Trigger.LATENCY: "answers come later than the target allows",
    Trigger.WAKE: "it was asked for while it had no replica",
}


def _trigger(seen: Signals) -> Trigger:
    if seen.observed > 0 and seen.unserved > 0.01 * seen.observed:
        return Trigger.SHORTFALL
    patience = seen.latency_target_seconds or _PATIENCE_SECONDS
    line = seen.pending or 0
    if line >= _WAITING_AT_LEAST and line > _GROWS * (seen.pending_before or 0) and line > patience * seen.requests_per_second:
        return Trigger.QUEUE
    wait = seen.queue_seconds or 0.0
    if wait > patience and wait > _GROWS * (seen.queue_seconds_before or 0.0):
        return Trigger.QUEUE
    if seen.latency_seconds is not None and seen.latency_target_seconds is not None:
        return Trigger.LATENCY if seen.latency_seconds > seen.latency_target_seconds else Trigger.NONE
    return Trigger.NONE


def _figure(value: float) -> str:
    """Two figures are enough to follow a decision, and keep its sentence still while nothing much changes."""
    return f"{float(f'{value:.2g}'):g}"


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
