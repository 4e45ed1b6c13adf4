"""What one metered device used since it was last asked, from a counter of joules or a gauge of watts that may lie.

Counters start again, wrap, vanish, go backwards, jump and arrive late; each joule is booked once, a gap is assumed and said.
"""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from ergon.energy.accounts import is_figure

LATE_SECONDS = 60.0
"""A source may be silent, or repeat itself, for so long before what it does not tell is assumed (Prometheus scrapes each 15 to
60 s, Triton renews its counter each 2 s)."""

LAG_SECONDS = 5.0
"""By so much a counter's own time may lie behind ours: two readings 5 s apart may hold 10 s of joules."""

MEAN_MARGIN = 1.1
"""Of the nameplate: boards overshoot their limit for moments, and sensors err by 5 %."""

LARGEST_DEVICE_WATTS = 100_000.0
"""Believed where no nameplate is known: more than any accelerator server of today."""

RESTORED_SECONDS = 600.0
"""After a restart the wall clock says how long it was; a stepped clock must not make a good counter look like a lie."""

STEP_BACK_SHARE = 0.9
"""A counter that fell to no less than this of itself stepped back, as two sources of one counter do; it did not start again."""

REPAID_SHARE = 0.5
"""Of what a meter shows, this much at most pays back what was assumed too much before."""


class Doubt(StrEnum):
    """Why a meter was not believed."""

    ABSURD = "AbsurdValue"
    TOO_MUCH = "AboveNameplate"
    BACKWARDS = "WentBackwards"
    SILENT = "Silent"
    ZERO = "ReadsZero"


@dataclass(frozen=True, slots=True)
class Finding:
    """A doubt about a device's meter, in a sentence for people."""

    device: str
    doubt: Doubt
    message: str


@dataclass(frozen=True, slots=True)
class Believed:
    """What a device may draw: by profile now, and at most. `wraps_at_joules`: where its counter starts again by itself."""

    expected_watts: float
    nameplate_watts: float | None = None
    wraps_at_joules: float | None = None

    @property
    def most_watts(self) -> float:
        """Above this a meter is not believed."""
        return MEAN_MARGIN * (self.nameplate_watts or LARGEST_DEVICE_WATTS)


@dataclass(frozen=True, slots=True)
class Metered:
    """What to book now: for so many seconds, so many joules, of which some are assumed. Zero seconds: wait.

    `watts`: the device's power now, as far as known. `doubts`: why a reading was not believed, at most one of each kind.
    """

    seconds: float
    joules: float
    assumed_joules: float
    watts: float
    doubts: tuple[tuple[Doubt, str], ...] = ()


class MeterState(BaseModel):
    """A meter's memory: the counter's last value, seconds since, joules booked since by other means, seconds not booked yet."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    base: float | None = None
    age: float = 0.0
    beyond: float = 0.0
    debt: float = 0.0
    open: float = 0.0
    watts: float | None = None


class Meter:
    """One counter, or one gauge where there is no counter, read again and again."""

    def __init__(self) -> None:
        self._base_joules: float | None = None
        self._age_seconds = 0.0
        self._beyond_joules = 0.0
        self._debt_joules = 0.0
        self._open_seconds = 0.0
        self._quiet_seconds = 0.0
        self._watts: float | None = None
        self._gauge_watts: float | None = None
        self._restored = False

    def observe(self, seconds: float, joules: float | None, watts: float | None, believed: Believed) -> Metered:
        """So many seconds later: the counter (joules) and the gauge (watts) as read, None where the source told none."""
        self._open_seconds += seconds
        self._age_seconds += seconds
        self._quiet_seconds += seconds
        doubts: list[tuple[Doubt, str]] = []
        booked = self._by_counter(joules, believed, doubts)
        gauge = self._believed_gauge(watts, believed, doubts)
        silent = self._base_joules is None or not is_figure(joules) or self._age_seconds > LATE_SECONDS
        if booked is None and gauge is not None and silent:
            booked = self._by_gauge(gauge)
        self._gauge_watts = gauge
        if booked is not None:
            self._quiet_seconds = 0.0
        elif self._quiet_seconds > LATE_SECONDS:
            doubts.append((Doubt.SILENT, f"told nothing new for {self._quiet_seconds:.0f} s; its profile is assumed"))
            booked = self._assume(believed)
        if booked is None:
            return Metered(0.0, 0.0, 0.0, self._watts_now(gauge, believed), tuple(doubts))
        open_seconds, self._open_seconds = self._open_seconds, 0.0
        booked_joules, assumed = booked
        if open_seconds > 0 and assumed < booked_joules:
            self._watts = booked_joules / open_seconds
        now = believed.expected_watts if assumed > 0 and gauge is None else self._watts_now(gauge, believed)
        return Metered(open_seconds, booked_joules, assumed, now, tuple(doubts))

    def close(self, believed: Believed) -> Metered:
        """The device is gone: what is still open is assumed."""
        booked, assumed = self._assume(believed)
        seconds, self._open_seconds = self._open_seconds, 0.0
        return Metered(seconds, booked, assumed, 0.0)

    def to_state(self) -> MeterState:
        """What another process needs to go on with the same counter."""
        return MeterState(
            base=self._base_joules,
            age=self._age_seconds,
            beyond=self._beyond_joules,
            debt=self._debt_joules,
            open=self._open_seconds,
            watts=self._watts,
        )

    @classmethod
    def from_state(cls, state: MeterState) -> "Meter":
        """The meter as it was; the seconds since are part of the next observation."""
        meter = cls()
        meter._base_joules, meter._age_seconds = state.base, max(0.0, state.age)
        meter._beyond_joules, meter._debt_joules = max(0.0, state.beyond), max(0.0, state.debt)
        meter._open_seconds, meter._watts, meter._restored = max(0.0, state.open), state.watts, True
        return meter

    def _by_counter(
        self, joules: float | None, believed: Believed, doubts: list[tuple[Doubt, str]]
    ) -> tuple[float, float] | None:
        """(joules, assumed joules) to book for the open seconds; None where the counter says nothing (new)."""
        if joules is None:
            return None
        if not is_figure(joules):
            doubts.append((Doubt.ABSURD, f"the counter reads {joules:g} J; it is passed over"))
            return None
        if self._base_joules is None:
            return self._start_from(joules, believed)
        most = believed.most_watts * (max(self._age_seconds, RESTORED_SECONDS if self._restored else 0.0) + LAG_SECONDS)
        used = joules - self._base_joules
        if used < 0 and believed.wraps_at_joules is not None and 0 <= used + believed.wraps_at_joules <= most:
            used += believed.wraps_at_joules
        if used == 0 and believed.expected_watts > 0:
            return None
        if 0 <= used <= most:
            return self._news(joules, used)
        if joules >= STEP_BACK_SHARE * self._base_joules and -believed.most_watts * LAG_SECONDS <= used < 0:
            doubts.append((Doubt.BACKWARDS, f"the counter fell by {-used:g} J; it is waited for"))
            return None
        if used < 0 and joules <= most:
            return self._started_again(joules, believed)
        if used < 0:
            doubts.append((Doubt.BACKWARDS, f"the counter fell from {self._base_joules:g} J to {joules:g} J; it counts anew"))
        else:
            power = used / (self._age_seconds + LAG_SECONDS)
            doubts.append(
                (Doubt.TOO_MUCH, f"{power:.3g} W are more than it can draw ({believed.most_watts:.3g} W); its profile is assumed")
            )
        return self._start_from(joules, believed)

    def _start_from(self, joules: float, believed: Believed) -> tuple[float, float]:
        """A new base: what it does not tell of the seconds before is assumed."""
        booked = self._assume(believed)
        self._rebase(joules)
        return booked

    def _news(self, joules: float, used: float) -> tuple[float, float]:
        beyond = self._beyond_joules
        self._rebase(joules)
        self._debt_joules += max(0.0, beyond - used)
        return self._repay(max(0.0, used - beyond)), 0.0

    def _started_again(self, joules: float, believed: Believed) -> tuple[float, float]:
        """The counter began at zero since: it tells its own life, and what was before is assumed."""
        whole = max(joules, self._beyond_joules + believed.expected_watts * self._open_seconds)
        booked = whole - self._beyond_joules
        measured = min(joules, booked)
        self._rebase(joules)
        return self._repay(measured) + (booked - measured), booked - measured

    def _rebase(self, joules: float) -> None:
        self._base_joules, self._age_seconds, self._beyond_joules, self._restored = joules, 0.0, 0.0, False

    def _repay(self, joules: float) -> float:
        """What is left to book of measured joules after part of them paid back what had been assumed too much."""
        paid = min(self._debt_joules, REPAID_SHARE * joules)
        self._debt_joules -= paid
        return joules - paid

    def _by_gauge(self, watts: float) -> tuple[float, float]:
        before = watts if self._gauge_watts is None else self._gauge_watts
        joules = (before + watts) / 2 * self._open_seconds
        self._note(joules)
        return self._repay(joules), 0.0

    def _assume(self, believed: Believed) -> tuple[float, float]:
        joules = believed.expected_watts * self._open_seconds
        self._note(joules)
        return joules, joules

    def _note(self, joules: float) -> None:
        """Booked by other means than the counter, which may come back and tell of the same seconds."""
        if self._base_joules is not None:
            self._beyond_joules += joules

    def _believed_gauge(self, watts: float | None, believed: Believed, doubts: list[tuple[Doubt, str]]) -> float | None:
        if watts is None:
            return None
        if not is_figure(watts):
            doubts.append((Doubt.ABSURD, f"the gauge reads {watts:g} W; it is passed over"))
        elif watts > believed.most_watts:
            doubts.append((Doubt.TOO_MUCH, f"{watts:.3g} W are more than it can draw ({believed.most_watts:.3g} W)"))
        elif watts == 0 and believed.expected_watts > 0:
            doubts.append((Doubt.ZERO, "the gauge reads 0 W while the device is on; is it a virtual machine without a sensor?"))
        else:
            return watts
        return None

    def _watts_now(self, gauge: float | None, believed: Believed) -> float:
        if gauge is not None:
            return gauge
        return believed.expected_watts if self._watts is None else self._watts
