"""What was asked, and when: lines of CSV to sorted chunks of arrays, in bounded memory, with a counted warning for what is wrong.

Two kinds, told by the header. Requests: `time_s,model[,input_tokens,output_tokens]`, one line a request, in the order of time but
for a few thousand lines. Rates: `time_s,model,requests_per_s[,input_tokens,output_tokens]`, a line a model and step of the file
(the least distance between its times); a step without a line had no requests, tokens are means of a request.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ergon.planning.arrays import Floats, Ints

BLOCK = 65536
"""Lines that are read, and sorted, at a time: a line may be late by so many lines."""

HOLE_SECONDS = 3600.0
"""So long without any line is told: traffic seldom stops."""

Lines = Callable[[], Iterable[str]]


class BadTrace(Exception):
    """A trace that cannot be used at all; the message is one line for a person."""


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A file by name, and how to read its lines, from the start each time."""

    name: str
    lines: Lines


@dataclass(frozen=True, slots=True)
class Chunk:
    """Requests in the order of time, one entry each. Tokens are NaN where the trace has none; `rate` is 1 for requests, and
    requests per second for rates."""

    seconds: Floats
    model: Ints
    rate: Floats
    input_tokens: Floats
    output_tokens: Floats

    def __len__(self) -> int:
        return len(self.seconds)

    def part(self, which: slice | Ints) -> "Chunk":
        """Some of the entries."""
        return Chunk(
            self.seconds[which], self.model[which], self.rate[which], self.input_tokens[which], self.output_tokens[which]
        )


@dataclass
class Warnings:
    """What was wrong and left out, counted by kind, with the first place of each."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, where: str) -> None:
        """One more of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, where)

    def sentences(self) -> list[str]:
        """One line a kind."""
        return [f"{self.first[kind]}: {kind}" + (f" ({count} times)" if count > 1 else "") for kind, count in self.counts.items()]


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a header has which column; -1: nowhere."""

    seconds: int
    model: int
    rate: int
    input_tokens: int
    output_tokens: int

    @property
    def holds_rates(self) -> bool:
        """Whether lines are rates rather than requests."""
        return self.rate >= 0


def read_header(file: TraceFile) -> Columns:
    """The columns of a file. Raises BadTrace."""
    first = next(iter(file.lines()), "")
    names = [name.strip().strip('"').lower() for name in first.lstrip("\ufeff").strip().split(",")]
    for needed in ("time_s", "model"):
        if needed not in names:
            raise BadTrace(
                f"{file.name}, line 1: no column {needed}; a trace begins with time_s,model[,input_tokens,output_tokens] for "
                "requests, or time_s,model,requests_per_s for rates"
            )
    at = {name: names.index(name) for name in names}
    return Columns(
        seconds=at["time_s"],
        model=at["model"],
        rate=at.get("requests_per_s", -1),
        input_tokens=at.get("input_tokens", -1),
        output_tokens=at.get("output_tokens", -1),
    )


class ModelNames:
    """Finds a model's number by `namespace/name`, by `namespace.name`, or by its name alone where only one has it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._numbers: dict[str, int] = {}
        alone: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            self._numbers[name] = self._numbers[name.replace("/", ".", 1)] = number
            alone.setdefault(name.partition("/")[2], []).append(number)
        for name, found in alone.items():
            if len(found) == 1:
                self._numbers.setdefault(name, found[0])

    @property
    def numbers(self) -> Mapping[str, int]:
        """By every name a trace may use."""
        return self._numbers


def read_chunks(files: Sequence[TraceFile], names: ModelNames, warnings: Warnings) -> Iterator[Chunk]:
    """The entries of all files, merged in the order of time. Raises BadTrace for a header, or for files of both kinds."""
    columns = [read_header(file) for file in files]
    if len({c.holds_rates for c in columns}) > 1:
        raise BadTrace(f"{files[0].name} and {files[1].name}: one holds requests and another rates; give traces of one kind")
    streams = [_sorted(_parsed(f, c, names.numbers, warnings), f.name, warnings) for f, c in zip(files, columns, strict=True)]
    yield from _told_of_holes(_merged(streams), files[0].name if files else "", warnings)


def _parsed(file: TraceFile, columns: Columns, numbers: Mapping[str, int], warnings: Warnings) -> Iterator[Chunk]:
    lines = iter(file.lines())
    next(lines, None)
    rows: list[tuple[float, int, float, float, float]] = []
    at, who, rate_at = columns.seconds, columns.model, columns.rate
    into, out = columns.input_tokens, columns.output_tokens
    unknown: set[str] = set()
    nan = math.nan
    for number, line in enumerate(lines, 2):
        parts = line.split(",")
        try:
            seconds = float(parts[at])
            model = numbers.get(parts[who].strip())
            rate = float(parts[rate_at]) if rate_at >= 0 else 1.0
            read = (seconds, model or 0, rate, float(parts[into]) if into >= 0 else nan, float(parts[out]) if out >= 0 else nan)
            if not math.isfinite(seconds + rate) or rate < 0 or read[3] < 0 or read[4] < 0:
                raise ValueError
        except (ValueError, IndexError):
            if line.strip():
                warnings.note("a line cannot be read and is left out", f"{file.name}, line {number}")
            continue
        if model is None:
            name = parts[who].strip()[:80]
            unknown.add(name)
            warnings.note(
                f"no model {name!r} is in the fleet; its lines are left out" if len(unknown) <= 10 else
                "more models are not in the fleet; their lines are left out",
                f"{file.name}, line {number}",
            )  # fmt: skip
            continue
        rows.append(read)
        if len(rows) == BLOCK:
            yield _chunk(rows)
            rows = []
    if rows:
        yield _chunk(rows)


def _chunk(rows: list[tuple[float, int, float, float, float]]) -> Chunk:
    table = np.array(rows, float)
    return Chunk(table[:, 0], table[:, 1].astype(np.int64), table[:, 2], table[:, 3], table[:, 4])


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Several chunks as one, in the order of time."""
    if not chunks:
        none = np.zeros(0)
        return Chunk(none, np.zeros(0, np.int64), none, none, none)
    whole = Chunk(
        np.concatenate([c.seconds for c in chunks]),
        np.concatenate([c.model for c in chunks]),
        np.concatenate([c.rate for c in chunks]),
        np.concatenate([c.input_tokens for c in chunks]),
        np.concatenate([c.output_tokens for c in chunks]),
    )
    return whole.part(np.argsort(whole.seconds, kind="stable"))


def _sorted(chunks: Iterable[Chunk], name: str, warnings: Warnings) -> Iterator[Chunk]:
    """In the order of time: one block is held back, so that lines may be late by a block; later ones are left out."""
    held: Chunk | None = None
    reached = -math.inf
    for chunk in chunks:
        block = join([held, chunk] if held is not None else [chunk])
        late = int(np.searchsorted(block.seconds, reached, side="left"))
        if late:
            for _ in range(late):
                warnings.note(f"a line comes more than {BLOCK} lines too late and is left out", name)
            block = block.part(slice(late, None))
        cut = max(0, len(block) - BLOCK)
        held = block.part(slice(cut, None))
        if cut:
            reached = float(block.seconds[cut - 1])
            yield block.part(slice(0, cut))
    if held is not None and len(held):
        yield held


def _merged(streams: Sequence[Iterator[Chunk]]) -> Iterator[Chunk]:
    """Sorted streams as one: each step gives out what no stream can still go below."""
    if len(streams) == 1:
        yield from streams[0]
        return
    waiting: dict[int, Chunk] = {}
    live = dict(enumerate(streams))
    while True:
        for number in list(live):
            if number not in waiting or not len(waiting[number]):
                following = next(live[number], None)
                if following is None:
                    del live[number]
                    waiting.pop(number, None)
                else:
                    waiting[number] = following
        if not waiting:
            return
        until = min(float(waiting[number].seconds[-1]) for number in waiting)
        out = []
        for number, chunk in waiting.items():
            cut = int(np.searchsorted(chunk.seconds, until, side="right"))
            out.append(chunk.part(slice(0, cut)))
            waiting[number] = chunk.part(slice(cut, None))
        yield join(out)


def _told_of_holes(chunks: Iterable[Chunk], name: str, warnings: Warnings) -> Iterator[Chunk]:
    before: float | None = None
    for chunk in chunks:
        if not len(chunk):
            continue
        times = chunk.seconds if before is None else np.concatenate([[before], chunk.seconds])
        for at in np.flatnonzero(np.diff(times) > HOLE_SECONDS):
            hours = float(times[at + 1] - times[at]) / 3600
            warnings.note(f"no line for {hours:.1f} hours, from {times[at]:.0f} s on; taken as no requests", name)
        before = float(chunk.seconds[-1])
        yield chunk
