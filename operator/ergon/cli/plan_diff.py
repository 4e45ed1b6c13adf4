"""What one plan changes against another: loads and unloads, servers and watts of pools, and what is newly short, or no longer."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ergon.cli.plan_rows import PoolRow, pool_rows
from ergon.fleet.types import Fleet, ModelKey, Replica
from ergon.planning import Plan


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before and after."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class PoolChange:
    """A pool before and after."""

    servers: Change
    watts: Change
    price_per_hour: Change
    grams_per_hour: Change


@dataclass(frozen=True, slots=True)
class Difference:
    """All that changes. `reloads` stay where they are with new content or configuration. Shortfall only where it changes."""

    loads: tuple[Replica, ...]
    unloads: tuple[Replica, ...]
    reloads: tuple[Replica, ...]
    pools: dict[str, PoolChange]
    watts: Change
    price_per_hour: Change
    grams_per_hour: Change
    unserved: dict[ModelKey, Change]
    missing_replicas: dict[ModelKey, Change]


def difference(old_fleet: Fleet, old: Plan, new_fleet: Fleet, new: Plan) -> Difference:
    """From the old plan of the old fleet to the new plan of the new one."""
    before, after = _revisions(old_fleet, old), _revisions(new_fleet, new)
    old_pools = {row.name: row for row in pool_rows(old_fleet, old)}
    new_pools = {row.name: row for row in pool_rows(new_fleet, new)}
    return Difference(
        loads=_ordered(after.keys() - before.keys()),
        unloads=_ordered(before.keys() - after.keys()),
        reloads=_ordered(replica for replica in after.keys() & before.keys() if after[replica] != before[replica]),
        pools={
            name: _pool_change(old_pools.get(name), new_pools.get(name)) for name in sorted(old_pools.keys() | new_pools.keys())
        },
        watts=Change(old.watts, new.watts),
        price_per_hour=Change(old.price_per_hour, new.price_per_hour),
        grams_per_hour=Change(old.grams_per_hour, new.grams_per_hour),
        unserved=_changed(old.unserved, new.unserved),
        missing_replicas=_changed(old.missing_replicas, new.missing_replicas),
    )


def _ordered(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    return tuple(sorted(replicas, key=lambda replica: (replica.model, replica.server, replica.variant)))


def _revisions(fleet: Fleet, plan: Plan) -> dict[Replica, str]:
    revisions = {(model.key, variant.name): variant.load_revision for model in fleet.models for variant in model.variants}
    return {
        replica: revisions.get((replica.model, replica.variant), "")
        for replicas in plan.placements.values()
        for replica in replicas
    }


def _pool_change(old: PoolRow | None, new: PoolRow | None) -> PoolChange:
    def change(figure: Callable[[PoolRow], float]) -> Change:
        return Change(figure(old) if old else 0.0, figure(new) if new else 0.0)

    return PoolChange(
        servers=change(lambda row: row.servers),
        watts=change(lambda row: row.watts),
        price_per_hour=change(lambda row: row.price_per_hour),
        grams_per_hour=change(lambda row: row.grams_per_hour),
    )


def _changed(old: Mapping[ModelKey, float], new: Mapping[ModelKey, float]) -> dict[ModelKey, Change]:
    both = {key: Change(old.get(key, 0), new.get(key, 0)) for key in sorted(old.keys() | new.keys())}
    return {key: change for key, change in both.items() if change.before != change.after}


def difference_to_json(difference: Difference) -> dict[str, Any]:
    """The key `diff` of `ergon plan --diff … -o json`."""
    return {
        "loads": [_replica(replica) for replica in difference.loads],
        "unloads": [_replica(replica) for replica in difference.unloads],
        "reloads": [_replica(replica) for replica in difference.reloads],
        "pools": {
            name: {
                "servers": _pair(change.servers),
                "watts": _pair(change.watts),
                "pricePerHour": _pair(change.price_per_hour),
                "gramsPerHour": _pair(change.grams_per_hour),
            }
            for name, change in difference.pools.items()
        },
        "watts": _pair(difference.watts),
        "pricePerHour": _pair(difference.price_per_hour),
        "gramsPerHour": _pair(difference.grams_per_hour),
        "unserved": {str(key): _pair(change) for key, change in difference.unserved.items()},
        "missingReplicas": {str(key): _pair(change) for key, change in difference.missing_replicas.items()},
    }


def _replica(replica: Replica) -> dict[str, Any]:
    return {
        "model": str(replica.model),
        "variant": replica.variant,
        "pool": replica.server.pool,
        "server": replica.server.ordinal,
    }


def _pair(change: Change) -> dict[str, float]:
    return {"before": change.before, "after": change.after}
