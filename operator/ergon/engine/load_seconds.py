"""How long models were loading on each server, for the accounts: seen while they do, and corrected once a load has ended."""

from collections.abc import Iterable, Iterator

from ergon.engine.server import ServerAgent
from ergon.fleet.types import ModelKey, ServerKey
from ergon.reconcile.observed import ColdStart, JobKind, JobPhase


class LoadSeconds:
    """Remembers what was told of each load, and which load of a replica was the last."""

    def __init__(self) -> None:
        self._told: dict[tuple[ServerKey, ModelKey], float] = {}
        self._last: dict[tuple[ServerKey, ModelKey], ColdStart] = {}

    def since(self, agents: Iterable[ServerAgent], seconds: float) -> Iterator[tuple[ServerKey, ModelKey, float]]:
        """Seconds of loading in the `seconds` since the last call: all of them while a model loads, then what is left over."""
        for agent in agents:
            for key, facts in agent.facts.items():
                place, job = (agent.key, key), facts.job
                if job is not None and job.kind is JobKind.BRING_UP and job.phase is JobPhase.LOADING:
                    self._told[place] = self._told.get(place, 0.0) + seconds
                    yield agent.key, key, seconds
                    continue
                told = self._told.pop(place, 0.0)
                if facts.cold_start is not None and facts.cold_start is not self._last.get(place):
                    self._last[place] = facts.cold_start
                    yield agent.key, key, max(0.0, facts.cold_start.load_seconds - told)

    def server_gone(self, server: ServerKey) -> None:
        """A server ended."""
        self._told = {place: told for place, told in self._told.items() if place[0] != server}
        self._last = {place: last for place, last in self._last.items() if place[0] != server}
