"""What a simulation assumes of the world beyond the fleet's own documents. Every figure is the same for all policies."""

from dataclasses import dataclass
from typing import Literal

Balance = Literal["least-requests", "round-robin"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Assumptions of a run.

    `fetch_bytes_per_second`, `load_seconds`, `load_bytes_per_second`: a replica is fetched at the one rate, then loaded in so
    many seconds and at the other; sizes are the variants' `memory`, which is more than their files hold. At 1 GB/s a 7B model of
    18 GiB takes 41 s, and one of four boards and 128 GiB 277 s (measured elsewhere: 12 to 64 s and 257 s; Wilkins 2024).
    `server_start_seconds`: a server on a node that is up already. `quiet_seconds`: a replica that left traffic stays loaded until
    so long without a request (the operator's rule: one connection age of 60 s, and 10 s). `hold_seconds`: how long the gateway
    holds a request for a model that sleeps. `balance`: how the gateway chooses among ready replicas. `step_seconds`: of samples,
    and of rate mode.
    """

    fetch_bytes_per_second: float = 1e9
    load_seconds: float = 2.0
    load_bytes_per_second: float = 1e9
    server_start_seconds: float = 5.0
    quiet_seconds: float = 70.0
    hold_seconds: float = 60.0
    balance: Balance = "least-requests"
    step_seconds: float = 60.0

    def cold_start_seconds(self, memory_bytes: int) -> float:
        """From a server that is up to a replica that answers."""
        return self.fetch_seconds(memory_bytes) + self.loading_seconds(memory_bytes)

    def fetch_seconds(self, memory_bytes: int) -> float:
        """Of fetching a replica's files."""
        return memory_bytes / self.fetch_bytes_per_second

    def loading_seconds(self, memory_bytes: int) -> float:
        """Of Triton loading it."""
        return self.load_seconds + memory_bytes / self.load_bytes_per_second
