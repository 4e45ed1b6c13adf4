"""An EnergyKeeper over one pool whose servers a test reads as it likes, in virtual time."""

from typing import Any

import pytest

from ergon.demand.counters import BatchCounters, Counters, difference
from ergon.energy.ledger import POOL_ACCOUNTS
from ergon.energy.meters import NOTHING, Reading
from ergon.engine.cache import Cache
from ergon.engine.demand import Counted
from ergon.engine.energy import TICK_SECONDS, EnergyKeeper
from ergon.engine.servers import Servers
from ergon.fleet.types import ModelKey, ServerKey
from tests.engine.test_orphans import agent
from tests.engine.test_planner import echo, put
from tests.engine.world import pool

KEY, SERVER = ModelKey("n", "a"), ServerKey("cpu", 0)
IDLE_WATTS, BUSY_WATTS = 10.0, 110.0
BOOT = 1e9
"""When a server's counters began, in seconds since the epoch."""


class Energy:
    """Time goes on by `after`, which books; `started_after` is when this process began. Servers count on in any case."""

    def __init__(self, started_after: float = 0.0, *, agents: int = 1, pods: int = 1, **power: Any) -> None:
        self.seconds, self._began = started_after, started_after
        cache = self.cache = Cache()
        put(cache, pool(power={"idleWatts": IDLE_WATTS, "busyWatts": BUSY_WATTS, **power}), "p1")
        put(cache, echo(KEY.name), "m1")
        self._servers = Servers(cache, lambda *_: pytest.fail("no server is connected to"), lambda _: ())
        for ordinal in range(pods):
            cache.pods[ServerKey("cpu", ordinal)] = agent().pod
        for ordinal in range(agents):
            self._servers._agents[ServerKey("cpu", ordinal)] = agent()
        self.keeper = EnergyKeeper(cache, self._servers, lambda: self.seconds - self._began, lambda: BOOT + self.seconds)
        self._before: Counters | None = None

    def read(self, requests: int, busy_seconds: float, reading: Reading = NOTHING) -> None:
        """The server is read: what its model did since it was loaded, and what its meters say."""
        batches = (BatchCounters(1, requests, busy_seconds),) if requests else ()
        now = Counters(BOOT + self.seconds, requests, 0, requests, requests, batches=batches, epoch="pod/r1")
        window = difference(self._before, now, 1) if self._before is not None else None
        self._before = now
        found = next(iter(self._servers.all()))
        self.keeper.counted(found, Counted({KEY: now}, {} if window is None else {KEY: window}, {KEY: 1}), reading)

    def after(self, seconds: float = TICK_SECONDS) -> None:
        """So much later all is booked."""
        self.seconds += seconds
        assert self.keeper.tick()

    def joules(self, account: str = "device") -> float:
        """Of the pool, since the ledger began."""
        assert account in POOL_ACCOUNTS
        found: float = getattr(self.keeper.ledger.pools["cpu"], account).joules
        return found

    def assumed_joules(self) -> float:
        """Of the pool's devices."""
        return self.keeper.ledger.pools["cpu"].device.assumed_joules

    def model_joules(self) -> float:
        """Of the model, since the ledger began."""
        account = self.keeper.ledger.models.get(KEY)
        return account.joules.joules if account is not None else 0.0
