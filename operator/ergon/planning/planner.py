"""The story of a plan: from a snapshot to which replica stands on which server, with a bound and the reasons.

judge all candidates -> optimum over whole pools -> pack on servers -> improve -> keep what is not worth moving -> explain
"""

from dataclasses import replace

from ergon.fleet.types import Fleet, ModelKey, Replica, ServerKey
from ergon.planning.bound import lower_bound_watts
from ergon.planning.effort import Effort, Weights
from ergon.planning.explain import Alternatives
from ergon.planning.ground import Ground
from ergon.planning.limits import Limit, build_limits
from ergon.planning.plan import Load, Plan
from ergon.planning.power import Figures, figures, replica_watts
from ergon.planning.problem import Problem, build_problem
from ergon.planning.search import Found, search
from ergon.planning.servers import Servers, lacking_work


def plan(fleet: Fleet, *, weights: Weights | None = None, effort: Effort | None = None, before: Plan | None = None) -> Plan:
    """A plan for the fleet. Never fails: what cannot be placed or served is said in the plan, with reasons in `alternatives`.

    `before`: the last plan. What it knows of all that is the same is not worked out again, and where only mending is asked for
    its shares are kept; the same fleet and the same plan before give the same plan.
    """
    weights, effort = weights or Weights(), effort or Effort.normal()
    made = _plan(fleet, weights, effort, before)
    stay = {key for key, _, _ in fleet.avoided if key in made.missing_replicas or made.unserved.get(key, 0.0) > 0}
    if not stay:
        return made
    # Nowhere else is room: it is tried again, now and then, where it keeps failing.
    return _plan(replace(fleet, avoided=frozenset(one for one in fleet.avoided if one[0] not in stay)), weights, effort, before)


def _plan(fleet: Fleet, weights: Weights, effort: Effort, before: Plan | None) -> Plan:
    ground = before.ground if before is not None and before.ground and before.ground.problem.weights == weights else None
    problem = build_problem(fleet, weights, ground.problem if ground is not None else None)
    limits = build_limits(fleet, problem)
    found = search(problem, limits, effort, before if ground is not None else None)
    counted = figures(found.servers)
    bound, prices = lower_bound_watts(problem, limits, effort, found.servers, counted, found.level, found.proof, ground)
    return _written(problem, limits, found, counted, bound, Ground(problem, prices))


def _written(problem: Problem, limits: tuple[Limit, ...], found: Found, counted: Figures, bound: float, ground: Ground) -> Plan:
    """The plan as its readers know it."""
    servers = found.servers
    placements, loads = _placements(problem, servers)
    unserved, missing = {}, {}
    for m, model in enumerate(problem.models):
        work = lacking_work(servers, m) + float(problem.excess[m])
        if work > 0:
            unserved[model.key] = work
        replicas = servers.table.lowest[m] - len(servers.homes[m])
        if replicas > 0:
            missing[model.key] = replicas
    return Plan(
        placements=placements,
        servers={pool.name: count for pool, count in zip(problem.pools, counted.servers, strict=True)},
        missing_replicas=missing,
        alternatives=Alternatives(servers, limits),
        loads=loads,
        unserved=unserved,
        over_limit_watts={limit.name: limit.over_watts for limit in limits if limit.hopeless},
        pool_watts={pool.name: watts for pool, watts in zip(problem.pools, counted.pool_watts, strict=True)},
        watts=counted.watts,
        price_per_hour=counted.price_per_hour,
        grams_per_hour=counted.grams_per_hour,
        lower_bound_watts=bound,
        notes=(*problem.notes, *found.notes),
        ground=ground,
    )


def _placements(problem: Problem, servers: Servers) -> tuple[dict[ModelKey, tuple[Replica, ...]], dict[Replica, Load]]:
    c, table = problem.candidates, servers.table
    variant_of, point_of = c.variant.tolist(), c.point.tolist()
    placements: dict[ModelKey, tuple[Replica, ...]] = {}
    loads: dict[Replica, Load] = {}
    for m, model in enumerate(problem.models):
        mine = []
        for s, number in sorted(servers.homes[m].items()):
            variant = problem.variants[variant_of[number]]
            replica = Replica(model.key, variant.name, ServerKey(problem.pools[servers.pool_of[s]].name, servers.ordinal(s)))
            mine.append(replica)
            point, mu = point_of[number], table.mu[number]
            work = servers.share[m][s] * mu
            loads[replica] = Load(
                work_per_second=work,
                busy_share=work / mu if mu > 0 else 0.0,
                memory_bytes=int(table.memory[number]),
                batch=variant.points[point].batch if point >= 0 else 0,
                provenance="profile" if point >= 0 else "assumed",
                watts=replica_watts(servers, m, s),
                most_per_second=mu * table.rho[number],
            )
        placements[model.key] = tuple(mine)
    return placements, loads
