"""What every kind shares: the base of spec objects, bounded strings, selectors and conditions."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ergon.api.quantities import (
    DURATION_PATTERN,
    DURATION_WORDS,
    LEAST_QUANTITY,
    POSITIVE_DURATION_WORDS,
    QUANTITY_PATTERN,
    QUANTITY_WORDS,
    duration_seconds,
    quantity_bytes,
)
from ergon.api.rules import Rule, Transition

GROUP = "ergon.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


class Spec(BaseModel):
    """Base of everything a person writes: camelCase in YAML, unknown fields of newer schemas ignored, frozen.

    Strict, as the API server is: "100" is no number, and "yes" no boolean.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, strict=True)
    rules: ClassVar[tuple[Rule, ...]] = ()
    transitions: ClassVar[tuple[Transition, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_the_api_server_reads(cls, data: Any) -> Any:
        """A null is dropped, so that the default applies, and 8.0 is an integer."""
        if not isinstance(data, dict):
            return data
        whole = {key: int(value) for key, value in data.items() if isinstance(value, float) and value.is_integer()}
        return {key: value for key, value in (data | whole).items() if value is not None}

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        for rule in type(self).rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        validations = [rule.validation() for rule in cls.rules] + [rule.validation() for rule in cls.transitions]
        if validations:
            schema["x-kubernetes-validations"] = validations
        return schema


# Patterns are rules in the schema: a pattern's refusal shows the pattern, a rule's says what to write.
def _rule(cel: str, message: str) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": cel, "message": message}]}


def _quantity(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        quantity_bytes(value)
    return value


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        duration_seconds(value)
    return value


def _positive_duration(value: Any) -> Any:
    if isinstance(value, str) and duration_seconds(value) == 0:
        raise ValueError(f"{value!r} is no time at all; {POSITIVE_DURATION_WORDS}")
    return value


def _distinct(items: list[Any]) -> list[Any]:
    if len(set(items)) != len(items):
        raise ValueError("an item is there twice")
    return items


_IS_QUANTITY = f"self.matches(r'{QUANTITY_PATTERN}') && quantity(self).compareTo(quantity('{LEAST_QUANTITY}')) >= 0"
_IS_DURATION = f"self.matches(r'{DURATION_PATTERN}')"
Quantity = Annotated[
    str,
    Field(
        max_length=32,
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "minimum": LEAST_QUANTITY,  # of the integer form; the rule is the string's
            **_rule(f"type(self) != string || ({_IS_QUANTITY})", QUANTITY_WORDS),
        },
    ),
    BeforeValidator(_quantity),
]
Duration = Annotated[str, Field(max_length=24, json_schema_extra=_rule(_IS_DURATION, DURATION_WORDS)), BeforeValidator(_duration)]
PositiveDuration = Annotated[
    str,
    Field(max_length=24, json_schema_extra=_rule(f"{_IS_DURATION} && self.matches('[1-9]')", POSITIVE_DURATION_WORDS)),
    BeforeValidator(_positive_duration),
]
Distinct = AfterValidator(_distinct)
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=NAME_PATTERN)]
AcceleratorClass = Literal["gpu", "tpu", "npu", "cpu"]
Provenance = Literal["measured", "derived", "assumed"]
FreeForm = Annotated[dict[str, Any], Field(max_length=64, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


class SelectorRequirement(Spec):
    """One expression of a label selector."""

    rules = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            lambda self: (self.operator in ("In", "NotIn")) == bool(self.values),
            "In and NotIn need values; Exists and DoesNotExist take none",
            "values",
        ),
    )

    key: Annotated[str, Field(max_length=317, description="Label key the requirement is about.")]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How the label's value is judged.")
    values: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=32)] = Field(
        default_factory=list, description="Values for In and NotIn; empty for Exists and DoesNotExist."
    )


class LabelSelector(Spec):
    """A Kubernetes label selector; the empty one selects everything."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = Field(
        default_factory=dict, description="Labels that must have exactly these values."
    )
    match_expressions: Annotated[list[SelectorRequirement], Field(max_length=32)] = Field(
        default_factory=list, description="Requirements that must all hold."
    )

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _holds(requirement, labels) for requirement in self.match_expressions
        )


def _holds(requirement: SelectorRequirement, labels: dict[str, str]) -> bool:
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case "DoesNotExist":
            return requirement.key not in labels


class Condition(Spec):
    """One line of truth about an object, in the form of metav1.Condition."""

    type: Annotated[str, Field(max_length=64, description="What the condition is about.")]
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, Field(max_length=64, description="Why, as one CamelCase word of a closed set.")]
    message: Annotated[str, Field(max_length=1024, description="Why, for a person.")] = ""
    last_transition_time: str = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}, max_length=40
    )
    observed_generation: Annotated[int, Field(ge=0, description="The generation of the spec that was judged.")] = 0


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="The object's state, one condition a type.",
    ),
]
