"""How many bytes of bodies one gateway has in hand at once, over all its clients: beyond that, who comes is sent away.

Requests and answers have theirs each. A request's body is counted from before it is read, an answer's as it comes, both until the
request is over, so that many large ones at once do not end the process.
"""

from ergon.gateway.failures import Failure, Kind


class Budget:
    """Bytes under way, of all requests, or of all `answers`."""

    def __init__(self, most_bytes: int, what: str = "requests") -> None:
        self._most_bytes, self._what = most_bytes, what
        self.taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Raises Failure where there is no room for so many more."""
        if self.taken_bytes + size_bytes > self._most_bytes:
            raise Failure(Kind.TOO_MANY, f"{self.taken_bytes} bytes of {self._what} are under way already; ask again later", 1)
        self.taken_bytes += size_bytes


class Account:
    """What one request has taken of a budget, until it is settled: `with` the account, or by `settle`."""

    __slots__ = ("_budget", "taken_bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Raises Failure where there is no room for so many more."""
        self._budget.take(size_bytes)
        self.taken_bytes += size_bytes

    def settle(self) -> None:
        """The request is over."""
        self._budget.taken_bytes -= self.taken_bytes
        self.taken_bytes = 0

    def __enter__(self) -> "Account":
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
