"""Series of a run, one entry a step: taken from counters, so that a step's watts are its own joules."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ergon.planning.arrays import Floats
from ergon.simulate.results import BUCKETS_A_DECADE, SMALLEST_RATIO, Accounts, Series
from ergon.simulate.world import World


class Run(Protocol):
    """What is sampled."""

    world: World

    @property
    def execution_joules(self) -> list[float]:
        """By pool, so far."""

    @property
    def awake_joules(self) -> list[float]:
        """By pool, so far."""


class Sampler:
    """Collects a run's series."""

    def __init__(self, planned_watts: "PlannedWatts") -> None:
        self._planned = planned_watts
        self._rows: list[tuple[float, float, float, list[int], list[int]]] = []
        self._before = 0.0
        self._at = 0.0

    def begin(self, run: Run, now: float) -> None:
        """Before the first step."""
        self._before, self._at = wall_joules(run), now

    def sample(self, run: Run, now: float) -> None:
        """A step ends."""
        joules, passed = wall_joules(run), now - self._at
        if passed <= 0:
            return
        world = run.world
        servers = [world.servers_on(p) for p in range(len(world.pools))]
        replicas = [0] * len(world.pools)
        for ready in world.ready:
            for replica in ready:
                replicas[replica.server.pool] += 1
        planned = self._planned()
        self._rows.append(
            (now, (joules - self._before) / passed, float("nan") if planned is None else planned, servers, replicas)
        )
        self._before, self._at = joules, now

    def finish(self, run: Run, now: float) -> None:
        """The last step, where it is not whole."""
        self.sample(run, now)

    def series(self, requests_per_s: Floats, work_share: Floats, ratios: list[list[int]]) -> Series:
        """All of it; `ratios`: counts of latency over target by bucket, one row a step (none in rate mode)."""
        count = len(self._rows)
        share = np.full(count, np.nan)
        for step, row in enumerate(ratios[:count]):
            if total := sum(row):
                place = int(np.searchsorted(np.cumsum(row), 0.95 * total))
                share[step] = SMALLEST_RATIO * 10 ** ((place + 1) / BUCKETS_A_DECADE)
        return Series(
            seconds=np.array([row[0] for row in self._rows]),
            requests_per_s=requests_per_s[:count],
            work_share=work_share[:count],
            watts=np.array([row[1] for row in self._rows]),
            planned_watts=np.array([row[2] for row in self._rows]),
            servers=np.array([row[3] for row in self._rows], float).reshape(count, -1),
            replicas=np.array([row[4] for row in self._rows], float).reshape(count, -1),
            latency_share=share,
        )


class PlannedWatts(Protocol):
    """Gives the watts of the plan that stands."""

    def __call__(self) -> float | None:
        """None where there is no plan."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a run has used at its end: joules by account, and by pool at the wall."""

    accounts: Accounts
    pools: tuple[float, ...]


def count_joules(run: Run) -> Used:
    """What a run has used so far."""
    world = run.world
    pools = pool_joules(run)
    accounts = Accounts(
        execution=sum(run.execution_joules),
        awake=sum(run.awake_joules),
        idle=sum(world.idle_joules),
        host=sum(world.host_joules),
        loading=sum(world.loading_joules),
        pue=0.0,
    )
    return Used(replace(accounts, pue=sum(pools) - accounts.total), tuple(pools))


def pool_joules(run: Run) -> list[float]:
    """By pool, at the wall, so far."""
    world = run.world
    inside = zip(run.execution_joules, run.awake_joules, world.host_joules, world.idle_joules, world.loading_joules, strict=True)
    return [pool.pue * sum(parts) for pool, parts in zip(world.pools, inside, strict=True)]


def wall_joules(run: Run) -> float:
    """Of all pools at the wall, so far."""
    return sum(pool_joules(run))
