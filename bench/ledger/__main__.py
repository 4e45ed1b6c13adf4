"""`python -m bench.ledger`: CPU of ledger and budgets at 1,000 replicas on 100 servers, a tick each 5 s; one JSON object.

Bar: 2 % of a core, state of at most 256 KiB.
"""

import json
import random
import resource
import time

from tests.energy.world import pool

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.budget import Budget, Needs
from ergon.energy.ledger import Booked, DeviceTick, Ledger, PoolTick, ReplicaTick
from ergon.energy.meters import Reading
from ergon.energy.power import PowerCurve, ReplicaLoad, device_watts
from ergon.energy.scope import scope_use
from ergon.fleet.types import Fleet, ModelKey

TICK_SECONDS = 5.0
POOLS, SERVERS, REPLICAS, MODELS, BUDGETS, TICKS = 4, 100, 1000, 400, 10, 120
CURVE = PowerCurve((1.0, 8.0, 64.0), (40.0, 60.0, 72.0), (16.0, 16.0, 16.0), measured=True)
BAR_CORE_SHARE, BAR_STATE_BYTES = 0.02, 256 << 10


def server(number: int, counters: list[float], models: list[ModelKey], chance: random.Random) -> DeviceTick:
    """One server's interval: its replicas, each a little busy, and its accelerator's counter."""
    shares = [chance.random() * 0.08 for _ in range(REPLICAS // SERVERS)]
    watts = device_watts(16.0, [ReplicaLoad(share, 4.0, CURVE) for share in shares])
    counters[number] += watts * TICK_SECONDS * chance.uniform(0.97, 1.03)
    replicas = tuple(
        ReplicaTick(models[(number * 7 + place) % len(models)], share * TICK_SECONDS, 50.0, requests=3.0, work=3.0)
        for place, share in enumerate(shares)
    )
    name = f"pool-{number % POOLS}-{number // POOLS}"
    return DeviceTick(name, 16.0, watts, replicas, Reading({f"GPU-{number:036}": counters[number]}), 120.0)


def measure() -> dict[str, float | int | bool]:
    """CPU seconds of ticks, apart from what makes up the fleet."""
    chance = random.Random(7)
    models = [ModelKey("team", f"model-{number}") for number in range(MODELS)]
    fleet = Fleet(tuple(pool(f"pool-{number}", host_watts=90.0, pue=1.2) for number in range(POOLS)), (), {}, "ergon-system")
    limits = {"watts": 20_000, "kilowattHours": 150, "carbonGrams": 50_000, "window": "Day"}
    spec = EnergyBudgetSpec.model_validate({"limits": limits, "shedBelowPriority": 100})
    ledger, budgets, counters = Ledger(), [Budget(f"budget-{n}", spec) for n in range(BUDGETS)], [0.0] * SERVERS
    ledger_seconds = budget_seconds = 0.0
    for tick in range(TICKS):
        devices = [server(number, counters, models, chance) for number in range(SERVERS)]
        ticks = [PoolTick(f"pool-{p}", TICK_SECONDS, tuple(devices[p::POOLS]), 90.0 * 25, 0.0, 1.2) for p in range(POOLS)]
        before = time.process_time()
        booked: list[Booked] = ledger.record(ticks)
        between = time.process_time()
        for budget in budgets:
            use = scope_use(None, None, booked, fleet)
            budget.observe(TICK_SECONDS, use, Needs(use.watts, 0.6 * use.watts), 1.8e9 + tick * TICK_SECONDS)
        budget_seconds += time.process_time() - between
        ledger_seconds += between - before
    begin = time.process_time()
    text = ledger.to_state(1.8e9).model_dump_json(exclude_defaults=True)
    state_seconds = time.process_time() - begin
    budget_bytes = len(budgets[0].to_state().model_dump_json())
    share = (ledger_seconds + budget_seconds) / (TICKS * TICK_SECONDS)
    return {
        "replicas": REPLICAS,
        "servers": SERVERS,
        "budgets": BUDGETS,
        "ledger_ms_per_tick": round(1e3 * ledger_seconds / TICKS, 2),
        "budget_ms_per_tick_each": round(1e3 * budget_seconds / TICKS / BUDGETS, 3),
        "core_share": round(share, 5),
        "state_bytes": len(text),
        "state_ms": round(1e3 * state_seconds, 1),
        "budget_state_bytes": budget_bytes,
        "max_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "met": share <= BAR_CORE_SHARE and len(text) <= BAR_STATE_BYTES,
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
