"""From Triton's counters to what happened between two looks: rates that survive resets, gaps, lies and clock steps."""

import math
from dataclasses import dataclass

LONGEST_STEP_SECONDS = 60.0
"""Between two looks; a longer one is a gap: its mean is right, its course is not known."""

LONGEST_SPREAD_SECONDS = 3600.0
"""How far back busy seconds are spread at most. No execution of a served model takes longer."""

_SLACK = 1.05
"""Busy seconds may exceed wall x instances by so much: the server's clock and the reader's are two."""


@dataclass(frozen=True, slots=True)
class BatchCounters:
    """Executions of one batch size (rows) and the seconds they took, each execution once, summed over instances."""

    size: int
    executions: int
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Counters:
    """One replica's counters since it was loaded, as read at `at_seconds` (a clock that never steps back).

    Requests: `succeeded`, `failed`. `executions` and `rows` of the backend. `queue_seconds` and `request_seconds` are summed
    over succeeded requests. `batches`: Triton's `batch_stats`, the only exact busy time there is. `pending`: requests waiting
    now, None where not known. `epoch` names what is loaded where the caller knows it (pod and revision): another one starts at
    0.
    """

    at_seconds: float
    succeeded: int = 0
    failed: int = 0
    executions: int = 0
    rows: int = 0
    queue_seconds: float = 0.0
    request_seconds: float = 0.0
    batches: tuple[BatchCounters, ...] = ()
    pending: int | None = None
    epoch: str = ""

    @property
    def busy_seconds(self) -> float:
        """Seconds inside the backend, each execution once, summed over instances."""
        return math.fsum(batch.busy_seconds for batch in self.batches)

    @property
    def sound(self) -> bool:
        """Whether these can be counters: finite and not negative."""
        figures = [self.at_seconds, self.succeeded, self.failed, self.executions, self.rows, self.pending or 0]
        figures += [self.queue_seconds, self.request_seconds]
        for batch in self.batches:
            figures += [batch.size, batch.executions, batch.busy_seconds]
        return all(0 <= figure < 1e18 for figure in figures)  # NaN compares False


@dataclass(frozen=True, slots=True)
class Window:
    """What one replica did in the `seconds` before `end_seconds`; a counter that fell to 0 counts from there.

    `busy_seconds` belong to the last `spread_seconds` before the end: longer than the window where executions ended that began
    before it. `complete` is False where something may be missing (a gap, a reset). `queue_seconds` and `request_seconds` are
    means of the requests that succeeded, None where none did. `pending_growth` is by how much the waiting line grew.
    """

    end_seconds: float
    seconds: float
    succeeded: int
    failures: int
    executions: int
    rows: int
    busy_seconds: float
    spread_seconds: float
    batches: tuple[BatchCounters, ...]
    queue_seconds: float | None
    request_seconds: float | None
    pending: int | None
    pending_growth: int
    complete: bool

    @property
    def completed(self) -> int:
        """Requests that were answered, well or not."""
        return self.succeeded + self.failures

    @property
    def arrivals(self) -> int:
        """Requests that came: those answered, and those by which the waiting line grew."""
        return max(0, self.completed + self.pending_growth)

    @property
    def achieved_batch(self) -> float | None:
        """Requests in an execution, on average; None where none was executed or none answered."""
        return max(1.0, self.completed / self.executions) if self.executions and self.completed else None

    @property
    def rows_per_request(self) -> float:
        """Rows of one request, on average; 1 where nothing tells."""
        return max(1.0, self.rows / self.completed) if self.completed else 1.0

    def busy_share(self, instances: int = 1) -> float:
        """The part of the time that busy seconds belong to in which `instances` were executing, 0 to 1."""
        return min(1.0, self.busy_seconds / (self.spread_seconds * max(1, instances)))


def difference(
    old: Counters | None, new: Counters | None, instances: int = 1, longest_step_seconds: float = LONGEST_STEP_SECONDS
) -> Window | None:
    """What happened from `old` to `new`; None where that cannot be known.

    None: a series that is there for the first time or has gone, a time that did not advance, figures that are no counters, or
    counters that fell without having been reset (then more was executed than the time since `old` can hold). The caller goes on
    from `old` after such a lie, and from `new` in all other cases.
    """
    if old is None or new is None or not old.sound or not new.sound or new.at_seconds <= old.at_seconds:
        return None
    seconds = new.at_seconds - old.at_seconds
    reset = _was_reset(old, new)
    if reset:
        if new.busy_seconds > seconds * max(1, instances) * _SLACK:
            return None
        old = Counters(at_seconds=old.at_seconds)
    batches = _batch_deltas(old.batches, new.batches)
    busy = math.fsum(batch.busy_seconds for batch in batches)
    executions = new.executions - old.executions
    spread = _spread_seconds(seconds, busy, sum(batch.executions for batch in batches), max(1, instances))
    most = spread * max(1, instances) * _SLACK
    succeeded = new.succeeded - old.succeeded
    known = new.pending is not None and old.pending is not None
    return Window(
        end_seconds=new.at_seconds,
        seconds=seconds,
        succeeded=succeeded,
        failures=new.failed - old.failed,
        executions=executions,
        rows=new.rows - old.rows,
        busy_seconds=min(busy, most),
        spread_seconds=spread,
        batches=batches,
        queue_seconds=max(0.0, new.queue_seconds - old.queue_seconds) / succeeded if succeeded else None,
        request_seconds=max(0.0, new.request_seconds - old.request_seconds) / succeeded if succeeded else None,
        pending=new.pending,
        pending_growth=(new.pending or 0) - (old.pending or 0) if known else 0,
        complete=not reset and seconds <= longest_step_seconds and busy <= most,
    )


def _was_reset(old: Counters, new: Counters) -> bool:
    if old.epoch != new.epoch:
        return True
    before, after = {b.size: b for b in old.batches}, {b.size: b for b in new.batches}
    fell = any(size not in after or after[size].executions < b.executions for size, b in before.items() if b.executions)
    pairs = ((old.succeeded, new.succeeded), (old.failed, new.failed), (old.executions, new.executions), (old.rows, new.rows))
    return fell or any(is_now < was for was, is_now in pairs)


def _batch_deltas(old: tuple[BatchCounters, ...], new: tuple[BatchCounters, ...]) -> tuple[BatchCounters, ...]:
    before = {batch.size: batch for batch in old}
    nothing = BatchCounters(0, 0, 0.0)
    deltas = []
    for batch in new:
        was = before.get(batch.size, nothing)
        if batch.executions > was.executions or batch.busy_seconds > was.busy_seconds:
            busy = max(0.0, batch.busy_seconds - was.busy_seconds)
            deltas.append(BatchCounters(batch.size, batch.executions - was.executions, busy))
    return tuple(deltas)


def _spread_seconds(seconds: float, busy: float, executions: int, instances: int) -> float:
    """Over how long the busy seconds were: the window, or as long as executions take that began before it.

    Statistics count an execution when it ends, so one of 8 s in a window of 5 s was busy in 3 s of an earlier one; and no time
    can hold more than it has: the busy seconds of all instances go back at least until they fit.
    """
    each = busy / executions if executions else 0.0
    return min(max(seconds, each, busy / instances), max(LONGEST_SPREAD_SECONDS, seconds))
