"""How many bytes of requests' bodies one gateway has in hand at once, over all its clients: beyond that, who comes is sent away.

A body is counted from before it is read until its request is over, so that many large ones at once do not end the process.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ergon.gateway.failures import Failure, Kind


class Budget:
    """Bytes under way, of all requests."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.taken_bytes = 0

    @contextmanager
    def account(self) -> Iterator["Account"]:
        """One request's account, settled when the request is over."""
        account = Account(self)
        try:
            yield account
        finally:
            self.taken_bytes -= account.taken_bytes

    def take(self, size_bytes: int) -> None:
        """Raises Failure where there is no room for so many more."""
        if self.taken_bytes + size_bytes > self._most_bytes:
            raise Failure(Kind.TOO_MANY, f"{self.taken_bytes} bytes of requests are under way already; ask again later", 1)
        self.taken_bytes += size_bytes


class Account:
    """What one request has taken."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Raises Failure where there is no room for so many more."""
        self._budget.take(size_bytes)
        self.taken_bytes += size_bytes
