"""Power from what was observed and what profiles say: of a server's accelerators, of a pool, always assumed.

The formula is planning.md's, with observed busy shares for planned ones and with watts between the measured points.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ergon.energy.on import ServersOn
from ergon.fleet.points import points_on
from ergon.fleet.types import OperatingPoint, Pool, Variant

NAMEPLATE_MARGIN = 1.5
"""A board may draw more than any measured point says, for instance with another model; beyond this a meter is not believed."""


@dataclass(frozen=True, slots=True)
class PowerCurve:
    """Watts of a server's accelerators while one variant executes, by the batch it executes with; rising batches.

    `awake_watts`: drawn as soon as anything executes. `measured`: whether an operating point says so, or only the pool.
    """

    batches: tuple[float, ...]
    watts: tuple[float, ...]
    awake_watts: tuple[float, ...]
    measured: bool

    def executing_watts(self, batch: float) -> float:
        """Watts at an achieved batch: straight between the points, level beyond the first and the last."""
        return _between(self.batches, self.watts, batch)

    def awake_at(self, batch: float) -> float:
        """Awake watts at an achieved batch."""
        return _between(self.batches, self.awake_watts, batch)


def power_curve(variant: Variant | None, pool: Pool) -> PowerCurve:
    """The curve of a variant on a pool: its points there, else the pool's `busyWatts`, else its `idleWatts`."""
    idle, busy = pool.idle_watts, busy_watts(pool)
    by_batch: dict[float, tuple[float, float]] = {}
    for point in sorted(matching_points(variant, pool) if variant else (), key=attrgetter("batch", "work_per_second")):
        watts = max(idle, busy if point.watts is None else point.watts)
        awake = min(watts, max(idle, idle if point.awake_watts is None else point.awake_watts))
        by_batch[float(point.batch)] = (watts, awake)
    if not by_batch:
        return PowerCurve((1.0,), (busy,), (idle,), measured=False)
    return PowerCurve(
        tuple(by_batch), tuple(w for w, _ in by_batch.values()), tuple(a for _, a in by_batch.values()), measured=True
    )


def matching_points(variant: Variant, pool: Pool) -> list[OperatingPoint]:
    """The points that speak of a pool: those of its product, or where none names it, those of its class; only real figures."""
    usable = [p for p in variant.points if 0 < p.work_per_second < math.inf and _figure(p.watts) and _figure(p.awake_watts)]
    return points_on(usable, pool.product, pool.accelerator_class)


def busy_watts(pool: Pool) -> float:
    """`busyWatts`, by default and at least `idleWatts`."""
    return max(pool.idle_watts, pool.idle_watts if pool.busy_watts is None else pool.busy_watts)


def nameplate_watts(pool: Pool, variants: Iterable[Variant] = ()) -> float | None:
    """Watts of a server above which no meter is believed; None where the pool says nothing of its power.

    Where the device tells its own power limit, that is the better figure.
    """
    points = [p.watts for variant in variants for p in matching_points(variant, pool) if p.watts is not None]
    most = max([busy_watts(pool), *points])
    return NAMEPLATE_MARGIN * most if most > 0 else None


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """A replica at work: the share of the server's time it executes, with what batch, on what curve."""

    busy_share: float
    batch: float
    curve: PowerCurve


def device_watts(idle_watts: float, loads: Sequence[ReplicaLoad]) -> float:
    """Watts of one server's accelerators: idle, the step of being awake, and what executing adds.

    Busy shares of replicas that wait for each other overlap: together they never count for more than the whole time.
    """
    working = [load for load in loads if load.busy_share > 0]
    if not working:
        return idle_watts
    fit = min(1.0, 1.0 / math.fsum(load.busy_share for load in working))
    awake = max(load.curve.awake_at(load.batch) for load in working)
    added = (load.busy_share * (load.curve.executing_watts(load.batch) - load.curve.awake_at(load.batch)) for load in working)
    return max(idle_watts, awake) + fit * math.fsum(added)


@dataclass(frozen=True, slots=True)
class PoolPower:
    """Watts of a pool: its accelerators, the rest of its nodes, and what the site adds (pue)."""

    device_watts: float
    host_watts: float
    overhead_watts: float

    @property
    def watts(self) -> float:
        """All of it, as budgets count it."""
        return self.device_watts + self.host_watts + self.overhead_watts


def pool_power(pool: Pool, on: ServersOn, servers_watts: Iterable[float]) -> PoolPower:
    """A pool's power by profile. `servers_watts`: of the accelerators of each server that answers.

    Servers that are on beyond those (booting, shutting down, on nodes that stay) count with `idleWatts`.
    """
    answering = list(servers_watts)
    device = math.fsum([*answering, pool.idle_watts * max(0, on.servers - len(answering))])
    host = pool.host_watts * on.nodes
    return PoolPower(device, host, (pool.pue - 1) * (device + host))


def _between(batches: Sequence[float], values: Sequence[float], batch: float) -> float:
    place = bisect_left(batches, batch)
    if place == 0 or len(batches) == 1:
        return values[0]
    if place == len(batches):
        return values[-1]
    low, high = batches[place - 1], batches[place]
    share = (batch - low) / (high - low)
    return values[place - 1] + share * (values[place] - values[place - 1])


def _figure(watts: float | None) -> bool:
    return watts is None or 0 <= watts < math.inf
