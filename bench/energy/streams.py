"""Forty streams of requests by seed, each for two days before and one day that is measured.

Conversation and code repeat an hour of Azure's traces (tokens and all) from a place of their own, in blocks of ten minutes, and
are replayed faster or slower: by the stream's share of the traffic, and by the hour of the day. Encoders have the arrivals of the
conversations and texts of 384 tokens: that is synthetic.
"""

import gzip
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ergon.fleet.types import Model
from ergon.planning.arrays import Floats
from ergon.simulate.traces import Chunk, join
from ergon.simulate.workload import Workload, read_requests

DATA = Path(__file__).resolve().parents[1] / "data" / "energy"
DAY = 86400.0
HOUR = 3600.0
BLOCK_SECONDS = 600.0
ZIPF = 1.1
SWING = {"flat": 1.0, "3:1": 3.0, "10:1": 10.0}
TEXT_TOKENS, LABEL_TOKENS = 384.0, 10.0
LEARNT_DAYS = 2


@dataclass(frozen=True)
class Recorded:
    """An hour of requests."""

    seconds: Floats
    input_tokens: Floats
    output_tokens: Floats

    @classmethod
    def read(cls, kind: str) -> "Recorded":
        """`conv` or `code`; what is beyond the hour is cut."""
        with gzip.open(DATA / f"azure-llm-2023_{kind}.csv.gz", "rt") as file:
            table = np.loadtxt(file, delimiter=",", skiprows=1)
        table = table[table[:, 0] < HOUR]
        return cls(table[:, 0], table[:, 1], table[:, 2])


def rates(groups: list[int], totals: list[float], chance: np.random.Generator) -> Floats:
    """Mean requests per second of each stream: Zipf within each group, in an order by chance."""
    made = []
    for count, total in zip(groups, totals, strict=True):
        share = 1.0 / np.arange(1, count + 1) ** ZIPF
        made.append(chance.permutation(share / share.sum()) * total)
    return np.concatenate(made)


def one_day(
    recorded: Recorded, number: int, rate: float, swing: float, start: float, chance: np.random.Generator, text: bool
) -> Chunk:
    """A stream's requests of a day. Its peak lies within two hours of the others'."""
    blocks = int(HOUR / BLOCK_SECONDS)
    shift = float(chance.integers(blocks)) * BLOCK_SECONDS
    order = np.argsort((recorded.seconds + shift) % HOUR, kind="stable")
    hour = ((recorded.seconds + shift) % HOUR)[order]
    speed_up = rate / (len(hour) / HOUR)
    grid = np.linspace(0.0, DAY, 1441)
    peak = 14 * HOUR + chance.uniform(-1, 1) * HOUR
    shape = 1 + (swing - 1) * (0.5 + 0.5 * np.cos(2 * math.pi * (grid - peak) / DAY))
    shape /= shape[:-1].mean()
    played = np.concatenate([[0.0], np.cumsum((shape[1:] + shape[:-1]) / 2 * np.diff(grid))]) * speed_up
    times = math.ceil(played[-1] / HOUR)
    at = (np.arange(times)[:, None] * HOUR + hour[None, :]).ravel()
    which = np.tile(order, times)[at < played[-1]]
    seconds = start + np.interp(at[at < played[-1]], played, grid)
    many = len(seconds)
    if text:
        into, out = np.full(many, TEXT_TOKENS), np.full(many, LABEL_TOKENS)
    else:
        into, out = recorded.input_tokens[which], recorded.output_tokens[which]
    return Chunk(seconds, np.full(many, number), np.ones(many), into, out)


def build(models: tuple[Model, ...], kinds: list[str], totals: dict[str, float], shape: str, seed: int) -> Workload:
    """Three days of all streams. `kinds`: by model conv, code, text, or none; `totals`: requests per second of each kind."""
    recorded = {"conv": Recorded.read("conv"), "code": Recorded.read("code")}
    recorded["text"] = recorded["conv"]
    numbers = [n for kind in totals for n, k in enumerate(kinds) if k == kind]
    groups = [kinds.count(kind) for kind in totals]
    shares = rates(groups, list(totals.values()), np.random.default_rng([seed, 0]))

    def day_of(day: int) -> Chunk:
        chance = np.random.default_rng([seed, 1 + day])
        parts = [
            one_day(recorded[kinds[n]], n, float(rate), SWING[shape], day * DAY, chance, kinds[n] == "text")
            for n, rate in zip(numbers, shares, strict=True)
        ]
        return join(parts)

    def all_days() -> Iterator[Chunk]:
        yield from (day_of(day) for day in range(LEARNT_DAYS + 1))

    read = read_requests(models, all_days, 60.0)
    measured = day_of(LEARNT_DAYS)
    chunks: Callable[[], Iterator[Chunk]] = lambda: iter([measured])  # noqa: E731
    return Workload(models, read.steps, chunks, read.spans)
