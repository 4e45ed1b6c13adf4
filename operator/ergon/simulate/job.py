"""What is asked of a simulation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ergon.fleet.types import Fleet, ModelKey
from ergon.planning import Effort
from ergon.simulate.policies.ergon import PLAN_SECONDS
from ergon.simulate.settings import Settings
from ergon.simulate.workload import Workload

Mode = Literal["requests", "rate"]


@dataclass(frozen=True, slots=True)
class Job:
    """What to simulate: [begin, end) of a workload; what came before may be learnt from. `clock` gives CPU seconds.

    `effort` of planning, the normal one if absent; `improve_seconds`: how often Ergon seeks better places, beyond mending.
    """

    fleet: Fleet
    workload: Workload
    settings: Settings
    mode: Mode
    seed: int
    begin: float
    end: float
    general: ModelKey | None = None
    effort: Effort | None = None
    improve_seconds: float = PLAN_SECONDS
    clock: Callable[[], float] = lambda: 0.0
    progress: Callable[[str, float], None] = lambda what, share: None
