"""What models really take up in the memory of a kind of server, learned as they are loaded.

Only GPUs say it: Triton's page has the used bytes of each. Of host memory the page tells what the whole node uses, which is no
server's own, so on other accelerators what is declared counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ergon.fleet.types import Model, ModelKey, Variant

_MOST_KNOWN = 20_000


@dataclass
class MeasuredMemory:
    """By model, variant and the server's product: the revision that was loaded last, and the bytes that its load took.

    Shared by the servers of one process; what a process before it knew is learned anew as models are loaded.
    """

    _taken: dict[tuple[ModelKey, str, str], tuple[str, int]] = field(default_factory=dict)

    def learn(self, key: ModelKey, variant: Variant, product: str, taken_bytes: int) -> None:
        """Note that a load took so much. What is not above 0 tells nothing: others gave memory back meanwhile."""
        if taken_bytes > 0:
            self._taken.pop(place := (key, variant.name, product), None)
            self._taken[place] = variant.load_revision, taken_bytes
            if len(self._taken) > _MOST_KNOWN:
                del self._taken[next(iter(self._taken))]

    def taken(self, key: ModelKey, variant: Variant, product: str) -> int:
        """Bytes that the last load of the variant's present revision took on such a server, 0 where none was measured."""
        revision, taken = self._taken.get((key, variant.name, product), ("", 0))
        return taken if revision == variant.load_revision else 0

    def known(self, models: Iterable[Model]) -> dict[tuple[ModelKey, str, str], int]:
        """The same for all variants of these models, by model, variant and product; a copy."""
        present = {(model.key, variant.name): variant.load_revision for model in models for variant in model.variants}
        return {place: taken for place, (revision, taken) in self._taken.items() if present.get((place[0], place[1])) == revision}


@dataclass
class Weighing:
    """Loads and unloads of one server: whether what its memory grew by is one load's doing.

    `under_way`: those that go on now. `begun`: how many ever began.
    """

    under_way: int = 0
    begun: int = 0

    def begin(self) -> int | None:
        """One begins; its number where none other goes on, else None. `end` follows, whatever becomes of it."""
        self.under_way += 1
        self.begun += 1
        return self.begun if self.under_way == 1 else None

    def end(self) -> None:
        """One has ended."""
        self.under_way -= 1

    def was_alone(self, number: int | None) -> bool:
        """Whether nothing else has begun since that one did."""
        return number is not None and number == self.begun
