"""How a model volume is laid out, and what a Triton model directory must hold. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ergon.store.errors import ModelDirectoryInvalid

INCOMING = ".incoming"
TRASH = ".trash"
MARKER = ".ergon-"
_VERSION = re.compile(r"[1-9][0-9]*")


@dataclass(frozen=True)
class Listing:
    """The volume's directories: models and fetches with the revision of their marker, and the names in the trash."""

    models: dict[str, str | None] = field(default_factory=dict)
    incoming: dict[str, str | None] = field(default_factory=dict)
    trash: frozenset[str] = frozenset()


def read_listing(directories: Iterable[str]) -> Listing:
    """A listing from directory paths below the volume, at least three levels deep."""
    models: dict[str, str | None] = {}
    incoming: dict[str, str | None] = {}
    trash: set[str] = set()
    for parts in sorted(path.split("/") for path in directories):
        match parts:
            case [".incoming", name, *below]:
                _note(incoming, name, below)
            case [".trash", name, *_]:
                trash.add(name)
            case [name, *below] if not name.startswith("."):
                _note(models, name, below)
    return Listing(models, incoming, frozenset(trash))


def _note(revisions: dict[str, str | None], name: str, below: list[str]) -> None:
    revisions.setdefault(name, None)
    if len(below) == 1 and below[0].startswith(MARKER):
        revisions[name] = below[0].removeprefix(MARKER)


def _entry_file(config_pbtxt: str) -> str:
    """The file that a Python model starts from, by its config.pbtxt."""
    named = re.search(r'^\s*default_model_filename\s*:\s*"([^"]+)"', config_pbtxt, re.MULTILINE)
    return named[1] if named else "model.py"


def require_model_directory(entries: Mapping[str, bool], backend: str, config_pbtxt: str) -> None:
    """Raise ModelDirectoryInvalid unless `entries` (paths two levels deep, True for directories) are a Triton model directory."""
    if entries.get("config.pbtxt") is not False:
        raise ModelDirectoryInvalid(
            "the source has no config.pbtxt; a Triton model directory holds config.pbtxt and numbered version directories "
            "(Ergon starts Triton without auto-completion, so write a full one)"
        )
    versions = sorted((path for path, is_directory in entries.items() if is_directory and _VERSION.fullmatch(path)), key=int)
    if not versions:
        raise ModelDirectoryInvalid("the source has no version directory; put the model's files into a directory named 1")
    if backend == "ensemble":
        return  # its version directory is empty by design
    newest = versions[-1]
    content = {path.split("/", 1)[1] for path in entries if path.startswith(f"{newest}/")}
    if not content:
        raise ModelDirectoryInvalid(f"the source's version directory {newest} is empty")
    if backend == "python" and (entry_file := _entry_file(config_pbtxt)) not in content:
        raise ModelDirectoryInvalid(f"the source's version directory {newest} has no {entry_file}")
