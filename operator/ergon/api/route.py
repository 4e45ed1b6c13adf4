"""TaskRoute: a task under one address, the models that can do it, and when a bigger one is asked."""

from typing import Annotated, Literal

from pydantic import Field

from ergon.api.rules import Rule
from ergon.api.types import Conditions, Distinct, Duration, LabelSelector, Name, PositiveDuration, Provenance, Spec

TensorName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.\-]+$")]


class Comparison(Spec):
    """One sign in an answer that a bigger model should be asked. Judged row by row; one row is enough.

    Of several numbers in a row the largest is compared: of class scores, the most likely class's.
    """

    rules = (
        Rule(
            "(has(self.below) ? 1 : 0) + (has(self.above) ? 1 : 0) + (has(self.equals) && size(self.equals) > 0 ? 1 : 0)"
            " + (has(self.empty) && self.empty ? 1 : 0) == 1",
            lambda self: [self.below is not None, self.above is not None, bool(self.equals), self.empty].count(True) == 1,
            "exactly one of below, above, equals and empty: true is needed",
        ),
    )

    output: TensorName = Field(description="Output tensor of the answer that is looked at.")
    below: Annotated[float, Field(ge=-1e12, le=1e12)] | None = Field(
        default=None, description="Escalate when the number is below this, such as a confidence."
    )
    above: Annotated[float, Field(ge=-1e12, le=1e12)] | None = Field(
        default=None, description="Escalate when the number is above this, such as an entropy."
    )
    equals: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=32), Distinct] = Field(
        default_factory=list,
        description="Escalate when the text is one of these, such as an explicit 'unknown'.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    empty: bool = Field(default=False, description="Escalate when the text is empty, or nothing but white space.")


class Escalation(Spec):
    """When the next model in the order is asked after one has answered, or has not."""

    when: Annotated[list[Comparison], Field(max_length=16)] = Field(
        default_factory=list,
        description="Signs in the answer; any of them escalates. An answer that lacks an output named here escalates too.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    after: Duration | None = Field(
        default=None,
        description="A model that has not answered after this long is asked no longer: the next one is. Absent: not by time.",
    )
    max_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="Share of the requests that may escalate, over a minute; beyond it the first answer stands."
    )


class Samples(Spec):
    """Labelled samples by which the route's quality is estimated: each is asked of every candidate when it is new."""

    config_map_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")] = Field(
        description='ConfigMap in the route\'s namespace. Each key holds JSON lines: {"inputs": [...], "expected": "text"}.'
    )
    output: TensorName = Field(description="Output tensor that is compared with `expected`, as text.")


class Chat(Spec):
    """How a model that generates text is asked in the words of OpenAI's chat API."""

    prompt: TensorName = Field(default="text_input", description="Input tensor that takes the prompt.")
    answer: TensorName = Field(default="text_output", description="Output tensor that holds the answer.")
    max_tokens: TensorName | None = Field(
        default=None, description="Input tensor (INT32) that takes max_tokens; absent: the model's own limit holds."
    )
    tokens: TensorName | None = Field(default=None, description="Output tensor with the number of generated tokens, for `usage`.")
    template: Literal["LastMessage", "ChatML", "Messages"] = Field(
        default="LastMessage",
        description=(
            "How messages become a prompt: the last user message alone, ChatML text, or the messages as JSON for a model that"
            " applies a template of its own."
        ),
    )


class TaskRouteSpec(Spec):
    """What a person says of a route."""

    rules = (
        Rule(
            "!has(self.order) || self.order.all(name, self.order.exists_one(other, other == name))",
            lambda self: len(set(self.order)) == len(self.order),
            "a model is there twice",
            "order",
        ),
        Rule(
            "!has(self.anyTask) || !self.anyTask || has(self.candidates)",
            lambda self: not self.any_task or self.candidates is not None,
            "anyTask needs candidates: else every model of the namespace would be one",
            "candidates",
        ),
    )

    task: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = Field(
        description="The task; models of the route's namespace with this task are candidates."
    )
    candidates: LabelSelector | None = Field(default=None, description="Which of them, by the models' labels; absent: all.")
    any_task: bool = Field(
        default=False,
        description="Take every model that `candidates` selects, whatever its task: for a general model in reserve.",
    )
    min_quality: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0, description="What the route as a whole must reach; a candidate below it answers only what does not escalate."
    )
    order: Annotated[list[Name], Field(max_length=16)] = Field(
        default_factory=list,
        description="Models in the order they are asked; absent: by expected joules a request, the least first.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    escalation: Escalation = Field(default_factory=Escalation, description="When a bigger model is asked.")
    fallback: Name | None = Field(
        default=None, description="Route of the same namespace that is asked when no candidate of this one can answer."
    )
    timeout: PositiveDuration = Field(default="30s", description="A request's deadline where it brings none.")
    samples: Samples | None = Field(default=None, description="Labelled samples by which quality is estimated.")
    chat: Chat | None = Field(default=None, description="Serve OpenAI's chat API too; absent: KServe v2 alone.")


class Candidate(Spec):
    """One model of the route, in the order they are asked."""

    model: Name = Field(description="The model.")
    quality: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0, description="Quality of what is placed, else of its best variant."
    )
    joules_per_request: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Joules a request takes there: measured where it is asked, else by its operating point."
    )
    provenance: Provenance = Field(default="assumed", description="Where the joules come from.")
    state: Literal["Ready", "Asleep", "NotReady"] = Field(default="NotReady", description="Whether it answers now.")


class TaskRouteStatus(Spec):
    """What the operator says of a route."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(default=0, description="Generation this status is about.")
    conditions: Conditions = Field(default_factory=list)
    endpoint: Annotated[str, Field(max_length=512)] = Field(default="", description="Where the route answers in the cluster.")
    candidates: Annotated[list[Candidate], Field(max_length=16)] = Field(
        default_factory=list,
        description="Its models in the order they are asked.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    requests_per_second: Annotated[float, Field(ge=0)] = Field(default=0, description="Over the last minutes, rounded.")
    escalation_rate: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Share of the requests that a second model was asked for, over the last minutes, rounded."
    )
    allowed_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="Share that may escalate now: maxRate, or less while an energy budget is tight."
    )
    joules_per_request: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Of the route as a whole, escalations included, rounded."
    )
    quality: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Of the route as a whole on its samples, at the rate that escalates now; absent without samples.",
    )
