"""The ledger's memory, small and bounded, as a document that another process takes up."""

from pydantic import BaseModel, ConfigDict, Field

from ergon.energy.meters import MetersState
from ergon.energy.split import SplitterState

AccountState = tuple[float, float]
"""Joules, and how many of them were assumed."""


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class DeviceState(_State):
    """A device: its meters (None: by profile), its recent mix, seconds and idle joules not booked yet, watts by profile."""

    pool: str
    meters: MetersState | None = None
    split: SplitterState = SplitterState()
    open: float = 0.0
    idle: float = 0.0
    idle_watts: float = 0.0
    expected_watts: float = 0.0


class ModelState(_State):
    """A model's account."""

    namespace: str
    name: str
    account: AccountState
    requests: float = 0.0
    work: float = 0.0


class LedgerState(_State):
    """All of it at `wall_seconds` since the epoch. Raises pydantic's ValidationError where a document is none of ours."""

    wall_seconds: float
    pools: dict[str, dict[str, AccountState]] = Field(default_factory=dict)
    gone_pools: dict[str, AccountState] = Field(default_factory=dict)
    models: tuple[ModelState, ...] = ()
    other_models: AccountState = (0.0, 0.0)
    devices: dict[str, DeviceState] = Field(default_factory=dict)
