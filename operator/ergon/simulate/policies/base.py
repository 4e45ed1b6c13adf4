"""The interface of a policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ergon.fleet.types import ModelKey, Replica
from ergon.planning.arrays import Floats

Placements = Mapping[ModelKey, tuple[Replica, ...]]


@dataclass(frozen=True, slots=True)
class Observed:
    """What a policy sees. Arrays have one entry a model, in the workload's order.

    `requests`, `work`: that arrived in the `interval_seconds` since the last look. `late`: requests in it that were answered too
    late or refused. `waiting`: requests that wait at this moment. `ready`: replicas that answer. `present`: those, and
    replicas that drain. `moving`: models of which a replica is being fetched, loaded or drained.
    """

    now_seconds: float
    interval_seconds: float
    requests: Floats
    work: Floats
    late: Floats
    waiting: Floats
    ready: frozenset[Replica]
    present: frozenset[Replica]
    moving: frozenset[ModelKey]


@dataclass(frozen=True, slots=True)
class Target:
    """Where replicas should be. `servers`: how many servers of a pool should be on at least; absent: as many as it takes."""

    placements: Placements
    servers: Mapping[str, int] = field(default_factory=dict)


class Policy(Protocol):
    """Decides what should stand where. `alone`: each server goes on and off by itself, as with Deployments and a node autoscaler;
    else a pool is a StatefulSet, which drops only its highest ordinals. `planned_watts`: what its last plan says, None without.
    """

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def interval_seconds(self) -> float:
        """How often it looks."""

    @property
    def alone(self) -> bool:
        """Whether servers go on and off one by one."""

    @property
    def planned_watts(self) -> float | None:
        """Watts of the plan it holds."""

    def start(self, now_seconds: float) -> Target:
        """What stands, ready, when the simulation begins."""

    def decide(self, observed: Observed) -> Target | None:
        """What should stand from now on; None: as before."""


@dataclass(slots=True)
class Fixed:
    """Never changes anything."""

    name: str
    target: Target
    alone: bool = True
    interval_seconds: float = 3600.0
    planned_watts: float | None = None

    def start(self, now_seconds: float) -> Target:
        """The one target."""
        return self.target

    def decide(self, observed: Observed) -> Target | None:
        """Nothing."""
        return None
