"""The Linux calls that Python 3.11 lacks, through ctypes and netlink; every failure is an OSError that names the call.

Only the standard library is imported, because container starters load this file without site-packages.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import socket
import struct
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000

MNT_DETACH = 0x2

_PR_SET_PDEATHSIG = 1
_SYS_PIVOT_ROOT = 155 if os.uname().machine == "x86_64" else 41
_SYS_MOUNT_SETATTR = 442
_MOUNT_ATTR_RDONLY = 0x1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_RTM_NEWLINK = 16
_RTM_NEWADDR = 20
_NLM_REQUEST_ACK = 0x1 | 0x4
_NLM_CREATE = 0x400
_IFF_UP = 0x1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags`; the caller must be single-threaded for a user namespace."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Join the namespace behind an open `/proc/PID/ns/*` descriptor."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)
    _check(result, f"mount {kind or 'bind'} {source} on {target}")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily unless told otherwise."""
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Bind `source` with all below it on `target`; read-only for the whole tree where the kernel can (5.12 and newer)."""
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        make_read_only(target)


def make_read_only(target: str) -> None:
    """Make a mount and all mounts below it read-only; falls back to the top mount alone on old kernels."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(target.encode()),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
    )
    if result == 0:
        return
    locked = _locked_flags(target)
    mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | locked)


def _locked_flags(target: str) -> int:
    """Flags which a user namespace must keep when it remounts, or the kernel refuses."""
    found = os.statvfs(target).f_flag
    flags = 0
    for mask, flag in ((os.ST_NOSUID, MS_NOSUID), (os.ST_NODEV, MS_NODEV), (os.ST_NOEXEC, MS_NOEXEC)):
        flags |= flag if found & mask else 0
    return flags


def pivot_root(new_root: str, old_root: str) -> None:
    """pivot_root(2)."""
    result = _libc.syscall(ctypes.c_long(_SYS_PIVOT_ROOT), ctypes.c_char_p(new_root.encode()), ctypes.c_char_p(old_root.encode()))
    _check(int(result), f"pivot_root {new_root}")


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to send this process `signal_number` when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def map_identity(inside_user: int, inside_group: int, outside_user: int, outside_group: int) -> None:
    """Map one user and one group into the user namespace just entered (all that is allowed without privileges)."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside_user} {outside_user} 1")
    Path("/proc/self/gid_map").write_text(f"{inside_group} {outside_group} 1")


def bring_up_loopback(networks: list[tuple[str, int]]) -> None:
    """Raise `lo` and give it each (address, prefix length): on a loopback device the whole prefix becomes local."""
    index = socket.if_nametoindex("lo")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.bind((0, 0))
        _netlink(link, _RTM_NEWLINK, 0, struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, _IFF_UP, _IFF_UP))
        for address, prefix in networks:
            packed = socket.inet_aton(address)
            attributes = struct.pack("=HH4s", 8, 1, packed) + struct.pack("=HH4s", 8, 2, packed)
            _netlink(link, _RTM_NEWADDR, _NLM_CREATE, struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index) + attributes)


def _netlink(link: socket.socket, kind: int, flags: int, body: bytes) -> None:
    link.send(struct.pack("=IHHII", 16 + len(body), kind, _NLM_REQUEST_ACK | flags, 1, 0) + body)
    answer = link.recv(65536)
    (code,) = struct.unpack("=i", answer[16:20])
    if code < 0:
        raise OSError(-code, f"netlink request {kind}: {os.strerror(-code)}")
