"""Splits one device's joules among what it did: idle, loading, each model by its busy time, and what nobody explains.

The parts always add up to the device. A model is charged for what it keeps busy, never beyond what the device drew: where claims
exceed it, all are scaled alike, and wait for a minute, since a meter may tell of the same second a little later than Triton.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from ergon.fleet.types import ModelKey

SETTLED_SECONDS = 60.0
"""Claims and joules that do not meet at once are matched within about this time; then they are unexplained for good."""

RECENT_SECONDS = 300.0
"""Of the mix of claims by which an interval without statistics is split."""

_DUST = 1e-6
"""Joules below which a waiting claim is forgotten."""

SHOWN_MODELS = 8
"""Of a device's mix in its state: what is split by it is seconds of a restart."""


@dataclass(frozen=True, slots=True)
class Split:
    """Joules of one device; `idle`, `loading`, the models and `unexplained` (signed) add up to `device`."""

    device: float
    idle: float
    loading: float
    unexplained: float
    models: Mapping[ModelKey, float] = field(default_factory=dict)


class SplitterState(BaseModel):
    """A device's recent mix: (namespace, name, watts) of the models that claim most, and what still waits."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    spare: float = 0.0
    loading_watts: float = 0.0
    mix: tuple[tuple[str, str, float], ...] = ()


class Splitter:
    """What one device remembers between intervals: unexplained joules and unmet claims of the last minute, and the mix."""

    def __init__(self) -> None:
        self._spare_joules = 0.0
        self._unmet: dict[ModelKey, float] = {}
        self._unmet_loading = 0.0
        self._mix_watts: dict[ModelKey, float] = {}
        self._mix_loading_watts = 0.0
        self._mix_weight = 0.0

    def split(
        self,
        device_joules: float,
        idle_joules: float,
        claims: Mapping[ModelKey, float],
        loading_joules: float,
        seconds: float,
        *,
        unobserved_seconds: float = 0.0,
        by_profile: bool = False,
    ) -> Split:
        """The split of one interval. `claims` and `loading_joules`: busy or loading seconds x watts above idle, of the observed
        part of it; the rest is claimed as the last minutes were. `by_profile`: the device's joules are made of those claims and
        of the awake step, so the models take all that is not idle.
        """
        self._learn(claims, loading_joules, seconds - unobserved_seconds)
        fade = math.exp(-seconds / SETTLED_SECONDS)
        wanted = {key: joules * fade for key, joules in self._unmet.items() if joules * fade > _DUST}
        unseen = unobserved_seconds / self._mix_weight if self._mix_weight > 0 else 0.0
        for mix, factor in ((claims, 1.0), (self._mix_watts if unseen > 0 else {}, unseen)):
            for key, value in mix.items():
                wanted[key] = wanted.get(key, 0.0) + value * factor
        loading = self._unmet_loading * fade + loading_joules + self._mix_loading_watts * unseen
        spare = self._spare_joules * fade
        room = max(0.0, device_joules - idle_joules + spare)
        claimed = math.fsum([loading, *wanted.values()])
        scale = room / claimed if claimed > room or (by_profile and claimed > 0) else 1.0
        models = {key: joules * scale for key, joules in wanted.items() if joules > 0}
        given = math.fsum([idle_joules, loading * scale, *models.values()])
        unexplained = device_joules - given
        self._spare_joules = 0.0 if by_profile else unexplained + spare
        self._unmet = {key: wanted[key] - models[key] for key in models} if scale < 1 and not by_profile else {}
        self._unmet_loading = loading * (1 - scale) if scale < 1 and not by_profile else 0.0
        return Split(device_joules, idle_joules, loading * scale, unexplained, models)

    def to_state(self) -> SplitterState:
        """What another process needs to split the seconds in which nobody looked."""
        most = sorted(self._mix_watts.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_MODELS]
        whole = self._mix_weight or 1.0
        mix = tuple((key.namespace, key.name, _short(watts / whole)) for key, watts in most)
        return SplitterState(spare=_short(self._spare_joules), loading_watts=_short(self._mix_loading_watts / whole), mix=mix)

    @classmethod
    def from_state(cls, state: SplitterState) -> "Splitter":
        """The splitter as it was."""
        splitter = cls()
        splitter._spare_joules, splitter._mix_loading_watts = state.spare, max(0.0, state.loading_watts)
        splitter._mix_watts = {ModelKey(namespace, name): max(0.0, watts) for namespace, name, watts in state.mix}
        splitter._mix_weight = 1.0
        return splitter

    def _learn(self, claims: Mapping[ModelKey, float], loading_joules: float, observed_seconds: float) -> None:
        """The mix of the last minutes, in watts times the weight of what was seen so far."""
        if observed_seconds <= 0:
            return
        keep = math.exp(-observed_seconds / RECENT_SECONDS)
        fresh = (1 - keep) / observed_seconds
        mix = {key: watts * keep for key, watts in self._mix_watts.items() if watts * keep > _DUST}
        for key, joules in claims.items():
            if joules > 0:
                mix[key] = mix.get(key, 0.0) + joules * fresh
        self._mix_watts = mix
        self._mix_weight = self._mix_weight * keep + (1 - keep)
        self._mix_loading_watts = self._mix_loading_watts * keep + loading_joules * fresh


def _short(value: float) -> float:
    """Five digits: a mix is no account."""
    return float(f"{value:.5g}")
