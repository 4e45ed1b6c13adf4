"""EnergyBudget: a limit in watts, kilowatt-hours or grams of CO2 over a scope of pools and namespaces."""

from typing import Annotated, Literal

from pydantic import Field

from ergon.api.rules import Rule
from ergon.api.types import Conditions, LabelSelector, Provenance, Spec


class Limits(Spec):
    """What the scope may use; at least one of the three."""

    rules = (
        Rule(
            "has(self.watts) || has(self.kilowattHours) || has(self.carbonGrams)",
            lambda self: (self.watts, self.kilowatt_hours, self.carbon_grams) != (None, None, None),
            "at least one of watts, kilowattHours and carbonGrams is needed",
        ),
        Rule(
            "has(self.window) || !(has(self.kilowattHours) || has(self.carbonGrams))",
            lambda self: self.window is not None or (self.kilowatt_hours is None and self.carbon_grams is None),
            "kilowattHours and carbonGrams need a window: Hour, Day, Week or Month",
            "window",
        ),
        Rule(
            "!has(self.window) || has(self.kilowattHours) || has(self.carbonGrams)",
            lambda self: self.window is None or self.kilowatt_hours is not None or self.carbon_grams is not None,
            "a window is for kilowattHours and carbonGrams; watts hold at every moment",
            "window",
        ),
    )

    watts: Annotated[float, Field(gt=0, le=1e9)] | None = Field(default=None, description="Watts, as a mean over 60 s.")
    kilowatt_hours: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="Kilowatt-hours in a window; needs window."
    )
    carbon_grams: Annotated[float, Field(gt=0, le=1e12)] | None = Field(
        default=None, description="Grams of CO2 in a window; needs window."
    )
    window: Literal["Hour", "Day", "Week", "Month"] | None = Field(default=None, description="Calendar window of the limits.")
    time_zone: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")] = Field(
        default="UTC", description="IANA time zone of the window."
    )


class EnergyBudgetSpec(Spec):
    """What a person says of a budget."""

    pools: LabelSelector | None = Field(default=None, description="Pools in scope; absent: all.")
    namespaces: LabelSelector | None = Field(default=None, description="Namespaces in scope; absent: all.")
    limits: Limits = Field(description="What the scope may use; at least one of watts, kilowattHours and carbonGrams.")
    enforcement: Literal["Enforce", "Observe"] = Field(default="Enforce", description="Hold the limit, or only report.")
    shed_below_priority: Annotated[int, Field(ge=0, le=1001)] = Field(
        default=0, description="Models of a lower priority may be shed to hold the limit."
    )


class EnergyBudgetStatus(Spec):
    """What the operator says of a budget."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(default=0, description="Generation this status is about.")
    conditions: Conditions = Field(default_factory=list)
    used: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Used in the window, in the limit's unit.")
    projected: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Projected for the window's end.")
    allowance: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Allowed up to now.")
    provenance: Provenance | None = Field(default=None, description="Where the figures come from.")
