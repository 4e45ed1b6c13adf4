"""The forty models, the general one, and the pools: those of examples/seed-fleet, each model several times under its own names.

No TPU: nobody publishes its watts. Pools may have as many servers as any policy wants.
"""

from dataclasses import replace

from bench.common import ROOT
from ergon.cli.plan_files import read_paths
from ergon.fleet.documents import read_fleet
from ergon.fleet.types import Fleet, Model, ModelKey

GENERAL = ModelKey("engineering", "llama-3-1-70b")
KINDS = {
    "conv": (8, ("mistral-7b-summaries", "zephyr-7b-rewriting")),
    "code": (4, ("codellama-7b",)),
    "text": (28, ("ticket-routing", "sentiment", "invoice-fields", "personal-data")),
}
SERVERS = {"h100": 60, "l4": 200, "xeon": 40, "edge": 80}
BUSY_SHARE = 0.85
"""maxBusyShare of all pools. What generates is planned with places for its peaks, what answers requests by the latency rule; the
default of 0.7 is a second headroom above both, which sizes found by trying (static, dedicated, cost, general) do not have."""


def build(watts_factor: float = 1.0, *, scale_in: bool = True) -> tuple[Fleet, list[str]]:
    """The fleet, models by name, and the kind of each (`none` for the general model). `watts_factor` scales host and idle watts,
    all of which are assumed."""
    seed = read_fleet(read_paths([str(ROOT / "examples" / "seed-fleet")]).documents, operator_namespace="ergon-system").fleet
    by_name = {model.key.name: model for model in seed.models}
    models: list[tuple[Model, str]] = [(replace(by_name[GENERAL.name], min_replicas=0), "none")]
    for kind, (count, names) in KINDS.items():
        for number in range(count):
            origin = by_name[names[number % len(names)]]
            key = ModelKey(origin.key.namespace, f"{kind}-{number:02d}-{origin.key.name}")
            models.append((replace(origin, key=key, uid=str(key), min_replicas=1, max_replicas=None, priority=100), kind))
    models.sort(key=lambda item: item[0].key)
    pools = tuple(
        replace(
            pool,
            servers_max=SERVERS[pool.name],
            max_busy_share=BUSY_SHARE,
            host_watts=pool.host_watts * watts_factor,
            idle_watts=pool.idle_watts * watts_factor,
            scale_in=scale_in,
        )
        for pool in seed.pools
        if pool.name in SERVERS
    )
    fleet = replace(seed, pools=pools, models=tuple(model for model, _ in models), current=())
    return fleet, [kind for _, kind in models]
