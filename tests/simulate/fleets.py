"""Small fleets and traces by hand, and a run of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ergon.api.types import LabelSelector
from ergon.fleet.types import Fleet, Model, ModelKey, OperatingPoint, Pool, Replica, ServerKey, Source, Variant
from ergon.planning.arrays import Floats
from ergon.simulate.curves import build_places
from ergon.simulate.policies.base import Fixed, Observed, Policy, Target
from ergon.simulate.requests import RequestRun
from ergon.simulate.results import BUCKETS_A_DECADE, SMALLEST_SECONDS, Counter, Series
from ergon.simulate.sampling import Sampler
from ergon.simulate.settings import Settings
from ergon.simulate.traces import Chunk
from ergon.simulate.workload import Workload, read_requests

GIB = 2**30


def point(
    batch: int, work: float, latency: float = 0.0, watts: float = 60.0, awake: float | None = None, *, tokens: bool = False
) -> OperatingPoint:
    return OperatingPoint("P", None, batch, work, latency, watts, awake, None, tokens)


def model(
    name: str, *points: OperatingPoint, slo: float | None = 10.0, config: str = "{}", gib: float = 1.0, least: int = 1
) -> Model:
    source = Source("s3://models/m", "1", None)
    v = Variant("v", frozenset({"gpu"}), "python", source, int(gib * GIB), 1.0, 600.0, config, name, name, points)
    return Model(ModelKey("n", name), name, 1, 100, 0.0, None, least, None, None, (v,), slo)


def pool(name: str = "p", servers: int = 4, **more: object) -> Pool:
    values: dict[str, object] = {
        "name": name, "uid": name, "generation": 1, "labels": {}, "accelerator_class": "gpu", "product": "P",
        "memory_bytes": 16 * GIB, "max_models": None, "backends": frozenset(), "servers_min": 0, "servers_max": servers,
        "namespaces": LabelSelector(), "max_priority": 1000, "idle_watts": 10.0, "host_watts": 100.0,
        "drain_timeout_seconds": 600.0, "busy_watts": 60.0, "boot_delay_seconds": 180.0, "off_delay_seconds": 600.0,
    }  # fmt: skip
    return Pool(**{**values, **more})  # type: ignore[arg-type]


def fleet(models: Sequence[Model], pools: Sequence[Pool] | None = None) -> Fleet:
    return Fleet(tuple(pools or [pool()]), tuple(sorted(models, key=lambda m: m.key)), {}, "ergon-system")


def on(name: str, *ordinals: int, at: str = "p") -> dict[ModelKey, tuple[Replica, ...]]:
    key = ModelKey("n", name)
    return {key: tuple(Replica(key, "v", ServerKey(at, ordinal)) for ordinal in ordinals)}


@dataclass
class Scripted:
    """A policy that does what it was told, at the times it was told."""

    first: Mapping[ModelKey, tuple[Replica, ...]]
    later: list[tuple[float, Mapping[ModelKey, tuple[Replica, ...]]]] = field(default_factory=list)
    name: str = "scripted"
    interval_seconds: float = 1.0
    alone: bool = False
    planned_watts: float | None = None

    def start(self, now_seconds: float) -> Target:
        return Target(self.first)

    def decide(self, observed: Observed) -> Target | None:
        if self.later and observed.now_seconds >= self.later[0][0]:
            return Target(self.later.pop(0)[1])
        return None


def workload(models: Sequence[Model], rows: Sequence[tuple[float, int, float, float]] | Chunk, step: float = 60.0) -> Workload:
    """Rows: seconds, model, input tokens, output tokens."""
    if isinstance(rows, Chunk):
        chunk = rows
    else:
        table = np.array(sorted(rows), float).reshape(-1, 4)
        chunk = Chunk(table[:, 0], table[:, 1].astype(np.int64), np.ones(len(table)), table[:, 2], table[:, 3])

    def read() -> Iterator[Chunk]:
        return iter([chunk])

    return read_requests(tuple(models), read, step)


def poisson(rate: float, seconds: float, seed: int, size: Callable[[np.random.Generator, int], Floats] | None = None) -> Chunk:
    """Poisson arrivals of the first model; `size` draws output tokens."""
    chance = np.random.default_rng(seed)
    count = int(chance.poisson(rate * seconds))
    times = np.sort(chance.random(count)) * seconds
    tokens = size(chance, count) if size is not None else np.full(count, np.nan)
    return Chunk(times, np.zeros(count, np.int64), np.ones(count), np.zeros(count), tokens)


@dataclass
class Ran:
    """What a run left."""

    run: RequestRun
    series: Series

    @property
    def counters(self) -> list[Counter]:
        return self.run.counters

    def mean_latency(self, model: int = 0) -> float:
        buckets = np.array(self.counters[model].buckets)
        middles = SMALLEST_SECONDS * 10 ** ((np.arange(len(buckets)) + 0.5) / BUCKETS_A_DECADE)
        return float((buckets * middles).sum() / buckets.sum())


def run(
    models: Sequence[Model],
    asked: Workload,
    placements: Mapping[ModelKey, tuple[Replica, ...]] | Policy,
    *,
    end: float,
    pools: Sequence[Pool] | None = None,
    settings: Settings | None = None,
    seed: int = 0,
) -> Ran:
    made = fleet(models, pools)
    policy = Fixed("fixed", Target(placements), alone=False) if isinstance(placements, Mapping) else placements
    sampler = Sampler(lambda: None)
    simulated = RequestRun(made, build_places(made), asked, policy, settings or Settings(), seed=seed, begin=0.0, end=end)
    simulated.run(sampler)
    nothing = np.zeros(0)
    return Ran(simulated, sampler.series(nothing, nothing, simulated.ratios))
