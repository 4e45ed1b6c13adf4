"""A trace as a simulation reads it: what each step asked of each model, and the requests themselves, as often as wanted."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ergon.demand.peaks import SPAN_SECONDS
from ergon.fleet.types import Model
from ergon.planning.arrays import Floats
from ergon.simulate.traces import BadTrace, Chunk, join

KEPT_REQUESTS = 8_000_000
"""Up to so many requests are held in memory (40 bytes each); a longer trace is read anew for every run."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Requests, and tokens of them, by step (rows) and model (columns). The first step begins at `start_seconds`."""

    start_seconds: float
    step_seconds: float
    requests: Floats
    input_tokens: Floats
    output_tokens: Floats

    @property
    def end_seconds(self) -> float:
        """Where the last step ends."""
        return self.start_seconds + self.step_seconds * len(self.requests)

    def row(self, seconds: float) -> int:
        """The step that holds a time; before the first -1 or less."""
        return math.floor((seconds - self.start_seconds) / self.step_seconds + 1e-9)


@dataclass(frozen=True, slots=True)
class Workload:
    """What was asked. `chunks` gives the requests from the start each time it is called; None where the trace holds rates.

    `spans`: the same as `steps` in spans as short as those that peaks are of, where the trace tells.
    """

    models: tuple[Model, ...]
    steps: Steps
    chunks: Callable[[], Iterator[Chunk]] | None
    spans: Steps | None = None

    def work(self, rows: slice) -> Floats:
        """Work by step and model: requests, or for models that count tokens those, weighted."""
        return work_of(self.models, self.steps, rows)


def work_of(models: Sequence[Model], steps: Steps, rows: slice) -> Floats:
    """Work by step and model."""
    tokens = np.array([model.counts_tokens for model in models], bool)
    weight = np.array([model.input_weight for model in models])
    weighted = steps.output_tokens[rows] + weight * steps.input_tokens[rows]
    made: Floats = np.where(tokens, weighted, steps.requests[rows])
    return made


def read_requests(models: tuple[Model, ...], read: Callable[[], Iterable[Chunk]], step_seconds: float) -> Workload:
    """A workload of requests. Raises BadTrace where there are none, or a model that counts tokens has none in the trace."""
    kept: list[Chunk] = []
    count = 0
    columns = len(models)
    sums: list[Floats] = []
    start: float | None = None
    parts = max(1, round(step_seconds / SPAN_SECONDS))
    span_seconds = step_seconds / parts
    for chunk in read():
        count += len(chunk)
        if count <= KEPT_REQUESTS:
            kept.append(chunk)
        if start is None:
            start = math.floor(float(chunk.seconds[0]) / step_seconds) * step_seconds
        row = np.floor((chunk.seconds - start) / span_seconds).astype(np.int64)
        need = int(row[-1]) + 1
        while len(sums) < need:
            sums.append(np.zeros((3, columns)))
        first = int(row[0])
        cell = (row - first) * columns + chunk.model
        for place, weights in enumerate((chunk.rate, chunk.input_tokens, chunk.output_tokens)):
            counts = np.bincount(cell, weights, (need - first) * columns).reshape(-1, columns)
            for one, added in enumerate(counts, start=first):
                sums[one][place] += added
    if start is None:
        raise BadTrace("the trace holds no request of a model of the fleet")
    sums += [np.zeros((3, columns))] * (-len(sums) % parts)
    table = np.stack(sums)
    spans = Steps(start, span_seconds, table[:, 0], table[:, 1], table[:, 2])
    table = table.reshape(-1, parts, 3, columns).sum(axis=1)
    steps = Steps(start, step_seconds, table[:, 0], table[:, 1], table[:, 2])
    _refuse_without_tokens(models, steps)
    if count <= KEPT_REQUESTS:
        whole = join(kept)
        return Workload(models, steps, lambda: iter([whole]), spans)
    return Workload(models, steps, lambda: iter(read()), spans)


def read_rates(models: tuple[Model, ...], read: Callable[[], Iterable[Chunk]], step_seconds: float) -> Workload:
    """A workload of rates, brought to steps of `step_seconds`. Raises BadTrace as `read_requests`."""
    rows = join(list(read()))
    if not len(rows):
        raise BadTrace("the trace holds no rate of a model of the fleet")
    gaps = np.diff(np.unique(rows.seconds))
    file_step = float(gaps.min()) if len(gaps) else step_seconds
    start = math.floor(float(rows.seconds[0]) / step_seconds) * step_seconds
    count = max(1, math.ceil((float(rows.seconds[-1]) + file_step - start) / step_seconds - 1e-9))
    sums = np.zeros((3, count, len(models)))
    into = np.where(np.isnan(rows.input_tokens), np.nan, rows.input_tokens)
    parts = max(1, math.ceil(file_step / step_seconds - 1e-9))
    for part in range(parts):
        begin = rows.seconds + part * step_seconds
        length = np.minimum(file_step - part * step_seconds, step_seconds)
        row = np.minimum(np.floor((begin - start) / step_seconds).astype(np.int64), count - 1)
        requests = rows.rate * length
        np.add.at(sums[0], (row, rows.model), requests)
        np.add.at(sums[1], (row, rows.model), requests * into)
        np.add.at(sums[2], (row, rows.model), requests * rows.output_tokens)
    steps = Steps(start, step_seconds, sums[0], sums[1], sums[2])
    _refuse_without_tokens(models, steps)
    return Workload(models, steps, None)


def drawn_from_rates(workload: Workload, seed: int) -> Workload:
    """Requests drawn from rates: Poisson in each step, each with the step's mean tokens."""
    steps = workload.steps

    def draw() -> Iterator[Chunk]:
        chance = np.random.default_rng(seed)
        for row in range(len(steps.requests)):
            counts = chance.poisson(steps.requests[row])
            total = int(counts.sum())
            if not total:
                continue
            model = np.repeat(np.arange(len(counts)), counts)
            seconds = steps.start_seconds + (row + chance.random(total)) * steps.step_seconds
            mean = np.maximum(steps.requests[row], 1e-300)
            chunk = Chunk(
                seconds, model, np.ones(total), (steps.input_tokens[row] / mean)[model], (steps.output_tokens[row] / mean)[model]
            )
            yield chunk.part(np.argsort(seconds, kind="stable"))

    return Workload(workload.models, steps, draw)


def _refuse_without_tokens(models: Sequence[Model], steps: Steps) -> None:
    asked = steps.requests.sum(axis=0) > 0
    told = ~np.isnan(steps.output_tokens.sum(axis=0) + steps.input_tokens.sum(axis=0))
    for model, is_asked, is_told in zip(models, asked, told, strict=True):
        if model.counts_tokens and is_asked and not is_told:
            raise BadTrace(
                f"{model.key} counts tokens (its profiles say tokensPerSecond), and the trace does not say input_tokens and "
                "output_tokens of its requests; add the columns"
            )
