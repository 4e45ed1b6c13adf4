"""The fleet as arrays: what may stand where, at what cost. Made once a plan; everything after it reads only this.

Models and pools are in the order of their names, so that the order of the snapshot's parts means nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica, ServerKey, Variant
from ergon.planning.arrays import Bools, Floats, Ints
from ergon.planning.candidates import ORDER
from ergon.planning.effort import Weights
from ergon.planning.judged import Judged, judged_again
from ergon.planning.peaks import busy_up_to_peaks
from ergon.planning.priorities import capped

HUNG_ENOUGH = 2
"""Servers on which a revision's load may hang: each hang costs one of Triton's load threads, and a third would tell no more."""

_LEAST_PART = 1e-9
"""Of a server: demand that keeps it busy for less is beyond what solvers tell from nothing, and is left unserved."""

MANY = 2**31
"""Stands for no limit on a count."""


@dataclass(frozen=True, slots=True)
class Pools:
    """What planning reads of the pools, one entry a pool.

    `ordinals`: of each pool the ordinals that can be had. `least`, `most`: how many of those are on at least and at most.
    `server_cost`, `node_cost`: J of one server or node that is on (0 where it is on anyway); `watt_cost`: J of a watt at the
    accelerators, power usage effectiveness counted.
    """

    ordinals: tuple[tuple[int, ...], ...]
    least: Ints
    most: Ints
    memory_bytes: Floats
    slots: Ints
    per_node: Ints
    server_watts: Floats
    node_watts: Floats
    server_cost: Floats
    node_cost: Floats
    watt_cost: Floats
    pue: Floats


@dataclass(frozen=True, slots=True)
class Candidates:
    """(model, variant, pool) that may hold replicas, in the order of models, variants and pools.

    `mu`: work per second of a whole server, 0 where unknown. `rho`: busy share limit. `cost`: J of a unit of busy share.
    `awake_cost`: J of the server being awake for it. `useful`: no other of the same model and pool is better in everything,
    and the model is not kept to another kind of accelerator.
    `standing_only`: not to be loaded anywhere anew. `memory_bytes`: the larger of what is declared (`declared_bytes`) and what
    was measured.
    """

    model: Ints
    variant: Ints
    pool: Ints
    point: Ints
    mu: Floats
    rho: Floats
    slope_watts: Floats
    awake_watts: Floats
    memory_bytes: Floats
    declared_bytes: Floats
    cost: Floats
    awake_cost: Floats
    useful: Bools
    standing_only: Bools


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A fleet, ready to be planned.

    `demand` is what could be served at all were the model alone; `excess` the rest. `lowest`, `highest`: replicas; `need`: of
    the lowest those for which there could be servers at all.
    `tier`: 0 for the highest priority. `first`: candidates of model m are first[m] to first[m + 1] - 1. `refused`: by candidate
    the ordinals that must not be used. `standing`: (candidate, ordinal) of the current replicas that may stay, which are
    `standing_replicas` in the same order. `leaving`: the same of those that only take room until they are gone.
    """

    fleet: Fleet
    weights: Weights
    models: tuple[Model, ...]
    pools: tuple[Pool, ...]
    judged: Judged
    on: Pools
    candidates: Candidates
    first: Ints
    demand: Floats
    excess: Floats
    lowest: Ints
    highest: Ints
    need: Ints
    tier: Ints
    refused: dict[int, frozenset[int]]
    standing: tuple[tuple[int, int], ...]
    standing_replicas: tuple[Replica, ...]
    leaving: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All variants, in the order of models and names."""
        return self.judged.variants

    @property
    def model_of_variant(self) -> Ints:
        """By variant."""
        return self.judged.model_of

    @property
    def reason(self) -> Ints:
        """By variant and pool, as `judge_all` says."""
        return self.judged.reason


def build_problem(fleet: Fleet, weights: Weights, before: Problem | None = None) -> Problem:
    """Judge all candidates, choose their operating points and put everything into arrays.

    What an earlier problem says of models and pools that are the same is taken from it.
    """
    models = tuple(sorted(fleet.models, key=lambda model: model.key))
    pools = tuple(sorted(fleet.pools, key=lambda pool: pool.name))
    judged = judged_again(fleet, models, pools, (before.fleet, before.models, before.pools, before.judged) if before else None)
    variants, model_of, best, reason = judged.variants, judged.model_of, judged.best, judged.reason

    on = _pools(pools, weights)
    v, p = np.nonzero(reason == len(ORDER))
    standing_only, gone, refused = _refusals(fleet, variants, model_of, models, pools, v, p)
    v, p, standing_only = v[~gone], p[~gone], standing_only[~gone]
    if refused:
        refused = {int(new): refused[int(old)] for new, old in enumerate(np.flatnonzero(~gone)) if int(old) in refused}
    cost = on.watt_cost[p] * best.slope_watts[v, p]
    awake_cost = on.watt_cost[p] * best.awake_watts[v, p]
    rho = busy_up_to_peaks(fleet, models, variants, pools, model_of[v], v, p, best.index[v, p], best.rho[v, p])
    candidates = Candidates(
        model=model_of[v],
        variant=v,
        pool=p,
        point=best.index[v, p],
        mu=best.mu[v, p],
        rho=rho,
        slope_watts=best.slope_watts[v, p],
        awake_watts=best.awake_watts[v, p],
        memory_bytes=_larger_of_measured(fleet, models, pools, variants, model_of, v, p, best.memory_bytes[v, p]),
        declared_bytes=best.memory_bytes[v, p],
        cost=cost,
        awake_cost=awake_cost,
        useful=np.ones(len(v), np.bool_),
        standing_only=standing_only,
    )
    _drop_dominated(candidates, refused)
    _keep_to_kinds(fleet, models, pools, candidates)
    first = np.searchsorted(candidates.model, np.arange(len(models) + 1))
    lowest, highest = _replica_bounds(models)
    demand, excess, notes = _demand(fleet, models, candidates, on, highest)
    standing = _standing(fleet, pools, judged.number, candidates, on, refused)
    leaving = _standing(replace(fleet, current=fleet.leaving), pools, judged.number, candidates, on, {}) if fleet.leaving else {}
    return Problem(
        fleet=fleet,
        weights=weights,
        models=models,
        pools=pools,
        judged=judged,
        on=on,
        candidates=candidates,
        first=first,
        demand=demand,
        excess=excess,
        lowest=lowest,
        highest=highest,
        need=np.minimum(np.minimum(lowest, highest), _servers_that_could_hold(candidates, on, len(models))),
        tier=_tiers(models, pools, candidates),
        refused=refused,
        standing=tuple(standing.values()),
        standing_replicas=tuple(standing),
        leaving=tuple(leaving.values()),
        notes=notes,
    )


def _pools(pools: tuple[Pool, ...], weights: Weights) -> Pools:
    ordinals = tuple(
        () if pool.deleting else tuple(n for n in range(pool.servers_max) if n not in pool.unavailable) for pool in pools
    )
    scale_in = np.array([pool.scale_in for pool in pools], np.bool_)
    pue = np.array([pool.pue for pool in pools], float)
    per_watt = np.array([weights.energy + weights.grams * pool.grams_per_kilowatt_hour / 1000 for pool in pools])
    idle = np.where(scale_in, [pool.idle_watts for pool in pools], 0.0) * pue
    host = np.where(scale_in, [pool.host_watts for pool in pools], 0.0) * pue
    return Pools(
        ordinals=ordinals,
        least=np.array([sum(n < pool.servers_min for n in mine) for pool, mine in zip(pools, ordinals, strict=True)], np.int64),
        most=np.array([len(mine) for mine in ordinals], np.int64),
        memory_bytes=np.array([float(pool.memory_bytes) for pool in pools]),
        slots=np.array([MANY if pool.max_models is None else pool.max_models for pool in pools], np.int64),
        per_node=np.array([pool.servers_per_node for pool in pools], np.int64),
        server_watts=idle,
        node_watts=host,
        server_cost=idle * per_watt + weights.price * np.array([pool.price_per_server_hour for pool in pools], float),
        node_cost=host * per_watt,
        watt_cost=pue * per_watt,
        pue=pue,
    )


def _larger_of_measured(
    fleet: Fleet,
    models: tuple[Model, ...],
    pools: tuple[Pool, ...],
    variants: tuple[Variant, ...],
    model_of: Ints,
    v: Ints,
    p: Ints,
    declared: Floats,
) -> Floats:
    """By candidate, bytes that a server gives a replica: what is declared, or measured if that is more and the server has it."""
    weighed = {(key, name) for key, name, _ in fleet.measured}
    seen = [n for n, variant in enumerate(variants) if (models[model_of[n]].key, variant.name) in weighed] if weighed else []
    if not seen:
        return declared
    larger = declared.copy()
    for c in np.flatnonzero(np.isin(v, seen)).tolist():
        pool, key = pools[p[c]], models[model_of[v[c]]].key
        measured = fleet.measured.get((key, variants[v[c]].name, pool.weighed_as), 0)
        larger[c] = max(larger[c], min(measured, pool.memory_bytes))
    return larger


def _refusals(
    fleet: Fleet,
    variants: tuple[Variant, ...],
    model_of: Ints,
    models: tuple[Model, ...],
    pools: tuple[Pool, ...],
    v: Ints,
    p: Ints,
) -> tuple[Bools, Bools, dict[int, frozenset[int]]]:
    """What must not be loaded again: candidates that may only stay, those that are none any more, and single servers."""
    standing_only, gone = np.zeros(len(v), np.bool_), np.zeros(len(v), np.bool_)
    barred = fleet.barred
    if not barred:
        return standing_only, gone, {}
    hung: Counter[tuple[ModelKey, str]] = Counter((key, revision) for key, revision, _ in fleet.refused)
    by_pool: dict[tuple[ModelKey, str, str], set[int]] = {}
    variants_of: dict[ModelKey, list[Variant]] = defaultdict(list)
    for number, variant in enumerate(variants):
        variants_of[models[model_of[number]].key].append(variant)
    for key, revision, server in barred:
        by_pool.setdefault((key, revision, server.pool), set()).add(server.ordinal)
    stands = {
        (replica.model, replica.variant, replica.server.pool)
        for replica in fleet.current
        if not any(
            (replica.model, variant.load_revision, replica.server) in barred
            for variant in variants_of[replica.model]
            if variant.name == replica.variant
        )
    }
    refused: dict[int, frozenset[int]] = {}
    for number, (variant_number, pool_number) in enumerate(zip(v.tolist(), p.tolist(), strict=True)):
        key, variant, pool = models[model_of[variant_number]].key, variants[variant_number], pools[pool_number]
        if hung[key, variant.load_revision] >= HUNG_ENOUGH:
            standing_only[number] = True
            gone[number] = (key, variant.name, pool.name) not in stands
        ordinals = by_pool.get((key, variant.load_revision, pool.name))
        if ordinals is not None:
            refused[number] = frozenset(ordinals)
    return standing_only, gone, refused


def _keep_to_kinds(fleet: Fleet, models: tuple[Model, ...], pools: tuple[Pool, ...], candidates: Candidates) -> None:
    """Clear `useful` where a model is to be on another kind of accelerator."""
    if not fleet.kept_to:
        return
    kinds = {kind: number for number, kind in enumerate(sorted({pool.kind for pool in pools}))}
    wanted = np.array([kinds.get(fleet.kept_to.get(model.key, ""), -1) for model in models], np.int64)[candidates.model]
    there = np.array([kinds[pool.kind] for pool in pools], np.int64)[candidates.pool]
    candidates.useful[(wanted >= 0) & (wanted != there)] = False


def _drop_dominated(candidates: Candidates, refused: dict[int, frozenset[int]]) -> None:
    """Clear `useful` where another variant of the same model on the same pool is at least as good in everything."""
    order = np.lexsort((candidates.variant, candidates.pool, candidates.model))
    model, pool = candidates.model[order], candidates.pool[order]
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = np.where(candidates.mu > 0, candidates.cost / candidates.mu, np.inf)[order]
    worth = [energy, -candidates.mu[order], -candidates.rho[order], candidates.memory_bytes[order], candidates.awake_cost[order]]
    partly = candidates.standing_only.copy()
    partly[list(refused)] = True
    partly = partly[order]
    for distance in range(1, len(order)):
        same = (model[:-distance] == model[distance:]) & (pool[:-distance] == pool[distance:])
        if not same.any():
            return
        left = np.flatnonzero(same)
        right = left + distance
        for better, worse in ((left, right), (right, left)):
            beats = ~partly[better] & np.all([w[better] <= w[worse] for w in worth], axis=0) & candidates.useful[order[better]]
            candidates.useful[order[worse[beats]]] = False


def _replica_bounds(models: tuple[Model, ...]) -> tuple[Ints, Ints]:
    lowest = [m.min_replicas if m.fixed_replicas is None else m.fixed_replicas for m in models]
    limits = [m.max_replicas if m.fixed_replicas is None else m.fixed_replicas for m in models]
    highest = [MANY if limit is None else max(0, limit) for limit in limits]
    return np.maximum(np.array(lowest, np.int64), 0), np.array(highest, np.int64)


def _servers_that_could_hold(candidates: Candidates, on: Pools, models: int) -> Ints:
    """By model, over all pools where it has a candidate."""
    could = np.zeros((models, len(on.most)), np.int64)
    could[candidates.model, candidates.pool] = on.most[candidates.pool]
    total: Ints = could.sum(axis=1)
    return total


def _demand(
    fleet: Fleet, models: tuple[Model, ...], candidates: Candidates, on: Pools, highest: Ints
) -> tuple[Floats, Floats, tuple[str, ...]]:
    asked = np.array([float(fleet.demand.get(model.key, 0.0)) for model in models])
    bad = ~np.isfinite(asked) | (asked < 0)
    notes = tuple(
        f"demand of {models[m].key} is {asked[m]:g}: it is counted as 0, demand is a finite number of work per second from 0 up"
        for m in np.flatnonzero(bad)
    )
    asked[bad] = 0.0
    most = np.zeros((len(models), len(on.most)))
    np.maximum.at(most, (candidates.model, candidates.pool), candidates.mu * candidates.rho)
    alone = np.minimum((most * on.most).sum(axis=1), most.max(axis=1, initial=0) * np.minimum(highest, MANY))
    demand = np.minimum(asked, alone)
    demand[demand < _LEAST_PART * most.max(axis=1, initial=0)] = 0.0
    return demand, asked - demand, notes


def _tiers(models: tuple[Model, ...], pools: tuple[Pool, ...], candidates: Candidates) -> Ints:
    """The rank of each model's priority, which the pools it may be on cap; 0 is the highest."""
    max_priority = np.array([pool.max_priority for pool in pools], np.int64)[candidates.pool]
    priority = capped(np.array([model.priority for model in models], np.int64), candidates.model, max_priority)
    _, rank = np.unique(-priority, return_inverse=True)
    return rank.astype(np.int64)


def _standing(
    fleet: Fleet,
    pools: tuple[Pool, ...],
    numbers: Mapping[tuple[ModelKey, str], int],
    candidates: Candidates,
    on: Pools,
    refused: dict[int, frozenset[int]],
) -> dict[Replica, tuple[int, int]]:
    """The current replicas that may stay: candidate and ordinal of each. A model has one on a server at most."""
    if not fleet.current:
        return {}
    pool_of = {pool.name: p for p, pool in enumerate(pools)}
    number = np.full((len(numbers), len(pools)), -1, np.int64)
    number[candidates.variant, candidates.pool] = np.arange(len(candidates.variant))
    available = {pool.name: frozenset(mine) for pool, mine in zip(pools, on.ordinals, strict=True)}
    standing: dict[Replica, tuple[int, int]] = {}
    last: tuple[ModelKey, ServerKey] | None = None
    for replica in sorted(fleet.current, key=lambda r: (r.model, r.server, r.variant)):
        v, p = numbers.get((replica.model, replica.variant)), pool_of.get(replica.server.pool)
        c = int(number[v, p]) if v is not None and p is not None else -1
        if c < 0 or (replica.model, replica.server) == last or replica.server.ordinal not in available[replica.server.pool]:
            continue
        if replica.server.ordinal not in refused.get(c, ()):
            standing[replica] = (c, replica.server.ordinal)
            last = replica.model, replica.server
    return standing
