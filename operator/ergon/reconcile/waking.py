"""What a gateway that asks for a model to be woken is answered. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ergon.fleet.types import Model, ModelKey


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a JSON body. `wakes`: whether the model is to be planned for."""

    code: int
    body: dict[str, Any]
    wakes: bool = False


def wake_answer(key: ModelKey, model: Model | None, conditions: Iterable[Mapping[str, Any]] | None, answering: int) -> Answer:
    """202 while it is on its way or answers; 409 with the model's own reason where waking cannot help; 404 where it is none.

    `conditions`: those of its status, None: there is no such object. A model that is refused, or that failed for good, stays
    planned for: what ails it may pass.
    """
    if conditions is None:
        return Answer(404, {"reason": "NotFound", "message": f"there is no SpecializedModel {key}"})
    if answering:
        return Answer(202, {"state": "Ready"}, wakes=True)
    by_type = {condition.get("type"): condition for condition in conditions}
    accepted = by_type.get("Accepted", {})
    if model is None or accepted.get("status") == "False":
        return _refused(accepted, "NotAccepted", f"{key} is not accepted")
    if model.fixed_replicas == 0:
        return Answer(409, {"reason": "ScaledToZero", "message": f"{key} is scaled to zero: spec.replicas is 0"})
    stalled = by_type.get("Stalled", {})
    if stalled.get("status") == "True":
        placed = by_type.get("Placed", {})
        telling = placed if placed.get("status") == "False" else stalled
        return Answer(409, _reason(telling, "Stalled", f"{key} cannot be served"), wakes=True)
    return Answer(202, {"state": "Waking"}, wakes=True)


def _refused(condition: Mapping[str, Any], reason: str, message: str) -> Answer:
    return Answer(409, _reason(condition, reason, message))


def _reason(condition: Mapping[str, Any], reason: str, message: str) -> dict[str, Any]:
    return {"reason": condition.get("reason") or reason, "message": condition.get("message") or message}
