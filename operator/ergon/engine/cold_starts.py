"""How long models are without a replica that answers, and what that says of their next start."""

from collections.abc import Callable

from ergon.fleet.types import ModelKey

LONGEST_SECONDS = 900.0
"""For which demand is foreseen at most: who waits longer waits for something that more replicas, sooner, do not bring."""


class ColdStarts:
    """The models that were planned and that no replica answers for. Times are seconds of one clock that never steps back.

    `told(key, seconds)`: of a start that says how long the next one takes.
    """

    def __init__(self, told: Callable[[ModelKey, float], None]) -> None:
        self._told = told
        self._since: dict[ModelKey, float] = {}
        self._failed: set[ModelKey] = set()

    def decided(self, key: ModelKey, now: float, *, cold: bool, failed: bool) -> None:
        """What the loop found. `cold`: planned, and no replica answers; `failed`: one of them could not be brought up."""
        if not cold:
            return self.forget(key)
        self._since.setdefault(key, now)
        if failed:
            self._failed.add(key)
        return None

    def waited(self, key: ModelKey, now: float) -> float:
        """Seconds for which a model was planned and no replica of it answered."""
        return now - self._since.get(key, now)

    def started(self, key: ModelKey, seconds: float) -> None:
        """A replica was loaded so long after its model was planned. Where something failed on the way, that says nothing."""
        if key not in self._failed:
            self._told(key, min(seconds, LONGEST_SECONDS))

    def forget(self, key: ModelKey) -> None:
        """The model answers, or is planned no more, or is gone."""
        self._since.pop(key, None)
        self._failed.discard(key)
