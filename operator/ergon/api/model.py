"""SpecializedModel: a named capability with one task, served under one stable name."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ergon.api.rules import Rule
from ergon.api.types import (
    AcceleratorClass,
    Conditions,
    Distinct,
    Duration,
    FreeForm,
    LabelSelector,
    Name,
    PositiveDuration,
    Provenance,
    Quantity,
    Spec,
)


class Slo(Spec):
    """What the model's users are promised."""

    latency: PositiveDuration | None = Field(
        default=None, description="Latency target at the percentile; to the first token for generative models."
    )
    percentile: Annotated[int, Field(ge=1, le=99)] = Field(default=95, description="Percentile the latency is judged at.")
    per_output_token: PositiveDuration | None = Field(
        default=None, description="For generative models: time for each further token."
    )


class Autoscaling(Spec):
    """Between how many replicas the model may be scaled."""

    rules = (
        Rule(
            "!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            lambda self: self.max_replicas is None or self.min_replicas <= self.max_replicas,
            "maxReplicas is below minReplicas",
            "maxReplicas",
        ),
    )

    min_replicas: Annotated[int, Field(ge=0, le=10000)] = Field(default=1, description="Replicas that run always.")
    max_replicas: Annotated[int, Field(ge=1, le=10000)] | None = Field(
        default=None, description="Replicas that may run at most; absent: no limit."
    )
    idle_after: Duration = Field(default="10m", description="Without a request for this long a model may go to zero replicas.")


class Source(Spec):
    """Where a variant's Triton model directory lies. Content behind a URI is immutable: new content is a new revision."""

    rules = (
        Rule(
            "!self.uri.startsWith('file:') || self.uri.startsWith('file:///')",
            lambda self: not self.uri.startswith("file:") or self.uri.startswith("file:///"),
            "a file URI is file:///path, which means /sources/path of the pool",
            "uri",
        ),
        Rule(
            "!self.uri.startsWith('file:') || !(self.uri + '/').contains('/../')",
            lambda self: not self.uri.startswith("file:") or "/../" not in self.uri + "/",
            "a file URI may not contain '..'",
            "uri",
        ),
        Rule(
            "!self.uri.startsWith('file:') || !has(self.secretName)",
            lambda self: not self.uri.startswith("file:") or self.secret_name is None,
            "a file URI takes no credentials",
            "secretName",
        ),
        Rule(
            "!self.uri.matches('^[a-z0-9]+://[^/]*@')",
            lambda self: re.match(r"^[a-z0-9]+://[^/]*@", self.uri) is None,
            "credentials do not belong in a URI: put them into a Secret and name it in secretName",
            "uri",
        ),
    )

    uri: Annotated[str, Field(min_length=8, max_length=1024, pattern=r"^(s3|gs|az|https?|file)://\S+$")] = Field(
        description="A Triton model directory: s3://, gs://, az://, http(s):// or file:// (under the pool's /sources)."
    )
    revision: Annotated[str, Field(max_length=128)] = Field(
        default="", description="Changes when the content changes: a new revision is fetched and loaded."
    )
    secret_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")] | None = Field(
        default=None, description="Secret of type ergon.dev/source in the model's namespace with the store's credentials."
    )


class Profile(Spec):
    """One operating point, measured with the variant alone on one server."""

    rules = (
        Rule(
            "has(self.product) || has(self.accelerator)",
            lambda self: self.product is not None or self.accelerator is not None,
            "a profile says where it was measured: product or accelerator",
        ),
        Rule(
            "has(self.requestsPerSecond) || has(self.tokensPerSecond)",
            lambda self: self.requests_per_second is not None or self.tokens_per_second is not None,
            "a profile says what it delivers: requestsPerSecond or tokensPerSecond",
        ),
    )

    product: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="The pool's product this was measured on; then the class is not looked at."
    )
    accelerator: AcceleratorClass | None = Field(default=None, description="The class this was measured on.")
    batch: Annotated[int, Field(ge=1, le=100000)] = Field(default=1, description="Requests in flight.")
    requests_per_second: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="Requests a second at that point."
    )
    tokens_per_second: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="For generative models: tokens a second at that point."
    )
    latency: PositiveDuration | None = Field(default=None, description="Latency at that point, at the model's percentile.")
    watts: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        default=None, description="Watts of the server's accelerators while executing; default the pool's busyWatts."
    )
    awake_watts: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        default=None, description="Watts the accelerators draw as soon as they execute at all; default idleWatts."
    )
    memory: Quantity | None = Field(default=None, description="Memory at that point; default the variant's.")


class Variant(Spec):
    """One way to run the model: a build for a backend and certain accelerator classes."""

    name: Name = Field(description="Name of the variant, unique in the model.")
    accelerators: Annotated[list[AcceleratorClass], Field(min_length=1, max_length=4), Distinct] = Field(
        description="Classes of accelerator it runs on.", json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    backend: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9_]+$")] = Field(
        description="Triton backend, such as python, onnxruntime or tensorrt."
    )
    source: Source = Field(description="Where its files lie.")
    memory: Quantity = Field(
        description="Memory of one replica on a server's accelerator (host memory on cpu), such as 600Mi or 2Gi."
    )
    quality: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Its owner's score for the task, 0 to 1; absent counts as 0."
    )
    load_timeout: PositiveDuration = Field(default="10m", description="A load that takes longer counts as hung.")
    config: FreeForm = Field(
        default_factory=dict,
        description=(
            "Laid over the model's config.pbtxt: messages merge, repeated fields are replaced. Name and backend are Ergon's."
        ),
    )
    profiles: Annotated[list[Profile], Field(max_length=64)] = Field(
        default_factory=list, description="Operating points.", json_schema_extra={"x-kubernetes-list-type": "atomic"}
    )


class Work(Spec):
    """How the work of a generative model is counted."""

    input_weight: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.1, description="What an input token counts for, an output token being 1."
    )


class SpecializedModelSpec(Spec):
    """What a person says of a model."""

    task: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = Field(
        description="What the model does, such as entity-extraction."
    )
    priority: Annotated[int, Field(ge=0, le=1000)] = Field(default=100, description="Who gives way first: the lower number.")
    slo: Slo = Field(default_factory=Slo, description="What the model's users are promised.")
    min_quality: Annotated[float, Field(ge=0, le=1)] = Field(default=0, description="Variants below this are not used.")
    pools: LabelSelector | None = Field(default=None, description="Pools that may serve the model; absent: any.")
    autoscaling: Autoscaling = Field(default_factory=Autoscaling, description="Between how many replicas it may be scaled.")
    replicas: Annotated[int, Field(ge=0, le=10000)] | None = Field(
        default=None, description="A fixed number of replicas: overrules autoscaling while it stands (kubectl scale)."
    )
    work: Work = Field(default_factory=Work, description="How the work of a generative model is counted.")
    variants: Annotated[list[Variant], Field(min_length=1, max_length=32)] = Field(
        description="Ways to run the model.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )

    @model_validator(mode="after")
    def _variants_have_own_names(self) -> "SpecializedModelSpec":
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("variants: two of them have one name")
        return self


MOST_PLACEMENTS = 1024
"""That a status shows: the API server takes no list without a bound, and no object of more than some 1.5 MB."""
PlacementState = Literal["Pending", "Downloading", "Loading", "Ready", "Draining", "Failed"]
Verdict = Literal["Chosen", "Feasible", "Rejected"]


class Placement(Spec):
    """One replica: a variant on one server."""

    pool: Annotated[str, Field(max_length=63)] = Field(description="The pool.")
    server: Annotated[int, Field(ge=0)] = Field(description="The server's ordinal in the pool.")
    variant: Annotated[str, Field(max_length=63)] = Field(description="The variant it runs.")
    state: PlacementState = Field(description="Where it stands.")
    since: str = Field(default="", max_length=40, description="Since when.", json_schema_extra={"format": "date-time"})
    message: Annotated[str, Field(max_length=1024)] = Field(default="", description="More, for a person.")
    revision: Annotated[str, Field(max_length=128)] = Field(default="", description="The source's revision that is loaded.")


class Alternative(Spec):
    """Why a variant is, or is not, on a pool."""

    pool: Annotated[str, Field(max_length=63)] = Field(description="The pool.")
    variant: Annotated[str, Field(max_length=63)] = Field(description="The variant.")
    verdict: Verdict = Field(description="Chosen, Feasible or Rejected.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="Why, as one CamelCase word.")
    message: Annotated[str, Field(max_length=512)] = Field(default="", description="Why, for a person.")


class ColdStart(Spec):
    """How long the last replica took from being placed to being ready, in seconds."""

    fetch_seconds: Annotated[float, Field(ge=0)] = Field(default=0, description="Seconds spent on fetching its files.")
    load_seconds: Annotated[float, Field(ge=0)] = Field(default=0, description="Seconds spent on loading it in Triton.")
    total_seconds: Annotated[float, Field(ge=0)] = Field(default=0, description="Seconds from begun on its server to loaded.")
    server_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0, description="Seconds before that, from planned until its server could begin."
    )
    first_answer_seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Seconds from the first server that the gateway saw to the first answer; absent where nobody waited for it.",
    )


class DemandStatus(Spec):
    """What is asked of the model, and what it could serve. Rounded; the live figures are metrics."""

    unit: Literal["requests", "tokens"] = Field(default="requests", description="What work is counted in.")
    observed: Annotated[float, Field(ge=0)] = Field(default=0, description="Work per second over the last five minutes.")
    forecast: Annotated[float, Field(ge=0)] = Field(
        default=0, description="Work per second planned for: the 90th percentile of the mean rate until the next plan takes hold."
    )
    capacity: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Work per second that its replicas can serve within the target; absent without profiles."
    )
    headroom: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Share of the capacity that the forecast leaves free."
    )
    method: Annotated[str, Field(max_length=128)] = Field(default="", description="How the forecast was made.")
    message: Annotated[str, Field(max_length=512)] = Field(default="", description="Why so many replicas, in one sentence.")


class EnergyStatus(Spec):
    """What the model takes by executing and loading. Rounded; the live figures are metrics."""

    watts: Annotated[float, Field(ge=0)] = Field(default=0, description="Watts over the last hour.")
    joules_per_request: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Joules a request over the last hour; absent where none was answered."
    )
    joules_per_thousand_tokens: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="For generative models: joules per 1,000 tokens of work over the last hour."
    )
    provenance: Provenance = Field(default="assumed", description="Where the figures come from.")


class SpecializedModelStatus(Spec):
    """What the operator says of a model."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(default=0, description="Generation this status is about.")
    conditions: Conditions = Field(default_factory=list)
    replicas: Annotated[int, Field(ge=0)] = Field(default=0, description="Replicas that are placed.")
    ready_replicas: Annotated[int, Field(ge=0)] = Field(default=0, description="Replicas that answer.")
    selector: Annotated[str, Field(max_length=256)] = Field(default="", description="Label selector of the scale subresource.")
    endpoint: Annotated[str, Field(max_length=256)] = Field(default="", description="Where the model answers in the cluster.")
    placements: Annotated[list[Placement], Field(max_length=MOST_PLACEMENTS)] = Field(
        default_factory=list,
        description="Its replicas.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pool", "server"]},
    )
    alternatives: Annotated[list[Alternative], Field(max_length=16)] = Field(
        default_factory=list,
        description="Why here, and why not there: the most telling.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pool", "variant"]},
    )
    demand: DemandStatus | None = Field(default=None, description="What is asked of it, rounded.")
    energy: EnergyStatus | None = Field(default=None, description="What it takes, rounded.")
    cold_start: ColdStart | None = Field(default=None, description="How long the last replica took to be ready.")
