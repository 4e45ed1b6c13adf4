"""What is wrong with a plan, by the planning contract alone: one line a fault, none for a valid plan."""

import math
from collections import Counter
from collections.abc import Iterator

from ergon.fleet.types import Fleet, Model, ModelKey, Replica
from ergon.planning import Load, Plan
from tests.planning import law
from tests.planning.law import Law, Use

EXACT = 1e-9
"""How far figures may be apart, relative: no more than the order of additions explains."""


def violations(fleet: Fleet, plan: Plan) -> list[str]:
    """Every way in which the plan is not one for the fleet: constraints, figures, explanations, the bound."""
    known = Law(fleet)
    return [*_unknown(known, plan), *broken_constraints(fleet, plan, known), *_explanations(known, plan), *_bound(plan)]


def broken_constraints(fleet: Fleet, plan: Plan, known: Law | None = None) -> list[str]:
    """Constraints 1 to 7, loads and figures, for plans that need explain nothing."""
    known = known or Law(fleet)
    uses = _uses(known, plan)
    return [
        *_replicas(known, plan, uses),
        *_servers(known, plan, uses),
        *_counts(known, plan),
        *_demand(known, plan),
        *_limits(known, plan, uses),
        *_figures(known, plan, uses),
    ]


def same(a: float, b: float, relative: float = EXACT) -> bool:
    """Whether two figures are one, up to rounding."""
    return math.isclose(a, b, rel_tol=relative, abs_tol=1e-12)


def tiers(fleet: Fleet, plan: Plan, known: Law | None = None) -> list[tuple[int, int, float]]:
    """The shortfall, from the highest priority: priority, replicas missing, work per second unserved."""
    known = known or Law(fleet)
    found: dict[int, tuple[int, float]] = {}
    for model in fleet.models:
        missing, unserved = found.get(known.priority(model.key), (0, 0.0))
        least, _ = law.least_and_most(model)
        served = math.fsum(plan.loads[replica].work_per_second for replica in plan.placements.get(model.key, ()))
        demand = law.demand_of(fleet, model.key)
        found[known.priority(model.key)] = (
            missing + max(0, least - len(plan.placements.get(model.key, ()))),
            unserved + (demand - served if demand - served > EXACT * demand else 0.0),
        )
    return [(priority, *found[priority]) for priority in sorted(found, reverse=True)]


def recomputed_watts(fleet: Fleet, plan: Plan, known: Law | None = None) -> dict[str, float]:
    """Watts by pool, by the formula of the contract."""
    known = known or Law(fleet)
    return _pool_watts(known, plan, _uses(known, plan))


def _all(plan: Plan) -> Iterator[tuple[ModelKey, Replica]]:
    return ((key, replica) for key, replicas in plan.placements.items() for replica in replicas)


def _uses(known: Law, plan: Plan) -> dict[Replica, Use]:
    """The use of every placed replica that may stand where it stands; of points that tie, the one its load names."""
    found: dict[Replica, Use] = {}
    for key, replica in _all(plan):
        uses = known.uses(key, replica.variant, replica.server.pool)
        load = plan.loads.get(replica)
        if uses:
            named = [u for u in uses if load is not None and (u.batch, u.memory_bytes) == (load.batch, load.memory_bytes)]
            found[replica] = (named or list(uses))[0]
    return found


def _unknown(known: Law, plan: Plan) -> Iterator[str]:
    for name, keys in (
        ("placements", plan.placements),
        ("unserved", plan.unserved),
        ("missing_replicas", plan.missing_replicas),
        ("alternatives", plan.alternatives),
    ):
        for key in set(keys) - set(known.models):
            yield f"{name} names {key}, which the fleet does not have"
    for budget in set(plan.over_limit_watts) - {limit.name for limit in known.fleet.watt_limits}:
        yield f"over_limit_watts names {budget}, which is no limit"
    if set(plan.servers) != set(known.pools):
        yield f"servers are said of {sorted(plan.servers)}, the pools are {sorted(known.pools)}"


def _replicas(known: Law, plan: Plan, uses: dict[Replica, Use]) -> Iterator[str]:
    """Each replica alone: where it stands, what it says of itself."""
    fleet = known.fleet
    placed = [replica for _, replica in _all(plan)]
    for replica, times in Counter((r.model, r.server) for r in placed).items():
        if times > 1:
            yield f"3: {replica[0]} has {times} replicas on {replica[1]}"
    for replica in set(plan.loads) - set(placed):
        yield f"a load is said of {replica}, which is not placed"
    for key, replica in _all(plan):
        if key != replica.model:
            yield f"placements of {key} hold {replica}"
        if replica not in uses:
            reason = known.judged.get((key, replica.variant, replica.server.pool), "unknown variant or pool")
            yield f"{replica} is no candidate: {reason}"
            continue
        variant = known.models[key].variant(replica.variant)
        if variant is not None and (key, variant.load_revision, replica.server) in fleet.refused:
            yield f"{replica} is refused there"
        pool = known.pools[replica.server.pool]
        if not 0 <= replica.server.ordinal < plan.servers.get(pool.name, 0):
            yield f"6: {replica} stands beyond the pool's {plan.servers.get(pool.name)} servers"
        if replica.server.ordinal in pool.unavailable:
            yield f"6: {replica} stands on a server that cannot be had"
        if replica not in plan.loads:
            yield f"{replica} has no load"
        else:
            yield from _load(replica, plan.loads[replica], uses[replica])


def _load(replica: Replica, load: Load, use: Use) -> Iterator[str]:
    if not (0 <= load.work_per_second < math.inf and 0 <= load.busy_share < math.inf):
        yield f"{replica} serves {load.work_per_second} at busy share {load.busy_share}"
    if load.memory_bytes != use.memory_bytes or load.batch != use.batch:
        yield (
            f"{replica} says {load.memory_bytes} bytes at batch {load.batch}, the point says {use.memory_bytes} at {use.batch}"
        )
    if use.work_per_second is None:
        if load.work_per_second != 0 or load.busy_share != 0 or load.provenance != "assumed":
            yield f"{replica} is counted on ({load.provenance}), though no operating point says what it delivers"
    else:
        if not same(load.busy_share, load.work_per_second / use.work_per_second):
            yield f"{replica}: busy share {load.busy_share} is not {load.work_per_second} / {use.work_per_second}"
        if load.provenance != "profile":
            yield f"{replica} comes from a profile, not {load.provenance}"


def _servers(known: Law, plan: Plan, uses: dict[Replica, Use]) -> Iterator[str]:
    """Each server: busy shares, memory, places; and how many there are."""
    on: dict[tuple[str, int], list[Replica]] = {}
    for replica in uses:
        on.setdefault(replica.server, []).append(replica)
    for (name, ordinal), replicas in on.items():
        pool = known.pools[name]
        busy = math.fsum(plan.loads[r].busy_share for r in replicas if r in plan.loads)
        rho = min((uses[r].rho for r in replicas if r in plan.loads and plan.loads[r].work_per_second > 0), default=math.inf)
        if busy > rho * (1 + EXACT):
            yield f"1: {name}-{ordinal} is busy {busy}, allowed is {rho}"
        if (memory := sum(uses[r].memory_bytes for r in replicas)) > pool.memory_bytes:
            yield f"2: {name}-{ordinal} holds {memory} bytes of {pool.memory_bytes}"
        if pool.max_models is not None and len(replicas) > pool.max_models:
            yield f"2: {name}-{ordinal} holds {len(replicas)} replicas of {pool.max_models}"
    for name, servers in plan.servers.items():
        pool = known.pools[name]
        if not (0 if pool.deleting else pool.servers_min) <= servers <= pool.servers_max:
            yield f"6: {name} has {servers} servers, allowed are {pool.servers_min} to {pool.servers_max}"


def _counts(known: Law, plan: Plan) -> Iterator[str]:
    for key, model in known.models.items():
        placed = len(plan.placements.get(key, ()))
        least, most = law.least_and_most(model)
        if placed > most:
            yield f"4: {key} has {placed} replicas, {most} at most"
        allowed = {max(0, least - placed), int(max(0, min(least, most) - placed))}
        if least == 0 and model.fixed_replicas is None:
            allowed.add(max(0, 1 - placed))
        if plan.missing_replicas.get(key, 0) not in allowed:
            yield f"4: {key} has {placed} of {least} replicas, {plan.missing_replicas.get(key, 0)} are said to be missing"


def _demand(known: Law, plan: Plan) -> Iterator[str]:
    for key in known.models:
        demand = law.demand_of(known.fleet, key)
        unserved = plan.unserved.get(key, 0.0)
        if math.isnan(unserved) or unserved < 0:
            yield f"5: {key}: {unserved} unserved"
        if not math.isfinite(demand):
            continue
        served = math.fsum(plan.loads[r].work_per_second for r in plan.placements.get(key, ()) if r in plan.loads)
        if not same(served + unserved, demand):
            yield f"5: {key}: {served} served and {unserved} unserved of {demand}"
        if 0 < unserved <= EXACT * demand:
            yield f"5: {key}: {unserved} unserved of {demand} is rounding, not shortfall"


def _pool_watts(known: Law, plan: Plan, uses: dict[Replica, Use]) -> dict[str, float]:
    serving: dict[str, list[tuple[int, Use, float]]] = {name: [] for name in known.pools}
    for replica, use in uses.items():
        load = plan.loads.get(replica)
        if load is not None and load.work_per_second > 0:
            serving[replica.server.pool].append((replica.server.ordinal, use, load.busy_share))
    return {name: law.pool_watts(known.pools[name], plan.servers.get(name, 0), serving[name]) for name in known.pools}


def _limits(known: Law, plan: Plan, uses: dict[Replica, Use]) -> Iterator[str]:
    fleet = known.fleet
    watts = _pool_watts(known, plan, uses)
    for limit in fleet.watt_limits:
        pools, models = law.pools_in(limit, fleet), law.models_in(limit, fleet)
        over = plan.over_limit_watts.get(limit.name, 0.0)
        if models is None:
            drawn = math.fsum(watts[name] for name in pools)
        else:
            drawn = math.fsum(
                known.pools[r.server.pool].pue * plan.loads[r].busy_share * (use.watts - use.awake_watts)
                for r, use in uses.items()
                if r in plan.loads and r.model in models and r.server.pool in pools
            )
        hopeless = law.hopeless_watts(limit, fleet)
        if hopeless > 1e-9 * limit.watts:
            if not same(over, hopeless, 1e-6):
                yield f"7: {limit.name} cannot be held by {hopeless} W, {over} W is said"
            if placed := [r for r in uses if r.server.pool in pools]:
                yield f"7: {limit.name} cannot be held and {len(placed)} replicas stand in its scope, such as {placed[0]}"
            for name in pools:
                least = 0 if known.pools[name].deleting else known.pools[name].servers_min
                if plan.servers.get(name, 0) > least:
                    yield f"7: {limit.name} cannot be held and {name} has more than its least servers"
        else:
            if over != 0:
                yield f"7: {limit.name} can be held, {over} W is said to be over it"
            if drawn > law.LIMIT_SHARE * limit.watts * (1 + EXACT) + 1e-9:
                yield f"7: {limit.name} allows {law.LIMIT_SHARE * limit.watts} W, {drawn} W is drawn"


def _figures(known: Law, plan: Plan, uses: dict[Replica, Use]) -> Iterator[str]:
    watts = _pool_watts(known, plan, uses)
    price = math.fsum(
        pool.price_per_server_hour * law.running(pool, plan.servers.get(name, 0)) for name, pool in known.pools.items()
    )
    grams = math.fsum(watts[name] / 1000 * pool.grams_per_kilowatt_hour for name, pool in known.pools.items())
    for figure, said, right in (
        ("watts", plan.watts, math.fsum(watts.values())),
        ("price_per_hour", plan.price_per_hour, price),
        ("grams_per_hour", plan.grams_per_hour, grams),
    ):
        if not same(said, right):
            yield f"{figure} is said to be {said}, it is {right}"


def _bound(plan: Plan) -> Iterator[str]:
    if not 0 <= plan.lower_bound_watts <= plan.watts * (1 + EXACT) + 1e-12:
        yield f"the lower bound {plan.lower_bound_watts} W is above the plan's {plan.watts} W"


def _explanations(known: Law, plan: Plan) -> Iterator[str]:
    for key, model in known.models.items():
        said = Counter((a.variant, a.pool) for a in plan.alternatives.get(key, ()))
        wanted = {(variant.name, pool) for variant in model.variants for pool in known.pools}
        if said != Counter(wanted):
            wrong = [place for place in wanted | set(said) if said[place] != (place in wanted)]
            yield f"{key}: {len(wrong)} of {len(wanted)} (variant, pool) are not explained just once, such as {wrong[0]}"
        yield from _verdicts(known, plan, model)


def _verdicts(known: Law, plan: Plan, model: Model) -> Iterator[str]:
    chosen = {(replica.variant, replica.server.pool) for replica in plan.placements.get(model.key, ())}
    for told in plan.alternatives.get(model.key, ()):
        variant = model.variant(told.variant)
        verdict = known.judged.get((model.key, told.variant, told.pool))
        where = f"{model.key} {told.variant} on {told.pool}"
        if variant is None or verdict is None:
            continue
        if (told.verdict == "Chosen") != ((told.variant, told.pool) in chosen):
            yield f"{where}: said to be {told.verdict}, but placed there is {sorted(chosen)}"
        if not told.message or "\n" in told.message:
            yield f"{where}: the message is not one line: {told.message!r}"
        if law.broken(variant):
            continue
        if isinstance(verdict, str):
            if (told.verdict, str(told.reason)) != ("Rejected", verdict):
                yield f"{where}: {told.verdict} for {told.reason}, it is Rejected for {verdict}"
        elif told.verdict == "Rejected" and str(told.reason) not in ("NoRoom", "FailedThere", "WattLimit"):
            yield f"{where}: Rejected for {told.reason}, though it is a candidate"
