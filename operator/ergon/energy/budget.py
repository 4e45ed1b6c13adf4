"""One energy budget over time: what its scope used, what it may use now, who gives way, and what is said of it.

A state machine: each observation gives a verdict. Two budgets over one pool are two of these; planning holds both limits.
"""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.accounts import JOULES_PER_KILOWATT_HOUR, Provenance
from ergon.energy.allowance import FEASIBLE_BELOW, Allowance, AllowanceState
from ergon.energy.forecast import DayShape, Forecast, ShapeState
from ergon.energy.giving_way import Given, Saving, Way, give_way
from ergon.energy.guard import PLANNED_SHARE, GuardState, Step, WattGuard
from ergon.energy.scope import ScopeUse
from ergon.energy.verdict import (
    BudgetEvent,
    BudgetReason,
    LimitKind,
    LimitVerdict,
    Verdict,
    given_sentence,
    infeasible_sentence,
    within_sentence,
)
from ergon.energy.windows import UsedState, Window, WindowKind, WindowUse, window_at, zone_of
from ergon.fleet.types import WattLimit

WATCHED_SECONDS = 6 * 3600.0
"""So far ahead a forecast that crosses a watt limit is told; said again at latest two hours before."""

_IN_WORDS = {
    WindowKind.HOUR: " in this hour",
    WindowKind.DAY: " in this day",
    WindowKind.WEEK: " in this week",
    WindowKind.MONTH: " in this month",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a budget's scope asks for, in watts at the wall, as the scope counts them.

    `needed_watts`: if nothing gave way. `protected_watts`: the servers that always run (`servers_watts` of them alone) and the
    models at or above `shedBelowPriority`. `planned_watts`: what the plan in force takes. `forecast`: None: learned here.
    `savings`: what could give way, each with what it saves.
    """

    needed_watts: float
    protected_watts: float = 0.0
    servers_watts: float = 0.0
    planned_watts: float | None = None
    forecast: Forecast | None = None
    savings: tuple[Saving, ...] = ()


class BudgetState(BaseModel):
    """A budget's memory. `energy` in joules and `carbon` in grams are by window of `window` in `time_zone`.

    `left_watts`: what it left its scope when it was judged last, by the spec of that `generation`; None: nothing bound.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    window: WindowKind | None = None
    time_zone: str = "UTC"
    energy: UsedState = UsedState()
    carbon: UsedState = UsedState()
    guard: GuardState = GuardState()
    energy_allowance: AllowanceState = AllowanceState()
    carbon_allowance: AllowanceState = AllowanceState()
    shape: ShapeState = ShapeState()
    grams_per_joule: float = 0.0
    within: bool = True
    feasible: bool = True
    way: Way = Way.NOTHING
    left_watts: float | None = None
    generation: int = 0


class Budget:
    """A budget under its name. Raises ValueError for a time zone that there is none of."""

    def __init__(self, name: str, spec: EnergyBudgetSpec, state: BudgetState | None = None) -> None:
        self.name = name
        self._guard, self._energy_allowance, self._carbon_allowance = WattGuard(), Allowance(), Allowance()
        self._shape = DayShape()
        self._grams_per_joule = 0.0
        self._watts_feasible = True
        self._within, self._feasible, self._way = True, True, Way.NOTHING
        self._spec, self._zone, self._kind = spec, zone_of(spec.limits.time_zone), _kind_of(spec)
        self._energy, self._carbon = self._counters()
        if state is not None:
            self._restore(state)

    def update(self, spec: EnergyBudgetSpec) -> None:
        """The budget was changed. What was used in this window stays, unless the window itself is another one: then counting
        begins now. Raises ValueError as the constructor does, and stays as it was.
        """
        zone = zone_of(spec.limits.time_zone)
        same = (self._spec.limits.window, self._spec.limits.time_zone) == (spec.limits.window, spec.limits.time_zone)
        self._spec, self._zone, self._kind = spec, zone, _kind_of(spec)
        if not same:
            self._energy, self._carbon = self._counters()

    def observe(self, seconds: float, use: ScopeUse, needs: Needs, wall_seconds: float) -> Verdict:
        """So many seconds later (monotonic): what the scope used, what it asks for, and the time (seconds since the epoch)."""
        self.count(use, wall_seconds)
        self._shape.observe(needs.needed_watts, needs.protected_watts, seconds, wall_seconds)
        forecast = needs.forecast or self._shape.forecast(needs.needed_watts, needs.protected_watts, wall_seconds)
        limits: list[LimitVerdict] = []
        step = Step.NONE
        if self._spec.limits.watts is not None:
            step = self._watch(seconds, use, needs, self._spec.limits.watts)
            limits.append(self._judge_watts(self._spec.limits.watts, needs, forecast, use))
        if self._spec.limits.kilowatt_hours is not None:
            limit = self._spec.limits.kilowatt_hours * JOULES_PER_KILOWATT_HOUR
            limits.append(self._judge_window(LimitKind.KILOWATT_HOURS, limit, 1.0, seconds, needs, forecast, wall_seconds))
        if self._spec.limits.carbon_grams is not None:
            grams = self._spec.limits.carbon_grams
            rate = self._grams_per_joule
            limits.append(self._judge_window(LimitKind.CARBON_GRAMS, grams, rate, seconds, needs, forecast, wall_seconds))
        return self._verdict(tuple(sorted(limits, key=lambda limit: -limit.share)), needs, step)

    def count(self, use: ScopeUse, wall_seconds: float) -> None:
        """What the scope used, in the window in which it was used: each joule counts once, here or in `observe`."""
        if use.joules > 0:
            self._grams_per_joule = use.grams_per_joule
        assumed = use.assumed_joules
        self._energy.add(use.joules, assumed, use.seconds, wall_seconds)
        self._carbon.add(use.grams, assumed * use.grams_per_joule, use.seconds, wall_seconds)

    def to_state(self) -> BudgetState:
        """What another process needs to go on: a few kilobytes."""
        return BudgetState(
            window=self._kind,
            time_zone=self._spec.limits.time_zone,
            energy=self._energy.to_state(),
            carbon=self._carbon.to_state(),
            guard=self._guard.to_state(),
            energy_allowance=self._energy_allowance.to_state(),
            carbon_allowance=self._carbon_allowance.to_state(),
            shape=self._shape.to_state(),
            grams_per_joule=self._grams_per_joule,
            within=self._within,
            feasible=self._feasible,
            way=self._way,
        )

    def _counters(self) -> tuple[WindowUse, WindowUse]:
        """Joules and grams by window, from nothing; a budget of watts alone counts days, for whoever asks."""
        kind = self._kind or WindowKind.DAY
        return WindowUse(kind, self._zone), WindowUse(kind, self._zone)

    def _restore(self, state: BudgetState) -> None:
        if (state.window, state.time_zone) == (self._kind, self._spec.limits.time_zone):
            kind = self._kind or WindowKind.DAY
            self._energy = WindowUse.from_state(state.energy, kind, self._zone)
            self._carbon = WindowUse.from_state(state.carbon, kind, self._zone)
        self._guard = WattGuard.from_state(state.guard)
        self._energy_allowance = Allowance.from_state(state.energy_allowance)
        self._carbon_allowance = Allowance.from_state(state.carbon_allowance)
        self._shape = DayShape.from_state(state.shape)
        self._grams_per_joule = max(0.0, state.grams_per_joule)
        self._within, self._feasible, self._way = state.within, state.feasible, state.way

    def _watch(self, seconds: float, use: ScopeUse, needs: Needs, limit_watts: float) -> Step:
        if self._spec.enforcement == "Observe":
            self._guard.measure(seconds, use.watts)
            return Step.NONE
        return self._guard.observe(seconds, use.watts, limit_watts, needs.planned_watts, needs.protected_watts)

    def _judge_watts(self, limit: float, needs: Needs, forecast: Forecast, use: ScopeUse) -> LimitVerdict:
        _, protected, lengths = forecast.over(WATCHED_SECONDS)
        bound = limit if self._watts_feasible else FEASIBLE_BELOW * limit
        later = [float(lengths[:step].sum()) for step in range(len(protected)) if protected[step] > bound][:1]
        now = needs.protected_watts > bound
        self._watts_feasible = not now and not later
        return LimitVerdict(
            LimitKind.WATTS,
            limit,
            used=self._guard.means.limit_watts,
            projected=max(needs.protected_watts, min(needs.needed_watts, limit * self._guard.share)),
            allowance=limit * self._guard.share,
            provenance=use.provenance,
            within=self._guard.holds(limit),
            feasible=self._watts_feasible,
            watts=limit * self._guard.share,
            infeasible_in_seconds=0.0 if now else later[0] if later else None,
        )

    def _judge_window(
        self,
        kind: LimitKind,
        limit: float,
        per_joule: float,
        seconds: float,
        needs: Needs,
        forecast: Forecast,
        wall_seconds: float,
    ) -> LimitVerdict:
        """A limit in joules or grams over the calendar window; told in kilowatt-hours or grams."""
        energy = kind is LimitKind.KILOWATT_HOURS
        allowance, use = (self._energy_allowance, self._energy) if energy else (self._carbon_allowance, self._carbon)
        unit = JOULES_PER_KILOWATT_HOUR if energy else 1.0
        window = self._window(wall_seconds)
        used, assumed = use.used(window)
        left = max(1e-3, window.end - wall_seconds)
        allowance.observe(seconds, needs.needed_watts, forecast)
        now = allowance.allowed(limit, used, per_joule, window.seconds, left, forecast, needs.needed_watts, needs.protected_watts)
        projected = max(now.protected, min(now.needed, limit)) if now.watts is not None else now.needed
        return LimitVerdict(
            kind,
            limit / unit,
            used=used / unit,
            projected=projected / unit,
            allowance=min(limit, limit * used / now.needed if now.needed > 0 else limit) / unit,
            provenance=Provenance.ASSUMED if assumed > used / 2 or used == 0 else Provenance.DERIVED,
            within=used <= limit,
            feasible=now.feasible,
            watts=None if now.watts is None else now.watts / PLANNED_SHARE,
            infeasible_in_seconds=now.crossed_in_seconds,
        )

    def _window(self, wall_seconds: float) -> Window:
        return window_at(self._kind or WindowKind.DAY, self._zone, wall_seconds)

    def _verdict(self, limits: tuple[LimitVerdict, ...], needs: Needs, step: Step) -> Verdict:
        enforced = self._spec.enforcement == "Enforce"
        bounds = [limit.watts for limit in limits if limit.watts is not None]
        effective = max(min(bounds), needs.protected_watts / PLANNED_SHARE) if bounds and enforced else None
        excess = needs.needed_watts - PLANNED_SHARE * effective if effective is not None else 0.0
        given = give_way(excess, needs.savings, self._spec.shed_below_priority) if excess > 0 else Given((), 0.0, 0.0)
        window = _IN_WORDS[self._kind] if self._kind is not None else ""
        within, feasible = all(limit.within for limit in limits), all(limit.feasible for limit in limits)
        message = within_sentence(limits, given, window)
        servers_alone, feasible_message = self._feasibility(limits, needs, window)
        events = self._events(within, feasible, given, message, feasible_message, step)
        return Verdict(
            limits=limits,
            within=within,
            within_reason=_within_reason(within, excess),
            within_message=message if enforced else f"{message}; observed only: nothing gives way",
            feasible=feasible,
            feasible_reason=_feasible_reason(feasible, servers_alone),
            feasible_message=feasible_message,
            watt_limit=self._watt_limit(effective),
            shed_below_priority=self._spec.shed_below_priority if excess > 0 else 0,
            gives_way=given,
            events=events,
        )

    def _watt_limit(self, effective: float | None) -> WattLimit | None:
        if effective is None:
            return None
        return WattLimit(self.name, effective, self._spec.pools, self._spec.namespaces)

    def _feasibility(self, limits: tuple[LimitVerdict, ...], needs: Needs, window: str) -> tuple[bool, str]:
        """Whether servers alone are too much, and the sentence about the first limit that cannot be held."""
        for limit in limits:
            if limit.feasible:
                continue
            watts = limit.kind is LimitKind.WATTS
            alone = watts and needs.servers_watts > limit.limit
            protected = needs.servers_watts if alone else needs.protected_watts if watts else limit.projected
            return alone, infeasible_sentence(limit, protected, alone, self._spec.shed_below_priority, window)
        return False, ""

    def _events(
        self, within: bool, feasible: bool, given: Given, message: str, feasible_message: str, step: Step
    ) -> tuple[BudgetEvent, ...]:
        """What changed and should be heard of."""
        events = []
        if within != self._within:
            reason = BudgetReason.WITHIN_LIMIT if within else BudgetReason.OVER_LIMIT
            events.append(BudgetEvent(reason, not within, message))
        if feasible != self._feasible:
            if feasible:
                events.append(BudgetEvent(BudgetReason.FEASIBLE, False, "protected demand fits the limit again"))
            else:
                events.append(BudgetEvent(BudgetReason.PROTECTED_DEMAND, True, feasible_message))
        if given.way > self._way or step is Step.TIGHTEN:
            text = given_sentence(given) if given.savings else "measured power is above the limit: plans are held to less"
            events.append(BudgetEvent(BudgetReason.GIVING_WAY, given.way is Way.SHED, text))
        elif given.way < self._way or step is Step.GIVE_BACK:
            text = given_sentence(given) if given.savings else "nothing gives way any more"
            events.append(BudgetEvent(BudgetReason.GIVING_BACK, False, text))
        self._within, self._feasible, self._way = within, feasible, given.way
        return tuple(events)


def _kind_of(spec: EnergyBudgetSpec) -> WindowKind | None:
    return WindowKind(spec.limits.window) if spec.limits.window is not None else None


def _within_reason(within: bool, excess_watts: float) -> BudgetReason:
    if not within:
        return BudgetReason.OVER_LIMIT
    return BudgetReason.GIVING_WAY if excess_watts > 0 else BudgetReason.WITHIN_LIMIT


def _feasible_reason(feasible: bool, servers_alone: bool) -> BudgetReason:
    if feasible:
        return BudgetReason.FEASIBLE
    return BudgetReason.SERVERS_ALONE if servers_alone else BudgetReason.PROTECTED_DEMAND
