"""AcceleratorPool: identical Triton servers on one kind of accelerator."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ergon.api.rules import Rule, Transition
from ergon.api.types import AcceleratorClass, Conditions, Distinct, Duration, FreeForm, LabelSelector, Provenance, Quantity, Spec

_RESOURCE_PATTERN = r"^(none|[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)$"
RESERVED_NAMES = frozenset({"gateway", "leader", "metrics"})
"""A pool's Service is `ergon-<pool>`, and so are Ergon's own, in a release that is called `ergon`."""
RESERVED_WORDS = "gateway, leader and metrics are names of Ergon's own Services; give the pool another name"
DEFAULT_RESOURCE_NAMES = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu", "cpu": "none"}


class Accelerator(Spec):
    """What one server of the pool runs on."""

    rules = (
        Rule(
            "self.class != 'npu' || has(self.resourceName)",
            lambda self: self.class_ != "npu" or self.resource_name is not None,
            "resourceName is required for npu: the extended resource of its device plugin",
            "resourceName",
        ),
    )

    class_: AcceleratorClass = Field(alias="class", description="Kind of accelerator: gpu, tpu, npu or cpu.")
    product: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Product name, such as NVIDIA-L4; profiles may name it for their operating points."
    )
    resource_name: Annotated[str, Field(max_length=253, pattern=_RESOURCE_PATTERN)] | None = Field(
        default=None,
        description=(
            "Extended resource a server asks for. Defaults: nvidia.com/gpu for gpu, google.com/tpu for tpu, none for cpu; "
            "required for npu. 'none' asks for nothing (cpu, or claims in the template)."
        ),
    )
    per_server: Annotated[int, Field(ge=1, le=1024)] = Field(default=1, description="Accelerators of one server.")

    @property
    def resource(self) -> str | None:
        """The extended resource of one server, or None where it asks for none."""
        name = self.resource_name or DEFAULT_RESOURCE_NAMES.get(self.class_, "none")
        return None if name == "none" else name


class ServerCount(Spec):
    """How many servers a pool may run."""

    rules = (Rule("self.min <= self.max", lambda self: self.min <= self.max, "min is above max", "min"),)

    min: Annotated[int, Field(ge=0, le=10000)] = Field(default=0, description="Servers that run always.")
    max: Annotated[int, Field(ge=0, le=10000)] = Field(description="Servers that may run at most.")


Backend = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9_]+$")]


class Triton(Spec):
    """How Triton Inference Server is started."""

    image: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        default="nvcr.io/nvidia/tritonserver:26.10-py3", description="Image of Triton Inference Server."
    )
    backends: Annotated[list[Backend], Field(max_length=32), Distinct] = Field(
        default_factory=list,
        description="Backends the image holds; empty means any.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    args: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=64)] = Field(
        default_factory=list,
        description="Further arguments of tritonserver, after Ergon's own.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class PrometheusQuery(Spec):
    """A query that the operator's Prometheus answers; the server's address is the operator's."""

    query: Annotated[str, Field(min_length=1, max_length=2048)] = Field(description="PromQL that gives one number.")


class Power(Spec):
    """What the pool's servers draw, all in watts at one boundary (wall or board)."""

    rules = (
        Rule(
            "!has(self.source) || self.source != 'Prometheus' || has(self.prometheus)",
            lambda self: self.source != "Prometheus" or self.prometheus is not None,
            "source Prometheus needs prometheus.query",
            "prometheus",
        ),
    )

    host_watts: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=0, description="Watts of the rest of a node that is on, accelerators not counted."
    )
    servers_per_node: Annotated[int, Field(ge=1, le=1024)] = Field(default=1, description="Servers that share one node.")
    idle_watts: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=0, description="Watts of one server's accelerators with Triton up and nothing executing."
    )
    busy_watts: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        default=None, description="Watts of one server's accelerators while executing; default idleWatts."
    )
    pue: Annotated[float, Field(ge=1, le=5)] = Field(default=1, description="Power usage effectiveness of the site, 1 or more.")
    scale_in: bool = Field(default=True, description="Whether a server that goes away takes its power with it.")
    boot_delay: Duration = Field(default="3m", description="From asking for a server to its being up.")
    off_delay: Duration = Field(default="10m", description="From giving a server back to its power being gone.")
    source: Literal["Profile", "Triton", "Prometheus"] = Field(default="Profile", description="Where watts are read from.")
    prometheus: PrometheusQuery | None = Field(default=None, description="The query for source Prometheus.")


class Carbon(Spec):
    """How much carbon dioxide the pool's electricity causes."""

    grams_per_kilowatt_hour: Annotated[float, Field(ge=0, le=10000)] = Field(default=0, description="Grams CO2 per kWh.")
    prometheus: PrometheusQuery | None = Field(default=None, description="A query for the current intensity.")


class AcceleratorPoolSpec(Spec):
    """What a person says of a pool."""

    rules = (
        Rule(
            "self.accelerator.class != 'tpu' || has(self.maxModels)",
            lambda self: self.accelerator.class_ != "tpu" or self.max_models is not None,
            "maxModels is required for tpu: only so many processes can open its chips",
            "maxModels",
        ),
    )
    transitions = (
        Transition(
            "self.accelerator.class == oldSelf.accelerator.class",
            "accelerator.class cannot be changed: make a new pool and delete this one",
        ),
    )

    accelerator: Accelerator = Field(description="The accelerator of one server.")
    memory: Quantity = Field(description="Memory that models may use on one server.")
    max_models: Annotated[int, Field(ge=1, le=10000)] | None = Field(
        default=None, description="Replicas on one server; absent: no limit. Required for tpu."
    )
    max_busy_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.7, description="Share of a server's time that may be planned as busy."
    )
    servers: ServerCount = Field(description="How many servers may run.")
    namespaces: LabelSelector | None = Field(
        default=None, description="Namespaces whose models the pool takes; absent: the operator's own; {}: all."
    )
    max_priority: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1000, description="Caps what the priority of a model counts for here."
    )
    disk: Quantity = Field(default="100Gi", description="Size of a server's model store; a fetch is admitted by its size.")
    shared_memory: Quantity = Field(
        default="512Mi", description="Size of /dev/shm: at least 1 MiB an instance of a Python model."
    )
    triton: Triton = Field(default_factory=Triton, description="How Triton is started.")
    template: FreeForm = Field(
        default_factory=dict,
        description=(
            "PodTemplateSpec laid over the server's pod by strategic merge: lists of named things merge by name; the "
            "containers are 'triton' and 'store'. At most 64 KiB."
        ),
    )
    power: Power = Field(default_factory=Power, description="What the servers draw.")
    price_per_server_hour: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=0, description="Price of one server for an hour, in any one currency."
    )
    carbon: Carbon = Field(default_factory=Carbon, description="Carbon intensity of the pool's electricity.")
    drain_timeout: Duration = Field(
        default="10m", description="How long a replica that was taken out of traffic may wait for its last clients."
    )


class PoolServers(Spec):
    """Servers of the pool, counted."""

    desired: Annotated[int, Field(ge=0)] = Field(default=0, description="Servers that should run.")
    ready: Annotated[int, Field(ge=0)] = Field(default=0, description="Servers that answer.")


class PoolMemory(Spec):
    """Memory of the pool's servers."""

    allocatable: Annotated[str, Field(max_length=32)] = Field(default="0", description="What models may use in all.")
    used: Annotated[str, Field(max_length=32)] = Field(default="0", description="What placed models declare.")


class AcceleratorPoolStatus(Spec):
    """What the operator says of a pool."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(default=0, description="Generation this status is about.")
    conditions: Conditions = Field(default_factory=list)
    servers: PoolServers = Field(default_factory=PoolServers, description="Servers, counted.")
    models: Annotated[int, Field(ge=0)] = Field(default=0, description="Replicas on the pool's servers.")
    memory: PoolMemory = Field(default_factory=PoolMemory, description="Memory, summed over the servers.")
    busy_share: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Mean busy share of the servers.")
    watts: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Power of the pool over the last minute, host and PUE included, in watts; rounded."
    )
    provenance: Provenance | None = Field(default=None, description="Where the watts come from.")


def template_of(spec: AcceleratorPoolSpec) -> dict[str, Any]:
    """The pod template overlay as a plain dict (empty where none is given)."""
    return dict(spec.template)
