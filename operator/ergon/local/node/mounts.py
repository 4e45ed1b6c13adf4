"""Planning a container's root folder: host folders mirrored read-only, virtual folders where mount points need them. Pure.

The root is an empty tmpfs. A mirrored host folder is one bind mount, unless something is to be mounted inside it: then it
becomes a virtual folder whose children are mirrored one by one, so that nothing of the host is ever touched.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["dir", "file", "symlink", "bind", "tmpfs"]


@dataclass(frozen=True)
class Mount:
    """One thing to see at `target`: a bind of `source`, or a fresh tmpfs of `size_bytes` (0: the kernel's default)."""

    target: str
    source: str = ""
    read_only: bool = False
    folder: bool = True
    size_bytes: int = 0


@dataclass(frozen=True)
class Step:
    """One step of building the root; `path` is absolute inside the container."""

    kind: Kind
    path: str
    source: str = ""
    read_only: bool = False
    size_bytes: int = 0


@dataclass(frozen=True)
class Entry:
    """A child of a host folder: its kind, and what it points at when it is a symbolic link."""

    name: str
    kind: Literal["dir", "file", "symlink", "other"]
    link: str = ""


Listing = Callable[[str], Iterable[Entry]]
ReadLink = Callable[[str], str | None]


def resolve(path: str, read_link: ReadLink, depth: int = 40) -> str:
    """`path` with the host's symbolic links followed (`/var/run/x` is `/run/x`); what does not exist stays as it is."""
    if depth == 0:
        return path
    done = "/"
    parts = [part for part in posixpath.normpath(path).split("/") if part]
    for index, part in enumerate(parts):
        step = posixpath.join(done, part)
        link = read_link(step)
        if link is not None:
            rest = "/".join(parts[index + 1 :])
            return resolve(posixpath.join(done, link, rest).rstrip("/"), read_link, depth - 1)
        done = step
    return done


def plan(mirrors: Sequence[str], mounts: Iterable[Mount], listing: Listing, read_link: ReadLink) -> list[Step]:
    """The steps that build a root with the `mirrors` (host paths, read-only) and `mounts`, which go over them."""
    wanted = sorted(
        (Mount(resolve(m.target, read_link), m.source, m.read_only, m.folder, m.size_bytes) for m in mounts),
        key=lambda mount: mount.target.count("/") if mount.target != "/" else 0,
    )
    targets = {mount.target for mount in wanted}
    planner = _Planner(targets, {parent for target in targets for parent in _parents(target)}, listing)
    for mirror in mirrors:
        link = read_link(mirror)
        if link is not None:
            planner.steps.append(Step("symlink", mirror, link))
    hidden = []
    for mirror in _outermost(mirror for mirror in mirrors if read_link(mirror) is None):
        if targets.intersection(_parents(mirror)):
            hidden.append(Mount(mirror, mirror, read_only=True))
        else:
            planner.mirror(mirror)
    for mount in [*wanted, *hidden]:
        planner.mount(mount)
    return planner.steps


class _Planner:
    def __init__(self, targets: set[str], ancestors: set[str], listing: Listing) -> None:
        self.steps: list[Step] = []
        self._targets = targets
        self._ancestors = ancestors
        self._listing = listing
        self._made = {"/"}

    def mirror(self, path: str) -> None:
        """Show the host's `path`, as one bind mount where nothing is mounted inside."""
        if path in self._targets:
            return
        self._folders_above(path)
        if path not in self._ancestors:
            self._folder(path)
            self.steps.append(Step("bind", path, path, read_only=True))
            return
        self._folder(path)
        for entry in self._listing(path):
            child = posixpath.join(path, entry.name)
            if child in self._targets:
                continue
            if entry.kind == "symlink":
                self.steps.append(Step("symlink", child, entry.link))
            elif entry.kind == "dir":
                self.mirror(child)
            elif entry.kind == "file":
                self.steps += [Step("file", child), Step("bind", child, child, read_only=True)]

    def mount(self, mount: Mount) -> None:
        self._folders_above(mount.target)
        if mount.source:
            self.steps.append(Step("dir" if mount.folder else "file", mount.target))
            self.steps.append(Step("bind", mount.target, mount.source, mount.read_only))
        else:
            self.steps.append(Step("dir", mount.target))
            self.steps.append(Step("tmpfs", mount.target, size_bytes=mount.size_bytes))

    def _folders_above(self, path: str) -> None:
        for parent in reversed(_parents(path)):
            self._folder(parent)

    def _folder(self, path: str) -> None:
        if path not in self._made:
            self._made.add(path)
            self.steps.append(Step("dir", path))


def _parents(path: str) -> list[str]:
    """Every strict ancestor but the root, nearest first."""
    found = []
    parent = posixpath.dirname(path)
    while parent not in ("/", ""):
        found.append(parent)
        parent = posixpath.dirname(parent)
    return found


def _outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie inside another."""
    found: list[str] = []
    for path in sorted({posixpath.normpath(path) for path in paths}):
        if not any(path == kept or path.startswith(f"{kept}/") for kept in found):
            found.append(path)
    return found
