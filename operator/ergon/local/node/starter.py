"""Starts one container: `python -I -S starter.py SPEC_FD REPORT_FD`. Only the standard library: it starts in milliseconds.

It builds the root in a mount namespace of its own, forks the container as pid 1 of a pid namespace, reports that pid, passes
signals on and ends with the container's status (128 + n for signal n). On the report pipe: a line with the pid, then nothing when
the program was executed, or a line that says why it was not.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ergon.local import linux

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_DEFAULT_DESCRIPTORS = 65536
START_FAILED = 128
"""The exit status when the program could not be executed."""


def main() -> NoReturn:
    """Build, fork, report, wait."""
    linux.die_with_parent(signal.SIGKILL)
    report = int(sys.argv[2])
    os.set_inheritable(report, False)
    with os.fdopen(int(sys.argv[1])) as file:
        spec = json.load(file)
    try:
        root = _build(spec)
    except OSError as error:
        _fail(report, f"cannot build the container's root: {error}")
    child = os.fork()
    if child == 0:
        _become(spec, root, report)
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: os.kill(child, number))
    os.write(report, f"{child}\n".encode())
    os.close(report)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _fail(report: int, message: str) -> NoReturn:
    os.write(report, f"0\n{message}\n".encode())
    os._exit(START_FAILED)


def _build(spec: dict[str, Any]) -> str:
    """Enter new namespaces and lay out the root; returns its path."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    root: str = spec["root"]
    linux.mount("tmpfs", root, "tmpfs", linux.MS_NOSUID, "mode=755")
    for step in spec["steps"]:
        _lay(root, step)
    _devices(root)
    _set_host_name(spec["hostname"])
    return root


def _lay(root: str, step: dict[str, Any]) -> None:
    target = root + step["path"]
    kind = step["kind"]
    if kind == "dir":
        Path(target).mkdir(mode=0o755, parents=True, exist_ok=True)
    elif kind == "file":
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    elif kind == "symlink":
        Path(target).symlink_to(step["source"])
    elif kind == "tmpfs":
        size = step["size_bytes"]
        linux.mount("tmpfs", target, "tmpfs", linux.MS_NOSUID, f"mode=1777{f',size={size}' if size else ''}")
    else:
        linux.bind(step["source"], target, read_only=step["read_only"])


def _devices(root: str) -> None:
    for name in _DEVICES:
        target = Path(f"{root}/dev/{name}")
        target.parent.mkdir(exist_ok=True)
        target.touch()
        linux.bind(f"/dev/{name}", str(target))
    for name, link in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        Path(f"{root}/dev/{name}").symlink_to(link)


def _set_host_name(name: str) -> None:
    socket.sethostname(name)


def _become(spec: dict[str, Any], root: str, report: int) -> NoReturn:
    """The container's first process: enter the root, drop to its user, execute its command."""
    try:
        linux.die_with_parent(signal.SIGKILL)
        os.setsid()
        Path(root, "proc").mkdir(exist_ok=True)
        linux.mount("proc", f"{root}/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
        os.chdir(root)
        linux.pivot_root(".", ".")
        linux.unmount(".")
        if spec["read_only_root"]:
            linux.mount("", "/", flags=linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID)
        os.chdir(spec["folder"])
        _limits()
        user, group = spec["user"], spec["group"]
        if user or group:
            linux.unshare(linux.CLONE_NEWUSER)
            linux.map_identity(user, group, 0, 0)
            linux.die_with_parent(signal.SIGKILL)
        _default_signals()
        os.umask(0o022)
        _execute(spec["command"], spec["environment"])
    except OSError as error:
        os.write(report, f"{error}\n".encode())
    os._exit(START_FAILED)


def _limits() -> None:
    """The descriptors that container runtimes give, as far as this user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _DEFAULT_DESCRIPTORS), hard))


def _default_signals() -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ, *_FORWARDED):
        signal.signal(number, signal.SIG_DFL)


def _execute(command: list[str], environment: dict[str, str]) -> None:
    """Execute the command as found on the container's own PATH; raises OSError that names it."""
    program = command[0]
    folders = [""] if "/" in program else environment.get("PATH", "/usr/bin:/bin").split(":")
    error: OSError = FileNotFoundError(2, "executable file not found in $PATH", program)
    for folder in folders:
        path = os.path.join(folder, program) if folder else program  # noqa: PTH118
        try:
            os.execve(path, command, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as found:
            error = found
    raise error


if __name__ == "__main__":
    main()
