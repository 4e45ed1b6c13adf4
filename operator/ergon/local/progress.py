"""Telling the person what happens and how long it may take: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_QUIET_SECONDS = 30.0


class Step:
    """One thing that takes time."""

    def __init__(self, title: str, bar: Bar | None, task: TaskID | None, console: Console) -> None:
        self._title = title
        self._bar = bar
        self._task = task
        self._console = console
        self._told = time.monotonic()

    def note(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Say what happens now, and how much of it is done where that is known."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self._title}: {text}", completed=done, total=total)
        elif time.monotonic() - self._told > _QUIET_SECONDS:
            self._told = time.monotonic()
            share = f" ({100 * done / total:.0f} %)" if done is not None and total else ""
            self._console.print(f"  … {text}{share}", soft_wrap=True)


class Progress:
    """Writes to standard error, so that what a command prints stays clean."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """One line."""
        self.console.print(line, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A step with a moving bar on a terminal; elsewhere its title once and a line every half a minute."""
        begun = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(title, soft_wrap=True)
            yield Step(title, None, None, self.console)
        else:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
            with Bar(*columns, console=self.console, transient=True) as bar:
                yield Step(title, bar, bar.add_task(title, total=None), self.console)
        self.console.print(f"  done in {time.monotonic() - begun:.1f} s")
