"""`bound`: what no way of running the fleet can draw less than, by the planner's law of power."""

from dataclasses import replace

import numpy as np

from ergon.fleet.types import Fleet
from ergon.planning import Effort, plan
from ergon.planning.arrays import Floats
from ergon.simulate.job import Job
from ergon.simulate.results import Accounts, ModelResult, Result, Series

BOUND_SECONDS = 300.0
_BOUND_EFFORT = Effort(caps=0, closings=0, rounds=0, fills=(1.0,))


def bound(job: Job, fleet: Fleet, work: Floats, rows: slice) -> Result:
    """The planner's lower bound, a plan's free of cold starts, hold times and moves, for the mean of every five minutes.

    `work`: per second, by step of `rows` (rows) and model (columns).
    """
    models, step = fleet.models, job.workload.steps.step_seconds
    every = max(1, round(BOUND_SECONDS / step))
    began = job.clock()
    watts = np.zeros(len(work))
    for row in range(0, len(work), every):
        part = work[row : row + every].mean(axis=0)
        demand = {model.key: float(asked) for model, asked in zip(models, part, strict=True)}
        made = plan(replace(fleet, demand=demand, current=()), effort=_BOUND_EFFORT)
        watts[row : row + every] = made.lower_bound_watts
        job.progress("bound", row / len(work))
    steps = job.workload.steps
    requests = steps.requests[rows]
    none = np.zeros((len(watts), len(fleet.pools)))
    nans = np.full(len(watts), np.nan)
    return Result(
        policy="bound",
        mode=job.mode,
        seed=job.seed,
        seconds=job.end - job.begin,
        models=tuple(
            ModelResult(str(model.key), round(float(asked)), round(float(asked)), 0, None, None, None, None, 0.0)
            for model, asked in zip(models, requests.sum(axis=0), strict=True)
        ),
        accounts=Accounts(float(watts.sum()) * step, 0.0, 0.0, 0.0, 0.0, 0.0),
        pools=tuple(pool.name for pool in fleet.pools),
        pool_joules=(0.0,) * len(fleet.pools),
        series=Series(
            job.begin + step * np.arange(1, len(watts) + 1, dtype=float),
            requests.sum(axis=1) / step,
            nans,
            watts,
            nans,
            none,
            none,
            nans,
        ),
        loads=0,
        unloads=0,
        boots=0,
        worst_window=1.0,
        solver_seconds=job.clock() - began,
        notes=("a lower bound by the planner's law of power, not a way to run a fleet; its joules are one sum",),
    )
