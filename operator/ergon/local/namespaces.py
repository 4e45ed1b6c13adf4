"""Creating and entering a cluster's namespaces: user, network, mount, pid, host name and IPC.

Everything of a cluster runs below one pid 1; when that ends, the kernel ends and unmounts the rest.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ergon.local import linux
from ergon.local.state import API_ADDRESS, DNS_ADDRESS, Layout, LocalError

_OWN = linux.CLONE_NEWUSER | linux.CLONE_NEWNET | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC
_JOINED = (
    ("user", linux.CLONE_NEWUSER),
    ("net", linux.CLONE_NEWNET),
    ("ipc", linux.CLONE_NEWIPC),
    ("uts", linux.CLONE_NEWUTS),
    ("pid", linux.CLONE_NEWPID),
    ("mnt", linux.CLONE_NEWNS),
)
_SETTINGS = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
NAMESPACES_REFUSED = 3
"""The exit status when this machine refuses user namespaces."""


def require_user_namespaces() -> None:
    """Raise LocalError (exit status 3) that names the setting, when the kernel refuses user namespaces to this user."""
    child = os.fork()
    if child == 0:
        try:
            user, group = os.getuid(), os.getgid()
            linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNET | linux.CLONE_NEWNS)
            linux.map_identity(0, 0, user, group)
            linux.bring_up_loopback([])
        except OSError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise LocalError(refusal(_read_setting), NAMESPACES_REFUSED)


def refusal(read: Callable[[str], str]) -> str:
    """The line that says why user namespaces are refused and which setting allows them."""
    for path, refusing, remedy in _SETTINGS:
        if read(path) == refusing:
            return f"this machine refuses user namespaces: allow them with `sudo {remedy}`"
    return (
        "this machine refuses user namespaces: inside a container, allow them in its seccomp profile "
        "(docker: --security-opt seccomp=unconfined); elsewhere check `sysctl user.max_user_namespaces`"
    )


def _read_setting(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def spawn_init(main: Callable[[], None]) -> tuple[int, int]:
    """Run `main` as pid 1 of new namespaces; the kernel kills it when this process ends.

    Returns the pid of a child to wait for and the pid of the new pid 1, both as this process sees them.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        linux.die_with_parent(signal.SIGKILL)
        user, group = os.getuid(), os.getgid()
        linux.unshare(_OWN)
        linux.map_identity(0, 0, user, group)
        init = os.fork()
        if init == 0:
            linux.die_with_parent(signal.SIGKILL)
            os.close(writer)
            _exit_after(main)
        os.write(writer, str(init).encode())
        os.close(writer)
        _, status = os.waitpid(init, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    if not text:
        os.waitpid(child, 0)
        raise LocalError("the cluster's namespaces could not be made: see logs/supervisor.log")
    return child, int(text)


def _exit_after(main: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        main()
        status = 0
    finally:
        os._exit(status)


def prepare(networks: list[tuple[str, int]], resolv_conf: Path) -> None:
    """Furnish fresh namespaces: private mounts, own /proc, addresses on `lo`, the cluster's resolver."""
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    linux.bring_up_loopback(networks)
    for setting, value in (("ipv4/ip_unprivileged_port_start", "0"), ("core/somaxconn", "4096")):
        path = Path("/proc/sys/net") / setting
        if path.exists():
            path.write_text(value)
    target = Path("/etc/resolv.conf").resolve()
    if target.exists():
        linux.bind(str(resolv_conf), str(target))


def resolver_configuration(namespace: str) -> str:
    """The resolv.conf of a pod in `namespace`."""
    return f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {DNS_ADDRESS}\noptions ndots:5\n"


def reap_until_exit(child: int) -> int:
    """The life of pid 1: pass SIGTERM on to `child`, reap every orphan, return `child`'s exit status."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def run_inside(init_pid: int, layout: Layout, command: list[str]) -> int:
    """Run a command inside the cluster's namespaces, with its kubeconfig, and return its exit status."""
    here = Path.cwd()
    descriptors = [(os.open(f"/proc/{init_pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in _JOINED]
    child = os.fork()
    if child == 0:
        try:
            _enter(descriptors)
        except OSError as error:
            os.write(2, f"ergon: cannot enter the cluster's namespaces: {error}\n".encode())
            os._exit(1)
        inner = os.fork()
        if inner == 0:
            _execute(layout, here, command)
        os._exit(_wait(inner))
    for descriptor, _ in descriptors:
        os.close(descriptor)
    return _wait(child)


def _enter(descriptors: list[tuple[int, int]]) -> None:
    for descriptor, kind in descriptors:
        linux.setns(descriptor, kind)
        os.close(descriptor)


def _execute(layout: Layout, folder: Path, command: list[str]) -> NoReturn:
    linux.die_with_parent(signal.SIGTERM)
    os.chdir(folder)
    environment = {
        **os.environ,
        "KUBECONFIG": str(layout.inner_kubeconfig),
        "ERGON_CLUSTER": layout.name,
        "KUBERNETES_API": API_ADDRESS,
    }
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(2, f"ergon: {command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _wait(child: int) -> int:
    """Wait for a child through interrupts that the terminal sends to it as well."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
