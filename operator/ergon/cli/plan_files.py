"""The files `ergon plan` reads: YAML streams and JSON from files, folders and stdin, read as Kubernetes would read them."""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ergon.fleet.documents import Document, Problem

STDIN = "-"
_ENDINGS = (".yaml", ".yml", ".json")
_TEXT = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
"""What YAML 1.1 takes for a date, or for `=` alone, stays text."""


class Unreadable(Exception):
    """A path, a text or a cluster that cannot be read; the message is one line for a person."""


@dataclass
class FileReading:
    """The documents of all paths, in their order, and those that are not valid YAML or JSON."""

    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_paths(paths: list[str]) -> FileReading:
    """Every document of the files and folders (recursive, hidden ones left out, each file once). `-` is stdin.

    Raises Unreadable where a path is not there or may not be read: that is what the caller was told, not what a file holds.
    """
    reading = FileReading()
    seen: set[Path] = set()
    for path in paths:
        for name in _files_of(path):
            text = read_text(name)
            resolved = Path(name).resolve()
            if resolved in seen and name != STDIN:
                continue
            seen.add(resolved)
            for item in documents_of(text, _shown(name)):
                if isinstance(item, Problem):
                    reading.problems.append(item)
                else:
                    reading.documents.append(item)
    return reading


def read_value(path: str) -> Any:
    """The one value that a file (or stdin) holds. Raises Unreadable."""
    found = documents_of(read_text(path), _shown(path))
    for item in found:
        if isinstance(item, Problem):
            raise Unreadable(str(item))
        if len(found) == 1:
            return item.content
    raise Unreadable(f"{_shown(path)}: holds {len(found)} documents, where one is read")


def _files_of(path: str) -> Iterator[str]:
    if path == STDIN or not Path(path).is_dir():
        yield path
        return

    def refuse(error: OSError) -> None:
        raise Unreadable(f"{error.filename}: cannot be read ({error.strerror}); check the path and its rights")

    for folder, folders, files in os.walk(path, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(folder, name)
            if name.endswith(_ENDINGS) and not name.startswith(".") and (file.is_file() or not file.exists()):
                yield str(file)


def _shown(path: str) -> str:
    return "stdin" if path == STDIN else path


def read_text(path: str) -> str:
    """The text of a file or of stdin. Raises Unreadable."""
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror}); check the path and its rights") from None
    except UnicodeDecodeError as error:
        raise Unreadable(f"{_shown(path)}: is no text in UTF-8 (byte {error.start}); give a YAML or JSON file") from None


def documents_of(text: str, name: str) -> list[Document | Problem]:
    """The documents of a YAML stream or of JSON, empty ones left out; each that is not valid is a problem of its own."""
    if text.lstrip()[:1] == "{":
        try:
            return [Document(f"{name}, document 1", json.loads(text, object_pairs_hook=_map_without_twins))]
        except _Twin as twin:
            return [Problem(f"{name}, document 1", "", f"{twin}; remove one")]
        except (ValueError, RecursionError):
            pass  # a flow mapping of YAML, or a stream of several
    found: list[Document | Problem] = []
    line = 0
    for part in re.split(r"^(?=---(?:\s|$))", text, flags=re.MULTILINE):
        for content in _contents(part, line):
            where = f"{name}, document {len(found) + 1}"
            found.append(Problem(where, "", str(content)) if isinstance(content, Unreadable) else Document(where, content))
        line += part.count("\n")
    return found


def _contents(part: str, first_line: int) -> list[Any]:
    """What one part of a stream holds, usually one value; an Unreadable where it is not YAML."""
    try:
        return [content for content in yaml.load_all(part, Loader=_Loader) if content is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {first_line + mark.line + 1})" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        return [Unreadable(f"is not valid YAML: {problem}{place}; correct it or leave the file out")]
    except (ValueError, RecursionError) as error:
        return [Unreadable(f"is not valid YAML: {type(error).__name__}; correct it or leave the file out")]


class _Twin(ValueError):
    """A key that a map holds twice."""


def _map_without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twin(f"key {next(key for key in keys if keys.count(key) > 1)!r} is there twice in one map")
    return found


# As Kubernetes' YAML library (go-yaml) has them: `1e6` is a number, and `1:30`, which YAML 1.1 counts in sixties, is text.
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0(?:o?[0-7_]+)?|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$")
_OURS = {"tag:yaml.org,2002:int": _INTEGER, "tag:yaml.org,2002:float": _FLOAT}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as kubectl reads it: a key twice in one map is an error, and what looks like a date stays text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (*_TEXT, *_OURS)]
        + [(tag, pattern) for tag, pattern in _OURS.items() if first in "-+.0123456789"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(keys)) != len(keys):
            twin = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key {twin!r} is there twice in one map", node.start_mark)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made
