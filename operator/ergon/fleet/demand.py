"""A demand that a person wrote: `{models: {"namespace/name": work per second}}`."""

import math
from collections.abc import Collection
from typing import Any

from ergon.fleet.types import ModelKey

LARGEST_DEMAND = 1e12
"""Work per second beyond which a figure is taken for a mistake."""


def read_demand(content: Any, known: Collection[ModelKey]) -> tuple[dict[ModelKey, float], list[str]]:
    """Work per second by model, and one sentence for every entry that is wrong. `known` are the models there are."""
    if not isinstance(content, dict) or not isinstance(content.get("models"), dict):
        return {}, ['must be a map such as {models: {"namespace/name": 12.5}}, in work per second']
    demand: dict[ModelKey, float] = {}
    problems = [f"{key}: unknown field; only models is read" for key in content if key != "models"]
    for name, work in content["models"].items():
        key = model_key(name)
        wrong = _wrong(name, key, work, known)
        if wrong:
            problems.append(f"models.{name}: {wrong}")
        elif key is not None:
            demand[key] = float(work)
    return demand, problems


def model_key(name: Any) -> ModelKey | None:
    """The model behind `namespace/name`, or None where the text is not of that form."""
    namespace, slash, rest = name.partition("/") if isinstance(name, str) else ("", "", "")
    return ModelKey(namespace, rest) if slash and namespace and rest and "/" not in rest else None


def _wrong(name: Any, key: ModelKey | None, work: Any, known: Collection[ModelKey]) -> str:
    if key is None:
        return 'a model is named "namespace/name"'
    if key not in known:
        return "there is no such model; correct the name or remove the line"
    if isinstance(work, bool) or not isinstance(work, int | float):
        return f"{str(work)[:40]!r} is not a number; write work per second, such as 12.5"
    if isinstance(work, float) and math.isnan(work):
        return "is not a number; write work per second, such as 12.5"
    if work < 0:
        return f"{str(work)[:40]} is negative; write 0 or more"
    if work > LARGEST_DEMAND:
        return f"is more than {LARGEST_DEMAND:g} work per second; write a smaller figure"
    return ""
