"""Where a model is served for the least energy by a full server, all other models left aside."""

import math

from tests.planning import law
from tests.planning.law import Use

from ergon.fleet.types import Model, Pool, Variant


def best_place(model: Model, pools: tuple[Pool, ...]) -> tuple[Variant, Pool, Use] | None:
    """Where a full server does the model's work for the least energy."""
    found: tuple[float, Variant, Pool, Use] | None = None
    for pool in pools:
        if model.pool_selector is not None and not model.pool_selector.matches(pool.labels):
            continue
        for variant in model.variants:
            joules, use = _full_joules(model, variant, pool)
            if use is not None and (found is None or joules < found[0]):
                found = (joules, variant, pool, use)
    return found and found[1:]


def _full_joules(model: Model, variant: Variant, pool: Pool) -> tuple[float, Use | None]:
    if pool.accelerator_class not in variant.accelerators:
        return math.inf, None
    judged = law.judge_points(model.slo_latency_seconds, variant, pool)
    if isinstance(judged, str) or not judged[0].work_per_second:
        return math.inf, None
    return full_watts(pool, judged[0]) / judged[0].work_per_second, judged[0]


def full_watts(pool: Pool, use: Use) -> float:
    """Watts of one server kept busy by a use, by busy share: its standing watts spread over what it may be busy."""
    standing = use.awake_watts + pool.host_watts / pool.servers_per_node
    return pool.pue * (use.watts - use.awake_watts + standing / use.rho)
