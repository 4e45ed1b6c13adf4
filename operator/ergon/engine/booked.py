"""Triton's counters as they were last booked, kept beside the ledger: what models did while no operator looked is booked exactly.

A server counts on while its operator is away; the first reading of a new one, less what is kept, is all that happened meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from ergon.demand.counters import BatchCounters, Counters, Window, difference
from ergon.fleet.types import ModelKey, ServerKey

KEPT_REPLICAS = 2000
"""Replicas in the state, those that were busiest; the others' joules of such a time are split as the minutes before it."""


class ReplicaState(BaseModel):
    """One replica's counters, as far as accounts need them; batches are (size, executions, busy seconds)."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    pool: str
    ordinal: int
    namespace: str
    name: str
    epoch: str
    at: float
    succeeded: int
    failed: int
    executions: int
    rows: int
    batches: tuple[tuple[int, int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class KeptReplica:
    """One replica's counters before they are made a state, which takes 0.1 s for 2,000 of 32 batch sizes: for a thread."""

    server: ServerKey
    key: ModelKey
    counters: Counters

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return _state(self.server, self.key, self.counters).model_dump(mode="json", exclude_defaults=True)


class BookedCounters:
    """The newest reading of every replica, and the one up to which it was booked."""

    def __init__(self) -> None:
        self._read: dict[ServerKey, Mapping[ModelKey, Counters]] = {}
        self._booked: dict[ServerKey, Mapping[ModelKey, Counters]] = {}
        self._kept: dict[ServerKey, dict[ModelKey, Counters]] = {}

    def read(
        self, server: ServerKey, readings: Mapping[ModelKey, Counters], instances: Mapping[ModelKey, int]
    ) -> dict[ModelKey, Window]:
        """Notes a reading. The first one after a restart also gives what happened since the last booking, where that is known."""
        self._read[server] = {key: counters for key, counters in readings.items() if counters.sound}
        windows = {}
        for key, old in self._kept.pop(server, {}).items():
            window = difference(old, readings.get(key), instances.get(key, 1))
            if window is not None:
                windows[key] = window
        return windows

    def book(self) -> None:
        """All that was read is on the books, and with it the time in which nobody looked."""
        self._booked.update(self._read)
        self._kept.clear()

    def server_gone(self, server: ServerKey) -> None:
        """A server ended."""
        for known in (self._read, self._booked, self._kept):
            known.pop(server, None)

    def to_state(self) -> tuple[KeptReplica, ...]:
        """What another process needs, of the busiest replicas."""
        replicas = [
            (counters.busy_seconds, server, key, counters)
            for server, models in self._booked.items()
            for key, counters in models.items()
        ]
        replicas.sort(key=lambda replica: (-replica[0], replica[1], replica[2]))
        return tuple(KeptReplica(server, key, counters) for _, server, key, counters in replicas[:KEPT_REPLICAS])

    @classmethod
    def from_state(cls, state: tuple[ReplicaState, ...]) -> "BookedCounters":
        """As another process left it."""
        booked = cls()
        for replica in state:
            models = booked._kept.setdefault(ServerKey(replica.pool, replica.ordinal), {})
            models[ModelKey(replica.namespace, replica.name)] = _counters(replica)
        booked._booked = {server: dict(models) for server, models in booked._kept.items()}
        return booked


def _state(server: ServerKey, key: ModelKey, counters: Counters) -> ReplicaState:
    return ReplicaState(
        pool=server.pool,
        ordinal=server.ordinal,
        namespace=key.namespace,
        name=key.name,
        epoch=counters.epoch,
        at=round(counters.at_seconds, 3),
        succeeded=counters.succeeded,
        failed=counters.failed,
        executions=counters.executions,
        rows=counters.rows,
        batches=tuple((batch.size, batch.executions, round(batch.busy_seconds, 6)) for batch in counters.batches),
    )


def _counters(state: ReplicaState) -> Counters:
    return Counters(
        at_seconds=state.at,
        succeeded=state.succeeded,
        failed=state.failed,
        executions=state.executions,
        rows=state.rows,
        batches=tuple(BatchCounters(*batch) for batch in state.batches),
        epoch=state.epoch,
    )
