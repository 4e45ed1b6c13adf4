"""A plan as JSON, and the current plan back from it (planning.md, Files and output). Pure."""

from typing import Any

from ergon.fleet.demand import model_key
from ergon.fleet.types import Fleet, Replica, ServerKey
from ergon.planning import Plan

Json = dict[str, Any]


def plan_to_json(fleet: Fleet, plan: Plan, seconds: float) -> Json:
    """The output of `ergon plan -o json`; `seconds` is what the planning took."""
    return {
        "placements": [
            _placement(plan, replica) for key in sorted(plan.placements) for replica in sorted(plan.placements[key], key=_place)
        ],
        "servers": dict(sorted(plan.servers.items())),
        "unserved": {str(model.key): plan.unserved.get(model.key, 0.0) for model in sorted(fleet.models, key=lambda m: m.key)},
        "missingReplicas": {str(key): count for key, count in sorted(plan.missing_replicas.items())},
        "overLimitWatts": dict(sorted(plan.over_limit_watts.items())),
        "watts": plan.watts,
        "pricePerHour": plan.price_per_hour,
        "gramsPerHour": plan.grams_per_hour,
        "lowerBoundWatts": plan.lower_bound_watts,
        "gap": plan.gap,
        "seconds": round(seconds, 4),
        "models": {
            str(key): {
                "alternatives": [
                    {
                        "pool": alternative.pool,
                        "variant": alternative.variant,
                        "verdict": alternative.verdict,
                        "reason": str(alternative.reason),
                        "message": alternative.message,
                    }
                    for alternative in alternatives
                ]
            }
            for key, alternatives in sorted(plan.alternatives.items())
        },
    }


def _place(replica: Replica) -> tuple[ServerKey, str]:
    return replica.server, replica.variant


def _placement(plan: Plan, replica: Replica) -> Json:
    load = plan.loads.get(replica)
    return {
        "model": str(replica.model),
        "variant": replica.variant,
        "pool": replica.server.pool,
        "server": replica.server.ordinal,
        "requestsPerSecond": load.work_per_second if load else 0.0,
        "busyShare": load.busy_share if load else 0.0,
        "memoryBytes": load.memory_bytes if load else 0,
        "batch": load.batch if load else 0,
        "provenance": load.provenance if load else "assumed",
    }


def current_from_json(content: Any) -> tuple[Replica, ...]:
    """The replicas of a plan that this command wrote. Raises ValueError, naming the field, where it is none."""
    placements = content.get("placements") if isinstance(content, dict) else None
    if not isinstance(placements, list):
        raise ValueError("placements: must be a list; give the output of `ergon plan -o json`")
    return tuple(dict.fromkeys(_replica(item, number) for number, item in enumerate(placements)))


def _replica(item: Any, number: int) -> Replica:
    match item:
        case {"model": str(name), "variant": str(variant), "pool": str(pool), "server": int(server)} if server >= 0:
            key = model_key(name)
            if key is not None and not isinstance(server, bool):
                return Replica(key, variant, ServerKey(pool, server))
    raise ValueError(f"placements[{number}]: needs model (namespace/name), variant, pool and server (its ordinal)")
