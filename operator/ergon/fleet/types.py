"""Models, variants, pools and replicas as frozen values in plain units (bytes, seconds, watts)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ergon.api.types import LabelSelector


class ModelKey(NamedTuple):
    """A model's namespace and name."""

    namespace: str
    name: str

    @property
    def served_name(self) -> str:
        """The name in Triton, in URLs and on disk: `<namespace>.<name>` (a namespace holds no dot, so it is unique)."""
        return f"{self.namespace}.{self.name}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of_served_name(served_name: str) -> ModelKey | None:
    """The model behind a name in Triton, or None where the name cannot be one of ours."""
    namespace, dot, name = served_name.partition(".")
    return ModelKey(namespace, name) if dot and namespace and name and "." not in name else None


class ServerKey(NamedTuple):
    """A server: its pool and its ordinal in it."""

    pool: str
    ordinal: int

    def __str__(self) -> str:
        return f"{self.pool}-{self.ordinal}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a variant's files lie; content behind (uri, revision) is immutable."""

    uri: str
    revision: str
    secret_name: str | None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a variant delivers with `batch` requests in flight, alone on one server. None: not said.

    `product` is matched with the pool's product; without one, `accelerator_class` with the pool's class. Work is requests, or
    for generative models weighted tokens. `watts` and `awake_watts` are those of the server's accelerators while executing,
    and as soon as they execute at all. `counts_tokens`: work is in tokens, which Triton's counters do not show.
    """

    product: str | None
    accelerator_class: str | None
    batch: int
    work_per_second: float
    latency_seconds: float | None = None
    watts: float | None = None
    awake_watts: float | None = None
    memory_bytes: int | None = None
    counts_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a model. `content_revision` names its files, `load_revision` its files and configuration."""

    name: str
    accelerators: frozenset[str]
    backend: str
    source: Source
    memory_bytes: int
    quality: float
    load_timeout_seconds: float
    config_json: str
    content_revision: str
    load_revision: str
    points: tuple[OperatingPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A SpecializedModel in plain numbers. `input_weight`: what an input token counts for, an output token being 1."""

    key: ModelKey
    uid: str
    generation: int
    priority: int
    min_quality: float
    pool_selector: LabelSelector | None
    min_replicas: int
    max_replicas: int | None
    fixed_replicas: int | None
    variants: tuple[Variant, ...]
    slo_latency_seconds: float | None = None
    slo_percentile: int = 95
    idle_after_seconds: float = 600.0
    input_weight: float = 0.1

    def variant(self, name: str) -> Variant | None:
        """The variant of that name, if the model has it."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def loaded_as(self, load_revision: str | None) -> Variant | None:
        """The variant that has this load revision, if the model has one."""
        return next((variant for variant in self.variants if variant.load_revision == load_revision), None)

    @property
    def counts_tokens(self) -> bool:
        """Whether its work is output tokens + `input_weight` x input tokens (a profile says tokensPerSecond), else requests."""
        return any(point.counts_tokens for variant in self.variants for point in variant.points)

    @property
    def wanted_replicas(self) -> int:
        """Replicas of a model that is awake, by its spec alone: the fixed count, else minReplicas, at least 1."""
        return self.fixed_replicas if self.fixed_replicas is not None else max(1, self.min_replicas)


@dataclass(frozen=True, slots=True)
class Pool:
    """An AcceleratorPool in plain numbers.

    `boot_delay_seconds`: from asking for a server to its being up; `off_delay_seconds`: from giving it back to its power's end.
    `unavailable`: ordinals that cannot be had. `idle_watts` and `busy_watts` are those of all accelerators of one server,
    `host_watts` those of the rest of a node, which `servers_per_node` servers share. With `scale_in` False, nodes stay on.
    """

    name: str
    uid: str
    generation: int
    labels: dict[str, str] = field(hash=False)
    accelerator_class: str
    product: str | None
    memory_bytes: int
    max_models: int | None
    backends: frozenset[str]
    servers_min: int
    servers_max: int
    namespaces: LabelSelector | None
    max_priority: int
    idle_watts: float
    host_watts: float
    drain_timeout_seconds: float
    deleting: bool = False
    unavailable: frozenset[int] = frozenset()
    max_busy_share: float = 0.7
    busy_watts: float | None = None
    servers_per_node: int = 1
    scale_in: bool = True
    pue: float = 1.0
    price_per_server_hour: float = 0.0
    grams_per_kilowatt_hour: float = 0.0
    boot_delay_seconds: float = 180.0
    off_delay_seconds: float = 600.0

    @property
    def weighed_as(self) -> str:
        """The name by which measured memory is known: the product, or the pool's own name; empty where only GPUs would say it."""
        return (self.product or self.name) if self.accelerator_class == "gpu" else ""

    @property
    def kind(self) -> str:
        """What tells operating points apart: the accelerator's product, or its class where none is named."""
        return self.product or self.accelerator_class


@dataclass(frozen=True, slots=True)
class Replica:
    """A model's variant on one server."""

    model: ModelKey
    variant: str
    server: ServerKey


@dataclass(frozen=True, slots=True)
class WattLimit:
    """The watts an enforced EnergyBudget allows for its scope: pools, namespaces, or the models of those on these."""

    name: str
    watts: float
    pools: LabelSelector | None = None
    namespaces: LabelSelector | None = None


PEAK_SECONDS = 20.0
"""Peaks of models that generate are means over so long: about the time of one generation."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All a plan is made from: one snapshot.

    `demand`: work per second by model, absent is 0. `refused`: what must not be sent to a server again. `avoided`: what keeps
    failing on a server, for reasons of that server: it goes elsewhere where there is room, and stays where there is none.
    `leaving`: replicas that are wanted no longer and take their room until they are gone. `peaks`: work per second, as
    means over PEAK_SECONDS, that replicas which generate must have places for, by model, where it was seen; absent, the latency
    rule says how busy they may be. `kept_to`: the kind of accelerator (`Pool.kind`) on which a model's new replicas are to be;
    absent, any. `measured`: bytes that a load was measured to take, by model, variant and `Pool.weighed_as`; the larger of this
    and what is declared counts, and no more than a server has.
    """

    pools: tuple[Pool, ...]
    models: tuple[Model, ...]
    namespaces: dict[str, dict[str, str]]
    operator_namespace: str
    current: tuple[Replica, ...] = ()
    refused: frozenset[tuple[ModelKey, str, ServerKey]] = frozenset()
    demand: Mapping[ModelKey, float] = field(default_factory=dict)
    watt_limits: tuple[WattLimit, ...] = ()
    avoided: frozenset[tuple[ModelKey, str, ServerKey]] = frozenset()
    leaving: tuple[Replica, ...] = ()
    peaks: Mapping[ModelKey, float] = field(default_factory=dict)
    kept_to: Mapping[ModelKey, str] = field(default_factory=dict)
    measured: Mapping[tuple[ModelKey, str, str], int] = field(default_factory=dict)

    @property
    def barred(self) -> frozenset[tuple[ModelKey, str, ServerKey]]:
        """What is refused or avoided: (model, revision, server)."""
        return self.refused | self.avoided

    def namespace_labels(self, name: str) -> dict[str, str]:
        """Labels of a namespace; one without an object has only its name label."""
        return self.namespaces.get(name, {"kubernetes.io/metadata.name": name})
