"""What planning returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ergon.fleet.types import ModelKey, Replica
from ergon.planning.candidates import Reason
from ergon.planning.ground import Ground

Provenance = Literal["profile", "learned", "assumed"]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Why a variant is, or is not, on a pool."""

    pool: str
    variant: str
    verdict: Literal["Chosen", "Feasible", "Rejected"]
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Load:
    """What a replica is planned to do: its part of the demand, what it keeps of its server, and the point that says so.

    `batch` is that of the operating point, 0 where none matches; `provenance` says where its figures come from. `watts`: what
    executing it adds at the wall, pue x u x (W - A). `most_per_second`: work that it could serve within its target with a
    server of its own, 0 where nobody knows.
    """

    work_per_second: float
    busy_share: float
    memory_bytes: int
    batch: int
    provenance: Provenance
    watts: float = 0.0
    most_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Which replicas on which servers, how many servers are on, what could not be placed, and why.

    `unserved`: work per second of models whose demand is not met. `over_limit_watts`: by budget, the watts above 0.95 x its
    limit that cannot be avoided. `pool_watts`: power by pool, which adds up to `watts`. `lower_bound_watts`: no plan of the
    same shortfall can take less. `notes`: what a person should know about how the plan was made, such as a solver that found
    no answer in its time. `ground`: what it leaves to the plan that is made after it.
    """

    placements: dict[ModelKey, tuple[Replica, ...]] = field(default_factory=dict)
    servers: dict[str, int] = field(default_factory=dict)
    missing_replicas: dict[ModelKey, int] = field(default_factory=dict)
    alternatives: Mapping[ModelKey, tuple[Alternative, ...]] = field(default_factory=dict)
    loads: dict[Replica, Load] = field(default_factory=dict)
    unserved: dict[ModelKey, float] = field(default_factory=dict)
    over_limit_watts: dict[str, float] = field(default_factory=dict)
    pool_watts: dict[str, float] = field(default_factory=dict)
    watts: float = 0.0
    price_per_hour: float = 0.0
    grams_per_hour: float = 0.0
    lower_bound_watts: float = 0.0
    notes: tuple[str, ...] = ()
    ground: Ground | None = field(default=None, compare=False, repr=False)

    @property
    def gap(self) -> float:
        """By how much of the lower bound the plan's watts are above it."""
        return self.watts / self.lower_bound_watts - 1 if self.lower_bound_watts > 0 else 0.0

    @property
    def short(self) -> bool:
        """Whether replicas are missing or demand is not met."""
        return bool(self.missing_replicas) or any(work > 0 for work in self.unserved.values())
