"""What is kept of energy over a restart, read piece by piece: one that is none of ours costs no other."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ergon.energy.budget import BudgetState
from ergon.energy.ledger_state import LedgerState
from ergon.engine.booked import ReplicaState

log = logging.getLogger("ergon.checkpoint")
State = TypeVar("State", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class KeptEnergy:
    """The ledger, None where it is not known; each budget's memory by name; and the counters up to which was booked."""

    ledger: LedgerState | None = None
    budgets: Mapping[str, BudgetState] = field(default_factory=dict)
    counters: tuple[ReplicaState, ...] = ()


def read_energy(state: Mapping[str, Any]) -> KeptEnergy:
    """From JSON. What cannot be read is said and left out."""
    budgets, counters = state.get("budgets"), state.get("counters")
    ledger = _read(LedgerState, "the ledger", state["ledger"]) if "ledger" in state else None
    named = budgets.items() if isinstance(budgets, Mapping) else ()
    found = [(str(name), _read(BudgetState, f"budget {name}", each)) for name, each in named]
    replicas = [_read(ReplicaState, "a replica's counters", each) for each in (counters if isinstance(counters, list) else ())]
    return KeptEnergy(
        ledger,
        {name: known for name, known in found if known is not None},
        tuple(replica for replica in replicas if replica is not None),
    )


def _read(kind: type[State], what: str, value: Any) -> State | None:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        log.warning("%s in the checkpoint is none of ours, so it is counted from now: %s", what, error.errors()[0]["msg"])
        return None
