"""Tables as kubectl prints them: no lines, at most 100 columns where there is no terminal."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO

import typer
from rich.console import Console
from rich.table import Table

WIDTH = 100
TROUBLE = "bold red"


@contextmanager
def console(width: int = WIDTH) -> Iterator[Console]:
    """The terminal; where there is none, plain text of so many columns without trailing blanks."""
    if sys.stdout.isatty():
        yield Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
        return
    plain = StringIO()
    yield Console(file=plain, width=width, no_color=True, force_terminal=False, markup=False, highlight=False, emoji=False)
    typer.echo("\n".join(line.rstrip() for line in plain.getvalue().splitlines()))


def table(*columns: str, right: Iterable[str] = (), wide: str = "") -> Table:
    """A table without lines, as kubectl prints it; the column `wide` takes what room is left."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=bool(wide))
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", ratio=1 if name == wide else None)
    return made
