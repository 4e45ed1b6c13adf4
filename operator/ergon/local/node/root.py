"""A container's root folder on this machine: which host folders it mirrors and what every container has besides its volumes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import ergon
from ergon.local.node.images import SHIM_TARGET
from ergon.local.node.mounts import Entry, Mount, Step, plan

_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/opt", "/nix", "/gnu", "/sys")
_PLAIN = ("/tmp", "/var/tmp", "/run", "/root", "/home", "/proc", "/dev", "/mnt")
_SHARED_MEMORY_BYTES = 64 << 20


@dataclass(frozen=True)
class PodFiles:
    """The files that a node makes for each pod."""

    hosts: Path
    resolv_conf: Path
    hostname: Path


def launcher_paths(triton_environment: Path) -> tuple[str, ...]:
    """The folders outside the system's own that launchers run from: virtual environments, their Pythons, this package."""
    package = Path(ergon.__file__).resolve().parents[1]
    paths = {Path(sys.prefix), Path(sys.base_prefix).resolve(), package, triton_environment}
    interpreter = triton_environment / "venv" / "bin" / "python"
    if interpreter.exists():
        paths.add(interpreter.resolve().parents[1])
    return tuple(sorted(str(path) for path in paths))


def steps_for(mirrors: Iterable[str], files: PodFiles, shims: Path, own: list[Mount]) -> tuple[Step, ...]:
    """The steps that build a root with the pod's files, the image's programs and the container's `own` mounts."""
    every = [path for path in (*_SYSTEM, *mirrors) if os.path.lexists(path)]
    given = {
        "/etc/hosts": Mount("/etc/hosts", str(files.hosts), folder=False),
        "/etc/resolv.conf": Mount("/etc/resolv.conf", str(files.resolv_conf), folder=False),
        "/etc/hostname": Mount("/etc/hostname", str(files.hostname), folder=False),
        "/dev/shm": Mount("/dev/shm", size_bytes=_SHARED_MEMORY_BYTES),
        SHIM_TARGET: Mount(SHIM_TARGET, str(shims), read_only=True),
    }
    for mount in own:
        given[os.path.normpath(mount.target)] = mount
    plain = [Step("dir", path) for path in _PLAIN]

    def read_link(path: str) -> str | None:
        return _read_link(path, tuple(every))

    return (*plain, Step("symlink", "/var/run", "/run"), *plan(every, given.values(), _list, read_link))


def _read_link(path: str, mirrors: tuple[str, ...]) -> str | None:
    if path == "/var/run":
        return "/run"
    if not any(path == mirror or path.startswith(f"{mirror}/") for mirror in mirrors):
        return None
    return os.readlink(path) if os.path.islink(path) else None  # noqa: PTH114, PTH115


@functools.lru_cache(maxsize=256)
def _list(path: str) -> tuple[Entry, ...]:
    """The children of a host folder; one that may not be read shows as empty."""
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    found.append(Entry(entry.name, "symlink", os.readlink(entry.path)))  # noqa: PTH115
                elif entry.is_dir():
                    found.append(Entry(entry.name, "dir"))
                else:
                    found.append(Entry(entry.name, "file" if entry.is_file() else "other"))
    except OSError:
        return ()
    return tuple(found)
