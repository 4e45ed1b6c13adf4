"""From what the API server or a file holds to a spec, or to one sentence a person can act on. Never raises."""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from ergon.api.budget import EnergyBudgetSpec
from ergon.api.model import SpecializedModelSpec
from ergon.api.pool import RESERVED_NAMES, RESERVED_WORDS, AcceleratorPoolSpec
from ergon.api.route import TaskRouteSpec
from ergon.api.types import NAME_PATTERN, Spec

_SPEC = TypeVar("_SPEC", bound=Spec)
_SHOWN = 3
_MODEL_NAME_LENGTH = 63
_POOL_NAME_LENGTH = 40
_OBJECT_NAME_LENGTH = 253


@dataclass(frozen=True)
class InvalidObject:
    """An object that cannot be understood. `field` is the first that is wrong; `message` names up to three, with what to do."""

    kind: str
    namespace: str
    name: str
    field: str
    message: str


def parse_model(obj: Any) -> SpecializedModelSpec | InvalidObject:
    """The spec of a SpecializedModel."""
    return _parse(obj, "SpecializedModel", SpecializedModelSpec, _MODEL_NAME_LENGTH)


def parse_pool(obj: Any) -> AcceleratorPoolSpec | InvalidObject:
    """The spec of an AcceleratorPool."""
    return _parse(obj, "AcceleratorPool", AcceleratorPoolSpec, _POOL_NAME_LENGTH)


def parse_budget(obj: Any) -> EnergyBudgetSpec | InvalidObject:
    """The spec of an EnergyBudget."""
    return _parse(obj, "EnergyBudget", EnergyBudgetSpec, _OBJECT_NAME_LENGTH)


def parse_route(obj: Any) -> TaskRouteSpec | InvalidObject:
    """The spec of a TaskRoute."""
    return _parse(obj, "TaskRoute", TaskRouteSpec, _MODEL_NAME_LENGTH)


def _parse(obj: Any, kind: str, spec_type: type[_SPEC], name_length: int) -> _SPEC | InvalidObject:
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    namespace, name = _text(metadata.get("namespace")), _text(metadata.get("name"))
    problem = _name_problem(name, name_length, strict=kind != "EnergyBudget")
    if kind == "AcceleratorPool" and name in RESERVED_NAMES:
        problem = RESERVED_WORDS
    if problem:
        return InvalidObject(kind, namespace, name, "metadata.name", f"metadata.name: {problem}")
    try:
        return spec_type.model_validate(obj.get("spec"))
    except ValidationError as error:
        problems = [(_path(item["loc"]), _sentence(item)) for item in error.errors(include_url=False, include_context=False)]
    except (RecursionError, OverflowError) as error:
        problems = [("spec", f"cannot be read ({type(error).__name__})")]
    shown = [f"{field}: {sentence}" for field, sentence in problems[:_SHOWN]]
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return InvalidObject(kind, namespace, name, problems[0][0], "; ".join([*shown, *more])[:1024])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _name_problem(name: str, length: int, *, strict: bool) -> str:
    if not name:
        return "is missing"
    if len(name) > length:
        return f"has {len(name)} characters; at most {length} are possible"
    if strict and not re.fullmatch(NAME_PATTERN.strip("^$"), name):
        return f"{name[:63]!r} must be lower-case letters, digits and '-', begin with a letter and not end with '-'"
    return ""


def _path(location: tuple[int | str, ...]) -> str:
    path = "spec"
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path[:256]


def _sentence(item: Any) -> str:
    """pydantic's message in the words of YAML."""
    match item["type"]:
        case "missing":
            return "is required"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a map"
        case "value_error":
            return str(item["msg"]).removeprefix("Value error, ")
        case _:
            text = re.sub(r"^(Input|String|List|Dictionary|Value) should", "must", str(item["msg"]))
            return text[:1].lower() + text[1:]
