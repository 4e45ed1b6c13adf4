"""What observing and forecasting cost: counters of many replicas and what is urgent every 5 s, a plan's demand every minute.

python -m bench.observing --replicas 1000
"""

import argparse
import json
import time
from random import Random

from bench.common import Report
from ergon.demand import BatchCounters, Book, Counters, Limits, ServerView, Tenant
from ergon.fleet.types import ModelKey, OperatingPoint, ServerKey, Source, Variant

PER_SERVER = 10
MODELS_PER_REPLICA = 0.8
START = 1_700_000_000.0


def fleet(replicas: int) -> list[ServerView]:
    """Servers of ten replicas each, most models with one of their own."""
    points = (OperatingPoint("Xeon", None, 1, 20.0, 0.05), OperatingPoint("Xeon", None, 8, 80.0, 0.1))
    source = Source("file:///models/a", "1", None)
    variant = Variant("cpu", frozenset({"cpu"}), "python", source, 1, 0.9, 600.0, "{}", "c", "l", points)
    models = max(1, int(replicas * MODELS_PER_REPLICA))
    keys = [ModelKey("bench", f"m{number % models}") for number in range(replicas)]
    return [
        ServerView(ServerKey("xeon", start), "Xeon", "cpu", {key: Tenant(variant) for key in keys[start : start + PER_SERVER]})
        for start in range(0, replicas, PER_SERVER)
    ]


class Load:
    """Counters of one replica, moved on by chance."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.counts = {1: 0, 4: 0, 8: 0}

    def read(self, at: float) -> Counters:
        """Five seconds later."""
        for size in self.counts:
            self.counts[size] += self.chance.randint(0, 4)
        batches = tuple(BatchCounters(size, n, n * (0.04 + 0.007 * size)) for size, n in self.counts.items())
        requests = sum(size * n for size, n in self.counts.items())
        executions = sum(self.counts.values())
        return Counters(at, requests, 0, executions, requests, requests * 0.01, requests * 0.1, batches, 0)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--replicas", type=int, default=1000, help="replicas, ten a server")
    options.add_argument("--minutes", type=int, default=20, help="of observed time")
    options.add_argument("--seed", type=int, default=1, help="seed of the load")
    options.add_argument("--cluster", default="", help="not used: no cluster is needed")
    arguments = options.parse_args()
    chance, servers, book = Random(arguments.seed), fleet(arguments.replicas), Book()
    loads = {(view.key, key): Load(chance) for view in servers for key in view.tenants}
    limits = {key: Limits() for view in servers for key in view.tenants}
    spent = {"observe": 0.0, "urgent": 0.0, "demand": 0.0}
    for step in range(arguments.minutes * 12):
        now = START + 5 * step
        readings = [(view, {key: loads[view.key, key].read(now) for key in view.tenants}) for view in servers]
        begun = time.process_time()
        for view, counters in readings:
            book.observe(view, counters)
        observed = time.process_time()
        book.urgent(now, limits)
        looked = time.process_time()
        spent["observe"] += observed - begun
        spent["urgent"] += looked - observed
        if step % 12 == 11:
            book.demand(now, limits)
            spent["demand"] += time.process_time() - looked
    seconds = arguments.minutes * 60
    report = Report("observing")
    report.bar("all of it, of a core", 100 * sum(spent.values()) / seconds, 5.0, "%")
    for name, cpu in spent.items():
        report.figure(f"{name}, of a core", 100 * cpu / seconds, "%")
    report.figure("observe, a replica", spent["observe"] / (arguments.minutes * 12 * arguments.replicas) * 1e6, "us")
    report.figure("demand of all models, a plan", spent["demand"] / arguments.minutes * 1e3, "ms")
    report.figure("state, a model", len(json.dumps(book.to_state())) / len(limits), "bytes")
    report.finish(arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
