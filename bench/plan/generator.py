"""Fleets drawn by seed, from 8 models to 10,000, in styles that are hard in different ways.

Every fleet keeps the promises of `Promise`, which a test holds it to. Demand follows a Zipf law; how fast a model runs is set so
that the fleet's load (the least share of its servers that any fluid placement must keep busy) is what was asked for.
"""

import math
import random
from dataclasses import replace
from functools import lru_cache

from tests.planning import law
from tests.planning.law import Law, Use

from bench.plan.draws import Draft, draw_models, draw_pools
from bench.plan.fluid import Item, fluid
from bench.plan.places import best_place, full_watts
from bench.plan.shapes import Promise, Size, Style
from ergon.api.types import LabelSelector
from ergon.fleet.types import Fleet, Model, Pool, Variant, WattLimit


@lru_cache(maxsize=12)
def instance(size: Size, style: Style, seed: int, zipf: float) -> Fleet:
    """A fleet; the same for the same arguments."""
    chance = random.Random(f"{size} {style} {seed} {zipf}")
    size = size.of_style(style)
    fleet = _drawn(chance, size, style, zipf)
    for _ in range(30):
        if Promise.load[0] <= load_of(fleet) <= Promise.load[1]:
            break
        fleet = _drawn(chance, size, style, zipf)
    return _with_limits(fleet) if style is Style.TIGHT_WATTS else fleet


def _drawn(chance: random.Random, size: Size, style: Style, zipf: float) -> Fleet:
    pools = draw_pools(chance, size, style)
    drafts = draw_models(chance, size, style, pools, zipf)
    goal = chance.uniform(0.55, 0.62) if style is Style.TIGHT_WATTS else chance.uniform(0.55, 0.8)
    return _scaled(pools, drafts, goal, style)


def _scaled(pools: tuple[Pool, ...], drafts: list[Draft], goal: float, style: Style) -> Fleet:
    """The fleet with the Zipf part of its load such that the load is `goal`, and that of its memory where it is to be tight."""
    bests = [best_place(draft.model, pools) for draft in drafts]
    tight = style in (Style.TIGHT_MEMORY, Style.MANY_IDLE)
    busy_goal = min(goal, 0.6) if tight else goal
    scale, before = 0.3 * busy_goal * sum(pool.servers_max * pool.max_busy_share for pool in pools), (0.0, math.nan)
    for _ in range(8):
        fleet = _fleet(pools, drafts, bests, scale)
        load = load_of(fleet, memory=not tight)
        if abs(load - busy_goal) < 0.025:
            break
        slope = (load - before[1]) / (scale - before[0])
        before = scale, load
        wanted = (busy_goal - load) / slope if slope > 0 else scale * (busy_goal - load)
        scale = max(0.2 * scale, min(4 * scale, scale + wanted))
    return _with_memory(fleet, goal) if tight else fleet


def _with_memory(fleet: Fleet, goal: float) -> Fleet:
    """The fleet with models of such a size that memory is what is short."""
    for _ in range(4):
        factor = goal / load_of(fleet, busy=False)
        if abs(factor - 1) < 0.02:
            break
        fleet = replace(fleet, models=tuple(_resized(model, fleet.pools, factor) for model in fleet.models))
    return fleet


def _resized(model: Model, pools: tuple[Pool, ...], factor: float) -> Model:
    """The model with so many times the memory, as long as it still fits where it fits."""
    best = best_place(model, pools)
    most = max(1.0, 0.9 * best[1].memory_bytes / best[0].memory_bytes) if best else 1.0
    variants = (replace(v, memory_bytes=int(v.memory_bytes * min(factor, most))) for v in model.variants)
    return replace(model, variants=tuple(variants))


def _fleet(pools: tuple[Pool, ...], drafts: list[Draft], bests: list[tuple[Variant, Pool, Use] | None], scale: float) -> Fleet:
    models, demand = [], {}
    bound = 0
    for draft, best in zip(drafts, bests, strict=True):
        model, share = draft.model, draft.share if draft.forced else draft.share * scale
        if best is not None and best[2].work_per_second and draft.demand > 0:
            model = _at_speed(model, draft.demand / max(share, 1e-5) / best[2].work_per_second)
            demand[model.key] = draft.demand
            if share >= 0.2 and bound < math.ceil(0.16 * len(demand) + 1):
                bound += 1
                model = replace(model, max_replicas=max(model.min_replicas, math.ceil(share / best[2].rho)))
        models.append(model)
    return Fleet(pools, tuple(sorted(models, key=lambda model: model.key)), {}, "ergon-system", demand=demand)


def _at_speed(model: Model, factor: float) -> Model:
    """The model so many times as fast."""
    variants = tuple(
        replace(
            variant,
            points=tuple(
                replace(p, work_per_second=p.work_per_second * factor, latency_seconds=(p.latency_seconds or 0.0) / factor)
                for p in variant.points
            ),
        )
        for variant in model.variants
    )
    slo = None if model.slo_latency_seconds is None else model.slo_latency_seconds / factor
    return replace(model, variants=variants, slo_latency_seconds=slo)


def load_of(fleet: Fleet, *, busy: bool = True, memory: bool = True) -> float:
    """The least share of all servers, in busy share and memory, that a fluid placement keeps."""
    return fluid(*_items(fleet), busy=busy, memory=memory, least_energy=False).load


def _items(fleet: Fleet) -> tuple[list[Item], dict[str, float]]:
    """Models and servers for the fluid placement: by pool, or by product where pools are many."""
    known = Law(fleet)
    merged = len(fleet.models) > 2000
    groups = {pool.name: (pool.product or "") if merged else pool.name for pool in fleet.pools}
    items = []
    for model in fleet.models:
        demand = law.demand_of(fleet, model.key)
        choices: dict[str, tuple[float, float, float]] = {}
        for _, name, use in known.candidates[model.key]:
            pool = known.pools[name]
            busy = demand / use.work_per_second if use.work_per_second else math.inf
            replicas = max(float(model.min_replicas), busy / use.rho)
            watts = busy * full_watts(pool, use)
            if math.isfinite(busy) and watts < choices.get(groups[name], (0, 0, math.inf))[2]:
                choices[groups[name]] = (busy / use.rho, replicas * use.memory_bytes / pool.memory_bytes, watts)
        items.append(Item(choices))
    servers: dict[str, float] = {}
    for pool in fleet.pools:
        servers[groups[pool.name]] = servers.get(groups[pool.name], 0.0) + pool.servers_max
    return items, servers


def _with_limits(fleet: Fleet) -> Fleet:
    """Limits below what the fluid least-energy placement takes of its thirstiest product, and on all."""
    placed = fluid(*_items(fleet), least_energy=True)
    known = {pool.name: pool.product or "" for pool in fleet.pools}
    products: dict[str, float] = {}
    for name, watts in placed.watts.items():
        products[known.get(name, name)] = products.get(known.get(name, name), 0.0) + watts
    thirstiest = max(sorted(products), key=lambda product: products[product])
    sunk = sum(law.sunk_watts(pool) for pool in fleet.pools if pool.product == thirstiest)
    least = max(1.3 * sunk, 0.8 * products[thirstiest])
    most = 1.4 * max(sum(products.values()), sum(map(law.sunk_watts, fleet.pools)))
    return replace(
        fleet,
        watt_limits=(
            WattLimit("thirstiest", least / law.LIMIT_SHARE, pools=LabelSelector(match_labels={"product": thirstiest})),
            WattLimit("all", most / law.LIMIT_SHARE),
        ),
    )


def kept(fleet: Fleet) -> dict[str, float]:
    """How the fleet keeps its promises, the fields of `Promise`."""
    unsplittable = binds = tight = 0
    known = {model.key: best_place(replace(model, slo_latency_seconds=None), fleet.pools) for model in fleet.models}
    busy = [model for model in fleet.models if fleet.demand.get(model.key, 0.0) > 0]
    for model in busy:
        best, free = best_place(model, fleet.pools), known[model.key]
        if best is None or free is None:
            continue
        share = fleet.demand[model.key] / (best[2].work_per_second or math.inf)
        unsplittable += 0.35 < share < 0.7
        binds += share >= 0.2 and model.max_replicas == max(model.min_replicas, math.ceil(share / best[2].rho))
        judged = law.judge_points(model.slo_latency_seconds, free[0], free[1])
        tight += isinstance(judged, str) or judged[0].rho < free[1].max_busy_share or judged[0].batch != free[2].batch
    return {
        "load": load_of(fleet),
        "unsplittable": unsplittable / len(busy),
        "most_binds": binds / len(busy),
        "two_at_least": sum(model.min_replicas >= 2 for model in fleet.models) / len(fleet.models),
        "tight_latency": tight / len(busy),
    }
