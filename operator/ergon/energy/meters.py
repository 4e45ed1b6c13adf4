"""The meters of one device with several accelerators: summed by each one's own identity, so that half a page is half a gap."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import BaseModel, ConfigDict

from ergon.energy.accounts import is_figure
from ergon.energy.meter import LATE_SECONDS, Believed, Doubt, Finding, Meter, Metered, MeterState

MOST_METERS = 64
"""Of one device; more are a fault of the source."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source told of a device, by accelerator: joules since some start, watts now, and the limit it names itself.

    Keys are a gpu_uuid, or any one name where one figure covers all. Empty: the source told nothing.
    """

    joules: Mapping[str, float] = field(default_factory=dict)
    watts: Mapping[str, float] = field(default_factory=dict)
    limit_watts: Mapping[str, float] = field(default_factory=dict)


NOTHING = Reading()


class MetersState(BaseModel):
    """The memory of a device's meters by accelerator, and what they had told that is not booked yet."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    meters: dict[str, MeterState] = {}
    open: float = 0.0
    joules: float = 0.0
    assumed: float = 0.0


class DeviceMeters:
    """The meters of one device. Its joules are booked when all of them have told theirs, or after `LATE_SECONDS`."""

    def __init__(self, device: str, accelerators: int = 1) -> None:
        self.device = device
        self.accelerators = max(1, accelerators)
        self._meters: dict[str, Meter] = {}
        self._open_seconds = self._joules = self._assumed_joules = 0.0

    def observe(self, seconds: float, reading: Reading, believed: Believed) -> tuple[Metered, list[Finding]]:
        """What to book for the device. An accelerator that no source ever told of is assumed, by its share of the profile."""
        named = list(dict.fromkeys([*reading.joules, *reading.watts]))
        share = self._shared(believed, len(named))
        self._welcome(named, share)
        self._open_seconds += seconds
        watts, waiting, doubts = 0.0, False, dict[Doubt, str]()
        if len(named) > MOST_METERS:
            doubts[Doubt.ABSURD] = f"the source names {len(named)} accelerators; {MOST_METERS} are read"
        for name, meter in self._meters.items():
            metered = meter.observe(seconds, reading.joules.get(name), reading.watts.get(name), _limited(share, reading, name))
            self._take(metered)
            watts += metered.watts
            waiting = waiting or (metered.seconds == 0 and seconds > 0)
            doubts.update((doubt, f"{name}: {text}" if len(self._meters) > 1 else text) for doubt, text in metered.doubts)
        unknown = max(0, self.accelerators - len(self._meters)) * share.expected_watts
        self._joules += unknown * seconds
        self._assumed_joules += unknown * seconds
        findings = [Finding(self.device, doubt, text) for doubt, text in doubts.items()]
        if waiting and self._open_seconds <= LATE_SECONDS:
            return Metered(0.0, 0.0, 0.0, watts + unknown), findings
        return self._settle(watts + unknown), findings

    def close(self, believed: Believed) -> Metered:
        """The device is gone: what is open of it is assumed."""
        share = self._shared(believed, 0)
        for meter in self._meters.values():
            self._take(meter.close(share))
        self._meters.clear()
        return self._settle(0.0)

    def to_state(self) -> MetersState:
        """What another process needs to go on."""
        meters = {name: meter.to_state() for name, meter in self._meters.items()}
        return MetersState(meters=meters, open=self._open_seconds, joules=self._joules, assumed=self._assumed_joules)

    @classmethod
    def from_state(cls, state: MetersState, device: str, accelerators: int = 1) -> "DeviceMeters":
        """The meters as they were."""
        meters = cls(device, accelerators)
        meters._meters = {name: Meter.from_state(meter) for name, meter in list(state.meters.items())[:MOST_METERS]}
        meters._open_seconds, meters._joules, meters._assumed_joules = state.open, state.joules, state.assumed
        return meters

    def _shared(self, believed: Believed, named: int) -> Believed:
        """What one accelerator may draw, where the figures are those of all of them."""
        count = max(self.accelerators, len(self._meters), min(named, MOST_METERS))
        most = believed.nameplate_watts
        return replace(
            believed,
            expected_watts=believed.expected_watts / count,
            nameplate_watts=None if most is None else most / count,
        )

    def _welcome(self, named: list[str], share: Believed) -> None:
        """Meters for accelerators seen for the first time; those that a full page no longer names are gone (the pod moved)."""
        if len(named) >= self.accelerators:
            for name in [name for name in self._meters if name not in named]:
                self._take(self._meters.pop(name).close(share))
        for name in named:
            if name not in self._meters and len(self._meters) < MOST_METERS:
                self._meters[name] = Meter()

    def _take(self, metered: Metered) -> None:
        self._joules += metered.joules
        self._assumed_joules += metered.assumed_joules

    def _settle(self, watts: float) -> Metered:
        settled = Metered(self._open_seconds, self._joules, min(self._assumed_joules, self._joules), watts)
        self._open_seconds = self._joules = self._assumed_joules = 0.0
        return settled


def _limited(share: Believed, reading: Reading, name: str) -> Believed:
    limit = reading.limit_watts.get(name)
    return replace(share, nameplate_watts=limit) if limit is not None and is_figure(limit) and limit > 0 else share
