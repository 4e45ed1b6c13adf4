"""What a variant does on a server of a pool, by batch: server time, answer, power; interpolated between its operating points.

Two kinds. *Batched* models (rates in requests): Triton's dynamic batcher sends at most `max_batch` requests as one execution.
*Continuous* models (rates in tokens): requests join and leave a running generation, `max_batch` at most at a time.

Between points the time of an execution, or of a step of generation, is taken as a straight line over the batch. Below the
smallest measured batch nothing is known, so the least is assumed that contradicts no measurement: a batched model takes the share
of the server that its rate there says, and no less latency than measured; a request of a continuous model is no faster than at
the smallest batch.
"""

import json
from dataclasses import dataclass

import numpy as np

from ergon.fleet.types import Fleet, Model, ModelKey, OperatingPoint, Pool, Variant
from ergon.planning.arrays import Floats
from ergon.planning.effort import Weights
from ergon.planning.points import matching_points
from ergon.planning.problem import build_problem

LARGEST_BATCH = 4096
"""Entries of a curve at most: more requests at once on one server are cut to this."""


@dataclass(frozen=True, slots=True)
class Place:
    """A variant on a pool: where planning may put it, and how it runs there. Lists have one entry a batch size, from 0.

    `work_per_second`, `busy_share_limit`: those of the operating point that planning uses; 0 where none is known. `seconds`: of
    the server's time that an execution of a batch takes (batched). `answer_seconds`: from its start to the answer, alone on the
    server; to the first token for continuous models. `work_rate`: work per second with so many in flight (continuous). `share`:
    of the server that they keep (1 for any execution of a batched model). `slope_watts`: what the accelerators draw above
    `awake_watts`, which itself is above the pool's idleWatts.
    """

    model: ModelKey
    variant: str
    pool: str
    continuous: bool
    max_batch: int
    work_per_second: float
    busy_share_limit: float
    memory_bytes: int
    awake_watts: float
    seconds: list[float]
    answer_seconds: list[float]
    work_rate: list[float]
    share: list[float]
    slope_watts: list[float]
    queue: "QueuePolicy"

    @property
    def known(self) -> bool:
        """Whether any operating point speaks of it; else it can hold replicas, and no request is sent there."""
        return self.work_per_second > 0

    @property
    def planned_work_per_second(self) -> float:
        """Work per second that one replica alone on a server may be planned for."""
        return self.work_per_second * self.busy_share_limit


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Triton's dynamic batcher as the variant's `config` sets it: how long a batch may wait to fill, how many may wait, how long.

    `instances`: executions of the model at a time on one server.
    """

    delay_seconds: float = 0.0
    max_queue: int = 0
    timeout_seconds: float = 0.0
    instances: int = 1
    max_batch: int | None = None


def build_places(fleet: Fleet) -> dict[tuple[ModelKey, str, str], Place]:
    """Every (model, variant, pool) that may hold replicas, by the planner's own judgement of candidates."""
    problem = build_problem(fleet, Weights())
    c = problem.candidates
    places: dict[tuple[ModelKey, str, str], Place] = {}
    for n in range(len(c.model)):
        model, variant, pool = problem.models[int(c.model[n])], problem.variants[int(c.variant[n])], problem.pools[int(c.pool[n])]
        chosen = variant.points[int(c.point[n])] if c.point[n] >= 0 else None
        places[model.key, variant.name, pool.name] = _place(
            model, variant, pool, chosen, float(c.mu[n]), float(c.rho[n]), int(c.memory_bytes[n])
        )
    return places


def _place(
    model: Model, variant: Variant, pool: Pool, chosen: OperatingPoint | None, mu: float, rho: float, memory_bytes: int
) -> Place:
    queue = queue_policy(variant.config_json)
    if chosen is None:
        return Place(
            model.key, variant.name, pool.name, model.counts_tokens, 1, 0.0, rho, memory_bytes, 0.0, [0.0] * 2, [0.0] * 2,
            [0.0] * 2, [0.0] * 2, [0.0] * 2, queue,
        )  # fmt: skip
    most = max(1, min(queue.max_batch if queue.max_batch is not None else chosen.batch, LARGEST_BATCH))
    points = _by_batch([p for p in matching_points(variant, pool) if (p.memory_bytes or 0) <= pool.memory_bytes])
    batch = np.array([p.batch for p in points], float)
    rate = np.array([p.work_per_second for p in points], float)
    answers = np.array([p.latency_seconds or 0.0 for p in points], float)
    watts = np.array([_watts(p, pool) for p in points], float)
    awake = min(
        max(chosen.awake_watts if chosen.awake_watts is not None else pool.idle_watts, pool.idle_watts), _watts(chosen, pool)
    )
    n = np.arange(most + 1, dtype=float)
    seconds = _straight(n, batch, batch / rate)
    answer = np.interp(n, batch, answers)
    if model.counts_tokens:
        work_rate = np.divide(n, np.maximum(np.interp(n, batch, batch / rate), 1e-12))
        top = max(float(work_rate.max()), 1e-12)
        slope = _slope_by_rate(n, work_rate, batch, rate, watts - awake)
        share = np.minimum(work_rate / top, 1.0)
        seconds = np.zeros(most + 1)
    else:
        work_rate = np.zeros(most + 1)
        slope = np.interp(n, batch, watts - awake)
        share = np.ones(most + 1)
        answer = np.maximum(answer, seconds)
    return Place(
        model=model.key,
        variant=variant.name,
        pool=pool.name,
        continuous=model.counts_tokens,
        max_batch=most,
        work_per_second=mu,
        busy_share_limit=rho,
        memory_bytes=memory_bytes,
        awake_watts=awake - pool.idle_watts,
        seconds=seconds.tolist(),
        answer_seconds=answer.tolist(),
        work_rate=work_rate.tolist(),
        share=share.tolist(),
        slope_watts=slope.tolist(),
        queue=queue,
    )


def _by_batch(points: list[OperatingPoint]) -> list[OperatingPoint]:
    """One point a batch, the fastest, from the smallest batch."""
    best: dict[int, OperatingPoint] = {}
    for point in points:
        if point.batch not in best or point.work_per_second > best[point.batch].work_per_second:
            best[point.batch] = point
    return [best[batch] for batch in sorted(best)]


def _watts(point: OperatingPoint, pool: Pool) -> float:
    busy = pool.busy_watts if pool.busy_watts is not None else pool.idle_watts
    return max(pool.idle_watts, point.watts if point.watts is not None else busy)


def _straight(n: Floats, batch: Floats, seconds: Floats) -> Floats:
    """Server time by batch: straight lines between points, in proportion below the first and by the last rate above the last."""
    inside = np.interp(n, batch, seconds)
    below = n * seconds[0] / batch[0]
    above = n * seconds[-1] / batch[-1]
    made: Floats = np.where(n < batch[0], below, np.where(n > batch[-1], above, inside))
    return made


def _slope_by_rate(n: Floats, work_rate: Floats, batch: Floats, rate: Floats, slope: Floats) -> Floats:
    """Watts above awake: from none at rest to the first point by rate, then straight lines over the batch."""
    low = slope[0] * np.minimum(work_rate / rate[0], 1.0)
    made: Floats = np.maximum(np.where(n < batch[0], low, np.interp(n, batch, slope)), 0.0)
    return made


def queue_policy(config_json: str) -> QueuePolicy:
    """What a variant's `config` says of batching and queueing; what is not understood counts as not said."""
    config = json.loads(config_json or "{}")
    batching = _map(config.get("dynamic_batching"))
    rules = _map(batching.get("default_queue_policy"))
    rejects = rules.get("timeout_action", "REJECT") in ("REJECT", 0)
    groups = config.get("instance_group")
    counts = [_number(_map(group).get("count", 1)) for group in groups] if isinstance(groups, list) else []
    batch = config.get("max_batch_size")
    return QueuePolicy(
        delay_seconds=_number(batching.get("max_queue_delay_microseconds")) / 1e6,
        max_queue=int(_number(rules.get("max_queue_size"))),
        timeout_seconds=_number(rules.get("default_timeout_microseconds")) / 1e6 if rejects else 0.0,
        instances=max(1, int(sum(counts))),
        max_batch=max(1, int(_number(batch))) if batch is not None else None,
    )


def _map(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    """A count or a time; protobuf's JSON writes 64-bit figures as text."""
    try:
        return max(0.0, float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0
