"""Small fleets with everything in them that a fleet can have, from a source of chance: a seed, or hypothesis."""

import math
import random
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from ergon.api.types import LabelSelector
from ergon.fleet.types import Fleet, Model, ModelKey, OperatingPoint, Pool, Replica, ServerKey, Source, Variant, WattLimit

MIB = 2**20
CLASSES = ("gpu", "cpu", "npu", "tpu")
PRODUCTS = {"gpu": ("H100", "L4"), "cpu": ("Xeon",), "npu": ("Edge",), "tpu": ("v5e",)}
NAMESPACES = ("ergon-system", "finance", "legal")
ALL = LabelSelector()


@dataclass(frozen=True)
class Shape:
    """How large fleets get, and whether they hold what no careful person would write. `ease`: share of obstacles left away."""

    models: int = 6
    pools: int = 3
    servers: int = 3
    odd: bool = True
    past: bool = True
    limits: bool = True
    ease: float = 0.0


ANY = Shape()
SOUND = Shape(odd=False)
FRESH = Shape(odd=False, past=False)
SOLVABLE = Shape(models=5, pools=3, servers=4, odd=False, past=False, ease=0.8)


def fleets(shape: Shape = ANY) -> st.SearchStrategy[Fleet]:
    """Fleets of a shape, which hypothesis can shrink."""
    return st.randoms(use_true_random=False, note_method_calls=False).map(lambda chance: random_fleet(chance, shape))


def random_fleet(chance: random.Random, shape: Shape = ANY) -> Fleet:
    """A fleet drawn by chance."""
    pools = tuple(_eased_pool(chance, shape, f"p{i}") for i in range(_count(chance, shape.pools, shape.odd)))
    models = tuple(_eased_model(chance, shape, f"m{i}") for i in range(_count(chance, shape.models, shape.odd)))
    demand = {model.key: _demand(chance, shape, model) for model in models if chance.random() < 0.85}
    fleet = Fleet(pools, models, _namespaces(chance), "ergon-system", demand=demand)
    limits = tuple(_limit(chance, f"b{i}", pools) for i in range(chance.choice((0, 0, 1, 2)) if shape.limits else 0))
    fleet = replace(fleet, watt_limits=limits, refused=_refused(chance, fleet))
    return replace(fleet, current=_current(chance, fleet, shape)) if shape.past else fleet


def _count(chance: random.Random, most: int, odd: bool) -> int:
    return chance.randint(0 if odd and chance.random() < 0.1 else 1, most)


def _namespaces(chance: random.Random) -> dict[str, dict[str, str]]:
    return {"finance": {"kubernetes.io/metadata.name": "finance", "tier": "gold"}} if chance.random() < 0.5 else {}


def _selector(chance: random.Random) -> LabelSelector:
    return chance.choice(
        (
            ALL,
            LabelSelector(match_labels={"site": "a"}),
            LabelSelector.model_validate({"matchExpressions": [{"key": "site", "operator": "NotIn", "values": ["a"]}]}),
            LabelSelector.model_validate({"matchExpressions": [{"key": "fast", "operator": "Exists"}]}),
        )
    )


def _eased_pool(chance: random.Random, shape: Shape, name: str) -> Pool:
    pool = _pool(chance, shape, name)
    if chance.random() >= shape.ease:
        return pool
    return replace(
        pool,
        namespaces=ALL,
        backends=frozenset(),
        unavailable=frozenset(),
        max_models=chance.choice((None, 4)),
        memory_bytes=chance.choice((1024, 4096)) * MIB,
        servers_max=max(2, pool.servers_max),
    )


def _eased_model(chance: random.Random, shape: Shape, name: str) -> Model:
    model = _model(chance, shape, name)
    if chance.random() >= shape.ease:
        return model
    variants = tuple(replace(v, memory_bytes=v.memory_bytes // 2, quality=0.9) for v in model.variants)
    slo = model.slo_latency_seconds and max(0.3, model.slo_latency_seconds)
    return replace(model, pool_selector=None, min_replicas=min(model.min_replicas, 1), variants=variants, slo_latency_seconds=slo)


def _pool(chance: random.Random, shape: Shape, name: str) -> Pool:
    kind = chance.choice(CLASSES[:2]) if chance.random() < 0.8 else chance.choice(CLASSES)
    most = chance.randint(0 if shape.odd else 1, shape.servers)
    least = chance.choice((0, 0, chance.randint(0, most)))
    unavailable = {i for i in range(most + 1) if chance.random() < 0.3} if chance.random() < 0.2 else set()
    return Pool(
        name=name,
        uid=name,
        generation=1,
        labels=chance.choice(({}, {"site": "a"}, {"site": "b"}, {"site": "a", "fast": "yes"})),
        accelerator_class=kind,
        product=chance.choice((*PRODUCTS[kind], None)),
        memory_bytes=chance.choice((256, 1024, 4096)) * MIB,
        max_models=chance.choice((None, None, 1, 2, 3)),
        backends=chance.choice((frozenset(), frozenset({"onnxruntime"}), frozenset({"onnxruntime", "python"}))),
        servers_min=least,
        servers_max=most,
        namespaces=chance.choice((None, *[ALL] * 8, LabelSelector(match_labels={"tier": "gold"}))),
        max_priority=chance.choice((1000, 1000, 150, 50)),
        idle_watts=chance.choice((0.0, 5.0, 16.0, 70.0)),
        host_watts=chance.choice((0.0, 40.0, 90.0)),
        drain_timeout_seconds=600.0,
        deleting=shape.odd and chance.random() < 0.05,
        unavailable=frozenset(unavailable),
        max_busy_share=chance.choice((0.7, 0.7, 0.5, 0.9, 1.0)),
        busy_watts=chance.choice((None, 80.0, 300.0, 10.0)),
        servers_per_node=chance.choice((1, 1, 2, 8)),
        scale_in=chance.random() < 0.85,
        pue=chance.choice((1.0, 1.0, 1.2, 1.57)),
        price_per_server_hour=chance.choice((0.0, 0.8, 2.5)),
        grams_per_kilowatt_hour=chance.choice((0.0, 40.0, 350.0)),
    )


def _model(chance: random.Random, shape: Shape, name: str) -> Model:
    least = chance.choice((1, 1, 1, 2, 3)) if not (shape.odd and chance.random() < 0.15) else 0
    most = chance.choice((None, None, least or 1, least + 1))
    fixed = chance.choice((0, 1, 2)) if chance.random() < 0.1 else None
    if shape.odd and chance.random() < 0.03:
        least, most = 3, 1
    return Model(
        key=ModelKey(chance.choice(NAMESPACES), name),
        uid=name,
        generation=1,
        priority=chance.choice((100, 100, 100, 0, 200, 1000)),
        min_quality=chance.choice((0.0, 0.0, 0.5)),
        pool_selector=_selector(chance) if chance.random() < 0.25 else None,
        min_replicas=least,
        max_replicas=most,
        fixed_replicas=fixed,
        variants=tuple(_variant(chance, shape, f"v{i}") for i in range(chance.randint(1, 2))),
        slo_latency_seconds=chance.choice((0.05, 0.1, 0.3, 1.0)) if chance.random() < 0.5 else None,
    )


def _variant(chance: random.Random, shape: Shape, name: str) -> Variant:
    kinds = frozenset(chance.sample(CLASSES, chance.randint(1, 3))) | frozenset({chance.choice(("gpu", "cpu"))})
    memory = chance.choice((0, 50, 120, 250, 600, 1000, 3000)) * MIB
    points = [_point(chance, kinds) for _ in range(chance.choice((0, 1, 2, 3, 4)))]
    points.extend(_point(chance, frozenset({kind}), by_class=True) for kind in sorted(kinds) if chance.random() < 0.8)
    if shape.odd and chance.random() < 0.04:
        points.append(_broken_point(chance))
    return Variant(
        name=name,
        accelerators=kinds,
        backend=chance.choice(("onnxruntime", "onnxruntime", "python")),
        source=Source("file:///m", "", None),
        memory_bytes=-1 if shape.odd and chance.random() < 0.01 else memory,
        quality=chance.choice((0.9, 0.9, 0.5, 0.0)),
        load_timeout_seconds=600,
        config_json="{}",
        content_revision="c",
        load_revision=f"l-{name}",
        points=tuple(points),
    )


def _point(chance: random.Random, kinds: frozenset[str], *, by_class: bool = False) -> OperatingPoint:
    kind = chance.choice(sorted(kinds))
    return OperatingPoint(
        product=None if by_class else chance.choice((*PRODUCTS[kind], None)),
        accelerator_class=kind,
        batch=chance.choice((1, 4, 8, 32)),
        work_per_second=chance.choice((10.0, 20.0, 50.0, 100.0, 1000 / 3)),
        latency_seconds=chance.choice((None, 0.005, 0.02, 0.04, 0.2)),
        watts=chance.choice((None, 2.0, 60.0, 200.0, 650.5)),
        awake_watts=chance.choice((None, None, 1.0, 50.0, 400.0, 900.0)),
        memory_bytes=chance.choice((None, None, 100 * MIB, 700 * MIB)),
    )


def _broken_point(chance: random.Random) -> OperatingPoint:
    return OperatingPoint(
        product=None,
        accelerator_class=chance.choice(CLASSES[:2]),
        batch=1,
        work_per_second=chance.choice((0.0, math.nan, -1.0, math.inf, 10.0)),
        latency_seconds=chance.choice((math.nan, -1.0, 0.01)),
        watts=chance.choice((math.nan, math.inf, -5.0)),
    )


def _demand(chance: random.Random, shape: Shape, model: Model) -> float:
    if shape.odd and chance.random() < 0.08:
        return chance.choice((math.nan, -3.0, 1e12, 1e-9, 5e-324, math.inf))
    fastest = max((p.work_per_second for v in model.variants for p in v.points if 0 < p.work_per_second < math.inf), default=10.0)
    return chance.choice((0.0, 0.01, 0.1, 0.3, 0.5, 0.65, 0.9, 1.5)) * fastest * (1 - 0.6 * shape.ease)


def _limit(chance: random.Random, name: str, pools: tuple[Pool, ...]) -> WattLimit:
    whole = sum(p.pue * p.servers_max * (p.idle_watts + p.host_watts + (p.busy_watts or 60.0)) for p in pools) or 10.0
    return WattLimit(
        name,
        watts=whole * chance.choice((0.05, 0.2, 0.5, 0.8, 2.0)),
        pools=_selector(chance) if chance.random() < 0.5 else None,
        namespaces=chance.choice((ALL, LabelSelector(match_labels={"tier": "gold"}))) if chance.random() < 0.4 else None,
    )


def _servers(fleet: Fleet) -> list[ServerKey]:
    return [ServerKey(pool.name, ordinal) for pool in fleet.pools for ordinal in range(pool.servers_max)]


def _refused(chance: random.Random, fleet: Fleet) -> frozenset[tuple[ModelKey, str, ServerKey]]:
    servers = _servers(fleet)
    if not servers or chance.random() < 0.8:
        return frozenset()
    return frozenset(
        (model.key, chance.choice(model.variants).load_revision, chance.choice(servers))
        for model in fleet.models
        if chance.random() < 0.4
    )


def _current(chance: random.Random, fleet: Fleet, shape: Shape) -> tuple[Replica, ...]:
    """What stands: any old thing, also where it may not stand, or is too much."""
    servers = _servers(fleet)
    if shape.odd:
        servers += [ServerKey("gone", 0), *(ServerKey(pool.name, pool.servers_max) for pool in fleet.pools)]
    if not servers or chance.random() < 0.4:
        return ()
    standing = {
        (model.key, server): Replica(model.key, chance.choice(model.variants).name, server)
        for model in fleet.models
        for server in chance.sample(servers, min(len(servers), chance.choice((0, 1, 1, 2))))
    }
    extra = [Replica(ModelKey("finance", "gone"), "v0", servers[0])] if shape.odd and chance.random() < 0.1 else []
    return (*standing.values(), *extra)
