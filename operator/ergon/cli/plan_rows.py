"""A plan as rows a person reads: one a pool, one a model, those in trouble first. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica
from ergon.planning import Alternative, Plan, Reason

_SHOWN = 3
_JUDGED = (
    *(Reason.POOL_DELETED, Reason.ACCELERATOR_MISMATCH, Reason.NAMESPACE_NOT_ALLOWED, Reason.POOL_NOT_SELECTED),
    *(Reason.BACKEND_MISSING, Reason.QUALITY_TOO_LOW, Reason.MEMORY_TOO_SMALL, Reason.LATENCY_TOO_HIGH),
)


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool in a plan. `busy_share` and `memory_share` are means over the servers that are on."""

    name: str
    servers: int
    servers_max: int
    replicas: int
    busy_share: float
    memory_share: float
    watts: float
    price_per_hour: float
    grams_per_hour: float


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model in a plan. `busy_share` is the mean over its replicas, `watts` what executing it adds.

    `in_trouble`: demand or replicas are not served; `why` then says what and why.
    """

    model: str
    places: str
    variants: str
    replicas: int
    work_per_second: float
    busy_share: float
    watts: float
    why: str
    in_trouble: bool


def pool_rows(fleet: Fleet, plan: Plan) -> list[PoolRow]:
    """Every pool, by name."""
    standing: dict[str, list[Replica]] = {}
    for replicas in plan.placements.values():
        for replica in replicas:
            standing.setdefault(replica.server.pool, []).append(replica)
    return [_pool_row(pool, plan, standing.get(pool.name, [])) for pool in sorted(fleet.pools, key=lambda pool: pool.name)]


def _pool_row(pool: Pool, plan: Plan, replicas: list[Replica]) -> PoolRow:
    servers = plan.servers.get(pool.name, 0)
    loads = [plan.loads[replica] for replica in replicas if replica in plan.loads]
    watts = plan.pool_watts.get(pool.name, 0.0)
    return PoolRow(
        name=pool.name,
        servers=servers,
        servers_max=pool.servers_max,
        replicas=len(replicas),
        busy_share=sum(load.busy_share for load in loads) / servers if servers else 0.0,
        memory_share=sum(load.memory_bytes for load in loads) / (servers * pool.memory_bytes) if servers else 0.0,
        watts=watts,
        price_per_hour=_paid(pool, servers) * pool.price_per_server_hour,
        grams_per_hour=watts / 1000 * pool.grams_per_kilowatt_hour,
    )


def _paid(pool: Pool, servers: int) -> int:
    """Servers that cost: those that run, or all where they stay on anyway."""
    return len(set(range(servers)) - pool.unavailable) if pool.scale_in else pool.servers_max


def model_rows(fleet: Fleet, plan: Plan) -> list[ModelRow]:
    """Every model: those in trouble first by priority, then those that draw most, then by name."""
    rows = [(model, _model_row(fleet, plan, model)) for model in fleet.models]
    rows.sort(key=lambda pair: (not pair[1].in_trouble, -pair[0].priority if pair[1].in_trouble else -pair[1].watts, pair[0].key))
    return [row for _, row in rows]


def _model_row(fleet: Fleet, plan: Plan, model: Model) -> ModelRow:
    replicas = plan.placements.get(model.key, ())
    loads = [plan.loads[replica] for replica in replicas if replica in plan.loads]
    trouble = trouble_of(fleet, plan, model.key)
    return ModelRow(
        model=str(model.key),
        places=places(replicas),
        variants=", ".join(sorted({replica.variant for replica in replicas})),
        replicas=len(replicas),
        work_per_second=sum(load.work_per_second for load in loads),
        busy_share=sum(load.busy_share for load in loads) / len(loads) if loads else 0.0,
        watts=sum(load.watts for load in loads),
        why="; ".join([trouble or _why(plan.alternatives.get(model.key, ()), bool(replicas)), *_assumed(plan, replicas)]),
        in_trouble=bool(trouble),
    )


def _assumed(plan: Plan, replicas: Iterable[Replica]) -> list[str]:
    pools = sorted({r.server.pool for r in replicas if r in plan.loads and plan.loads[r].provenance == "assumed"})
    return [f"energy assumed: no operating point for {', '.join(pools)}"] if pools else []


def trouble_of(fleet: Fleet, plan: Plan, key: ModelKey) -> str:
    """What of a model cannot be served and why, in one sentence; empty where nothing is short."""
    short = []
    unserved = plan.unserved.get(key, 0.0)
    if unserved > 0:
        short.append(f"{number(unserved)} of {number(fleet.demand.get(key, 0.0))} work/s not served")
    missing = plan.missing_replicas.get(key, 0)
    if missing:
        short.append(f"{missing} {'replica' if missing == 1 else 'replicas'} missing")
    return f"{' and '.join(short)}: {_obstacles(plan.alternatives.get(key, ()))}" if short else ""


def _obstacles(alternatives: Iterable[Alternative]) -> str:
    """Why not elsewhere: for each pool its most telling reason, the nearest misses first."""
    telling: dict[str, Reason] = {}
    none = True
    for alternative in alternatives:
        none = False
        known = telling.get(alternative.pool)
        if alternative.verdict != "Chosen" and (known is None or _misses(alternative.reason) > _misses(known)):
            telling[alternative.pool] = alternative.reason
    if not telling:
        return "there is no pool" if none else "the pools it is on have no more room"
    pools: dict[Reason, list[str]] = {}
    for pool in sorted(telling, key=lambda name: (-_misses(telling[name]), name)):
        pools.setdefault(telling[pool], []).append(pool)
    said = [f"{reason} on {_some(names)}" for reason, names in pools.items()]
    more = f" and {len(said) - _SHOWN} more reasons" if len(said) > _SHOWN else ""
    return "; ".join(said[:_SHOWN]) + more


def _misses(reason: Reason) -> int:
    """How near a rejected place came to being taken: the later its reason is judged, the nearer."""
    return _JUDGED.index(reason) if reason in _JUDGED else len(_JUDGED)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _why(alternatives: Iterable[Alternative], placed: bool) -> str:
    chosen = [alternative for alternative in alternatives if alternative.verdict == "Chosen"]
    if not placed:
        return "no demand, and minReplicas is 0"
    return "; ".join(f"{alternative.pool}: {alternative.reason}, {alternative.message}" for alternative in chosen)


def places(replicas: Iterable[Replica]) -> str:
    """Pools and ordinals in short: `l4 0-2,5; xeon 0`."""
    ordinals: dict[str, list[int]] = {}
    for replica in replicas:
        ordinals.setdefault(replica.server.pool, []).append(replica.server.ordinal)
    return "; ".join(f"{pool} {_ranges(sorted(ordinals[pool]))}" for pool in sorted(ordinals))


def _ranges(ordinals: list[int]) -> str:
    runs: list[list[int]] = []
    for ordinal in ordinals:
        if runs and ordinal == runs[-1][1] + 1:
            runs[-1][1] = ordinal
        else:
            runs.append([ordinal, ordinal])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def number(value: float) -> str:
    """A figure with three significant digits, thousands apart: `0.0123`, `12.3`, `1,234`."""
    if value != 0 and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"
