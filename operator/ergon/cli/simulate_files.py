"""The trace files of `ergon simulate`: opened anew each time they are read, plain or gzip, line by line."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from ergon.simulate.traces import BadTrace, TraceFile


def trace_files(path: str) -> TraceFile:
    """A trace by its path. Raises BadTrace where it is not there, here or while it is read."""
    if not Path(path).is_file():
        raise BadTrace(f"{path}: is no file; give a trace in CSV, plain or .gz")
    return TraceFile(path, lambda: _lines(path))


def _lines(path: str) -> Iterator[str]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", errors="replace")
            if path.endswith(".gz")
            else Path(path).open(encoding="utf-8", errors="replace") as file
        ):
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise BadTrace(f"{path}: cannot be read to its end ({getattr(error, 'strerror', None) or error})") from None
