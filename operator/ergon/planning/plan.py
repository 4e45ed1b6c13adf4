"""What planning returns."""

from dataclasses import dataclass, field
from typing import Literal

from ergon.fleet.types import ModelKey, Replica
from ergon.planning.candidates import Reason


@dataclass(frozen=True, slots=True)
class Alternative:
    """Why a variant is, or is not, on a pool."""

    pool: str
    variant: str
    verdict: Literal["Chosen", "Feasible", "Rejected"]
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which replicas on which servers, how many servers are on, what could not be placed, and why."""

    placements: dict[ModelKey, tuple[Replica, ...]] = field(default_factory=dict)
    servers: dict[str, int] = field(default_factory=dict)
    missing_replicas: dict[ModelKey, int] = field(default_factory=dict)
    alternatives: dict[ModelKey, tuple[Alternative, ...]] = field(default_factory=dict)
