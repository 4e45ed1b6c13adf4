"""From what people wrote to plain numbers."""

import hashlib
import json

from ergon.api.budget import EnergyBudgetSpec
from ergon.api.model import Profile, SpecializedModelSpec
from ergon.api.model import Variant as VariantSpec
from ergon.api.pool import AcceleratorPoolSpec
from ergon.api.quantities import duration_seconds, quantity_bytes
from ergon.fleet.types import Model, ModelKey, OperatingPoint, Pool, Source, Variant, WattLimit


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def build_variant(spec: VariantSpec) -> Variant:
    """A variant in plain numbers; its revisions change exactly when its content or its configuration changes."""
    config_json = json.dumps(spec.config, sort_keys=True, separators=(",", ":"))
    content_revision = _digest(spec.source.uri, spec.source.revision)
    return Variant(
        name=spec.name,
        accelerators=frozenset(spec.accelerators),
        backend=spec.backend,
        source=Source(spec.source.uri, spec.source.revision, spec.source.secret_name),
        memory_bytes=quantity_bytes(spec.memory),
        quality=spec.quality or 0.0,
        load_timeout_seconds=duration_seconds(spec.load_timeout),
        config_json=config_json,
        content_revision=content_revision,
        load_revision=_digest(content_revision, spec.backend, config_json),
        points=tuple(_point(profile) for profile in spec.profiles),
    )


def _point(spec: Profile) -> OperatingPoint:
    work = spec.tokens_per_second if spec.requests_per_second is None else spec.requests_per_second
    assert work is not None  # a rule of the api
    return OperatingPoint(
        product=spec.product,
        accelerator_class=spec.accelerator,
        batch=spec.batch,
        work_per_second=work,
        latency_seconds=duration_seconds(spec.latency) if spec.latency is not None else None,
        watts=spec.watts,
        awake_watts=spec.awake_watts,
        memory_bytes=quantity_bytes(spec.memory) if spec.memory is not None else None,
        counts_tokens=spec.requests_per_second is None,
    )


def build_model(key: ModelKey, uid: str, generation: int, spec: SpecializedModelSpec) -> Model:
    """A model in plain numbers."""
    return Model(
        key=key,
        uid=uid,
        generation=generation,
        priority=spec.priority,
        min_quality=spec.min_quality,
        pool_selector=spec.pools,
        min_replicas=spec.autoscaling.min_replicas,
        max_replicas=spec.autoscaling.max_replicas,
        fixed_replicas=spec.replicas,
        variants=tuple(build_variant(variant) for variant in spec.variants),
        slo_latency_seconds=duration_seconds(spec.slo.latency) if spec.slo.latency is not None else None,
        input_weight=spec.work.input_weight,
        idle_after_seconds=duration_seconds(spec.autoscaling.idle_after),
    )


def build_pool(
    name: str, uid: str, generation: int, labels: dict[str, str], spec: AcceleratorPoolSpec, *, deleting: bool
) -> Pool:
    """A pool in plain numbers, all its servers taken as available."""
    return Pool(
        name=name,
        uid=uid,
        generation=generation,
        labels=labels,
        accelerator_class=spec.accelerator.class_,
        product=spec.accelerator.product,
        memory_bytes=quantity_bytes(spec.memory),
        max_models=spec.max_models,
        backends=frozenset(spec.triton.backends),
        servers_min=spec.servers.min,
        servers_max=spec.servers.max,
        namespaces=spec.namespaces,
        max_priority=spec.max_priority,
        idle_watts=spec.power.idle_watts,
        host_watts=spec.power.host_watts,
        drain_timeout_seconds=duration_seconds(spec.drain_timeout),
        deleting=deleting,
        max_busy_share=spec.max_busy_share,
        busy_watts=spec.power.busy_watts,
        servers_per_node=spec.power.servers_per_node,
        scale_in=spec.power.scale_in,
        pue=spec.power.pue,
        price_per_server_hour=spec.price_per_server_hour,
        grams_per_kilowatt_hour=spec.carbon.grams_per_kilowatt_hour,
        boot_delay_seconds=duration_seconds(spec.power.boot_delay),
        off_delay_seconds=duration_seconds(spec.power.off_delay),
    )


def build_watt_limit(name: str, spec: EnergyBudgetSpec) -> WattLimit | None:
    """The watts that a budget holds its scope to; None where it holds none, or only observes."""
    if spec.limits.watts is None or spec.enforcement != "Enforce":
        return None
    return WattLimit(name, spec.limits.watts, spec.pools, spec.namespaces)
