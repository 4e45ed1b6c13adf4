"""What a budget's scope used, of what was booked: whole pools, or what the models of some namespaces were charged there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ergon.api.types import LabelSelector
from ergon.energy.accounts import JOULES_PER_KILOWATT_HOUR, Provenance
from ergon.energy.ledger import Booked
from ergon.fleet.types import Fleet


@dataclass(frozen=True, slots=True)
class ScopeUse:
    """Of an interval: joules and grams of CO2 used in the `seconds` before now, how many joules were assumed, watts now."""

    seconds: float
    joules: float
    assumed_joules: float
    grams: float
    watts: float

    @property
    def grams_per_joule(self) -> float:
        """Of what was used."""
        return self.grams / self.joules if self.joules > 0 else 0.0

    @property
    def provenance(self) -> Provenance:
        """ASSUMED where more than half of it was: hosts are always assumed."""
        return Provenance.ASSUMED if self.assumed_joules > self.joules / 2 else Provenance.DERIVED


def scope_use(
    pools: LabelSelector | None,
    namespaces: LabelSelector | None,
    booked: Sequence[Booked],
    fleet: Fleet,
    grams_per_kilowatt_hour: Mapping[str, float] | None = None,
) -> ScopeUse:
    """What the pools that a budget selects used, or with `namespaces` only what their models were charged, times pue: host,
    idle and loading belong to no namespace. `grams_per_kilowatt_hour` by pool, now; absent: the pool's own figure.
    """
    inside = {pool.name: pool.grams_per_kilowatt_hour for pool in fleet.pools if pools is None or pools.matches(pool.labels)}
    joules, assumed, grams, watts, seconds = [], [], [], [], 0.0
    for pool in booked:
        if pool.pool not in inside:
            continue
        share = _share(pool, namespaces, fleet)
        joules.append(pool.joules * share)
        assumed.append(pool.assumed_joules * share)
        watts.append(pool.watts * share)
        intensity = (grams_per_kilowatt_hour or {}).get(pool.pool, inside[pool.pool])
        grams.append(pool.joules * share / JOULES_PER_KILOWATT_HOUR * intensity)
        seconds = max(seconds, pool.seconds)
    return ScopeUse(seconds, math.fsum(joules), math.fsum(assumed), math.fsum(grams), math.fsum(watts))


def _share(pool: Booked, namespaces: LabelSelector | None, fleet: Fleet) -> float:
    if namespaces is None or pool.joules <= 0:
        return 1.0 if namespaces is None else 0.0
    names = {key.namespace for key in pool.models}
    inside = {name for name in names if namespaces.matches(fleet.namespace_labels(name))}
    return pool.pue * math.fsum(joules for key, joules in pool.models.items() if key.namespace in inside) / pool.joules
