"""Pools and models by chance; how fast the models run is left open."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.planning import law

from bench.plan.catalogue import GIB, GPUS, PRODUCTS, Product
from bench.plan.places import best_place
from bench.plan.shapes import Size, Style
from ergon.api.types import LabelSelector
from ergon.fleet.types import Model, ModelKey, OperatingPoint, Pool, Source, Variant

SITES = (("a", 1.1, 60.0), ("b", 1.25, 350.0), ("c", 1.5, 480.0))
EVERYTHING = LabelSelector()
FORCED = (0.37, 0.68)
"""Busy shares that do not go twice on a server: packing is about these."""


def draw_pools(chance: random.Random, size: Size, style: Style) -> tuple[Pool, ...]:
    products = _products(chance, size, style)
    sites = [SITES[number % len(SITES)] for number in range(size.pools)]
    servers = _servers(chance, size, products)
    return tuple(
        _pool(chance, f"{product.name.lower()}-{site[0]}-{number}", product, site, count, style)
        for number, (product, site, count) in enumerate(zip(products, sites, servers, strict=True))
    )


def _products(chance: random.Random, size: Size, style: Style) -> list[Product]:
    """One product a pool; the first pools differ, and generative models find a GPU among them."""
    if style is Style.ONE_CLASS:
        return [GPUS[number % len(GPUS)] for number in range(size.pools)]
    rest = [product for product in PRODUCTS if product.name not in ("H100", "Edge")]
    order = [PRODUCTS[0], *chance.sample(rest, len(rest)), PRODUCTS[-1]]
    return [order[number % len(order)] for number in range(size.pools)]


def _servers(chance: random.Random, size: Size, products: list[Product]) -> list[int]:
    """Servers by pool: whole boxes where there are enough of them, every pool one at least."""
    weights = [chance.uniform(0.6, 1.4) for _ in products]
    left, counts = size.servers, []
    for number, product in enumerate(products):
        wanted = size.servers * weights[number] / sum(weights)
        box = product.servers_per_node if wanted >= product.servers_per_node else 1
        most = left - (len(products) - number - 1)
        counts.append(max(1, min(most, round(wanted / box) * box)) if number < len(products) - 1 else left)
        left -= counts[-1]
    return counts


def _pool(chance: random.Random, name: str, product: Product, site: tuple[str, float, float], servers: int, style: Style) -> Pool:
    memory = product.memory_gib
    if style is Style.TIGHT_MEMORY:
        memory = {"H100": 48.0, "Edge": 8.0}.get(product.name, 16.0)
    return Pool(
        name=name,
        uid=name,
        generation=1,
        labels={"site": site[0], "product": product.name},
        accelerator_class=product.accelerator,
        product=product.name,
        memory_bytes=int(memory * GIB),
        max_models=product.max_models if style not in (Style.MANY_IDLE, Style.TIGHT_MEMORY) else None,
        backends=frozenset(),
        servers_min=1 if servers > 2 and chance.random() < 0.3 else 0,
        servers_max=servers,
        namespaces=EVERYTHING,
        max_priority=1000,
        idle_watts=round(product.idle_watts * chance.uniform(0.95, 1.1), 1),
        host_watts=round(product.host_watts * chance.uniform(0.9, 1.1), 1),
        drain_timeout_seconds=600.0,
        max_busy_share=chance.choice((0.7, 0.7, 0.75, 0.65)),
        busy_watts=product.busy_watts,
        servers_per_node=product.servers_per_node,
        scale_in=chance.random() >= 0.1,
        pue=site[1],
        price_per_server_hour=round(product.price * chance.uniform(0.8, 1.2), 3),
        grams_per_kilowatt_hour=site[2],
    )


@dataclass(frozen=True)
class Draft:
    """A model whose speed is still open. `share`: of its best product, or of the fleet's Zipf load where `forced` is False."""

    model: Model
    demand: float
    share: float
    forced: bool


def draw_models(chance: random.Random, size: Size, style: Style, pools: tuple[Pool, ...], zipf: float) -> list[Draft]:
    count = size.models
    busy = count if style is not Style.MANY_IDLE else max(6, round(size.servers * 1.6))
    ranks = list(range(1, busy + 1))
    weights = [rank**-zipf for rank in ranks]
    forced = set(chance.sample(ranks[busy // 8 :], min(len(ranks[busy // 8 :]), math.ceil(0.24 * busy))))
    whole = sum(weight for rank, weight in zip(ranks, weights, strict=True) if rank not in forced)
    two = set(chance.sample(range(count), math.ceil(0.11 * count)))
    tight = set(chance.sample(range(busy), math.ceil(0.22 * busy)))
    order = chance.sample(range(count), count)
    drafts = []
    for number in range(count):
        rank = number + 1
        model = _model(chance, style, f"m{order[number]:05d}", pools, tight=number in tight, two=number in two)
        if number >= busy:
            drafts.append(Draft(model, 0.0, 0.0, True))
        elif rank in forced:
            drafts.append(Draft(model, 2000.0 * weights[number], chance.uniform(*FORCED), True))
        else:
            drafts.append(Draft(model, 2000.0 * weights[number], weights[number] / whole, False))
    return drafts


def _model(chance: random.Random, style: Style, name: str, pools: tuple[Pool, ...], *, tight: bool, two: bool) -> Model:
    generative = style is not Style.MANY_IDLE and chance.random() < 0.2 and any(p.product == "H100" for p in pools)
    variants = _generative(chance, style) if generative else _encoder(chance, style)
    least = 2 if two else 1
    namespace = f"team-{chance.randrange(10)}"
    model = Model(
        key=ModelKey(namespace, name),
        uid=name,
        generation=1,
        priority=chance.choice((100, 100, 100, 50, 200)),
        min_quality=0.0,
        pool_selector=None,
        min_replicas=least,
        max_replicas=None,
        fixed_replicas=None,
        variants=variants,
    )
    if len(pools) >= 6 and chance.random() < 0.1:
        sites = LabelSelector.model_validate({"matchExpressions": [{"key": "site", "operator": "In", "values": ["a", "b"]}]})
        if any(best_place(replace(model, pool_selector=sites), (pool,)) for pool in pools):
            model = replace(model, pool_selector=sites)
    return _with_latency(chance, model, pools, tight=tight)


def _with_latency(chance: random.Random, model: Model, pools: tuple[Pool, ...], *, tight: bool) -> Model:
    """A latency target that binds on the best pool, or one that rarely does, or none."""
    best = best_place(model, pools)
    if best is None or (not tight and chance.random() < 0.4):
        return model
    latency = next(
        point.latency_seconds or 0.0
        for variant in model.variants
        for point in law.matching_points(variant, best[1])
        if point.batch == best[2].batch and point.work_per_second == best[2].work_per_second
    )
    rho = chance.uniform(0.2, 0.6) if tight else chance.uniform(0.85, 0.95)
    return replace(model, slo_latency_seconds=latency * (1 + 2 * rho) / (1 - rho))


def _encoder(chance: random.Random, style: Style) -> tuple[Variant, ...]:
    """A build for cpu and npu, and one for gpu and tpu."""
    memory = {
        Style.TIGHT_MEMORY: chance.uniform(2.2, 6.2),
        Style.MANY_IDLE: chance.lognormvariate(-0.6, 0.5),
    }.get(style, chance.lognormvariate(-0.9, 0.5))
    noise = {product.name: chance.uniform(0.7, 1.4) for product in PRODUCTS}
    if style is Style.ONE_CLASS:
        return (_variant(chance, "trt", ("gpu",), memory, noise, generative=False),)
    light = _variant(chance, "int8", ("cpu", "npu"), memory * 0.6, noise, generative=False)
    return light, _variant(chance, "fp16", ("gpu", "tpu"), memory, noise, generative=False)


def _generative(chance: random.Random, style: Style) -> tuple[Variant, ...]:
    noise = {product.name: chance.uniform(0.8, 1.25) for product in PRODUCTS}
    large = _variant(chance, "fp16", ("gpu",), chance.uniform(13.0, 15.5), noise, generative=True)
    small = _variant(chance, "int4", ("gpu", "tpu"), chance.uniform(5.0, 9.0), noise, generative=True)
    return (large, small) if chance.random() < 0.6 else (small,)


def _variant(
    chance: random.Random, name: str, kinds: tuple[str, ...], memory: float, noise: Mapping[str, float], *, generative: bool
) -> Variant:
    points = [
        point
        for product in PRODUCTS
        if product.accelerator in kinds and (product.tokens > 0 or not generative)
        for point in (_generation if generative else _encoding)(chance, product, noise[product.name])
    ]
    return Variant(
        name=name,
        accelerators=frozenset(kinds),
        backend="python",
        source=Source("file:///m", "", None),
        memory_bytes=int(memory * GIB),
        quality=0.9,
        load_timeout_seconds=600,
        config_json="{}",
        content_revision="c",
        load_revision=f"l-{name}",
        points=tuple(points),
    )


def _encoding(chance: random.Random, product: Product, noise: float) -> list[OperatingPoint]:
    """One request at a time, and eight: more work a joule, later answers."""
    watts = product.idle_watts * 1.2 + (product.busy_watts - product.idle_watts) * chance.uniform(0.5, 0.9)
    return [
        _point(product, batch, product.speed * noise * gain, watts * (0.85 + 0.15 * gain), None)
        for batch, gain in ((1, 0.45), (8, 1.0))
    ]


def _generation(chance: random.Random, product: Product, noise: float) -> list[OperatingPoint]:
    """Continuous batching: awake costs most, more tokens little more."""
    slope = (product.busy_watts - product.awake_watts) * chance.uniform(0.8, 1.0)
    return [
        _point(product, batch, product.tokens * noise * gain, product.awake_watts + slope * gain, product.awake_watts)
        for batch, gain in ((8, 0.15), (64, 0.6), (256, 1.0))
    ]


def _point(product: Product, batch: int, work: float, watts: float, awake: float | None) -> OperatingPoint:
    """A point of a model of speed 1; its latency is that of `batch` requests in flight."""
    return OperatingPoint(product.name, product.accelerator, batch, work, 1.2 * batch / work, round(watts, 1), awake)
