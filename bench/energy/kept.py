"""What is kept of a simulated run: its figures in one file, so that a bench that was ended goes on where it was."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.energy import thresholds
from ergon.simulate.results import Result


@dataclass(frozen=True)
class Kept:
    """One policy on one day. Shares are of requests within their target; `watts` by account, means at the wall but for pue."""

    policy: str
    seed: int
    kwh: float
    within: float
    worst_model: str
    worst_model_within: float
    worst_window: float
    refused: int
    mean_watts: float
    planned_watts: float | None
    servers: dict[str, float]
    watts: dict[str, float]
    loads: int
    boots: int
    size: str
    solver_seconds: float
    cpu_seconds: float

    @classmethod
    def of(cls, result: Result, cpu_seconds: float) -> "Kept":
        """The figures of a result."""
        worst, accounts = result.worst_model, result.accounts
        planned = result.series.planned_watts[~np.isnan(result.series.planned_watts)]
        parts = {name: getattr(accounts, name) for name in ("execution", "awake", "idle", "host", "loading", "pue")}
        return cls(
            policy=result.policy,
            seed=result.seed,
            kwh=accounts.kwh,
            within=result.within_share,
            worst_model=worst.name if worst is not None else "",
            worst_model_within=worst.within_share if worst is not None else 1.0,
            worst_window=result.worst_window,
            refused=result.refused,
            mean_watts=result.mean_watts,
            planned_watts=float(planned.mean()) if len(planned) else None,
            servers=dict(zip(result.pools, result.series.servers.mean(axis=0).tolist(), strict=True)),
            watts={name: joules / result.seconds for name, joules in parts.items()},
            loads=result.loads,
            boots=result.boots,
            size=result.size,
            solver_seconds=result.solver_seconds,
            cpu_seconds=cpu_seconds,
        )

    @property
    def in_time(self) -> bool:
        """Whether it keeps its targets, so that it can be compared."""
        return self.within >= thresholds.LEAST_WITHIN and self.worst_model_within >= thresholds.LEAST_WITHIN_EACH

    def write(self, path: Path) -> None:
        """Put the figures into a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Kept | None":
        """The figures of a file; None where there is none."""
        return cls(**json.loads(path.read_text())) if path.exists() else None
