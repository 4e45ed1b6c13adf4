"""Downloads with a published checksum: they fail fast where there is no way out, and only complete files get their name."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import tarfile
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import aiohttp

from ergon.local.progress import Step

_CONNECT_SECONDS = 3.0
_STALL_SECONDS = 20.0
_BLOCK_BYTES = 1 << 18


class DownloadError(Exception):
    """Why a download did not come to its end, in one line."""


def require_name(host: str, seconds: float = _CONNECT_SECONDS) -> None:
    """Raise DownloadError when a host's name is not found in time; a resolver without a way out may hang for half a minute.

    Behind a proxy the proxy resolves, and nothing is asked here.
    """
    if getproxies():
        return
    found: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, 443)
            found.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise DownloadError(f"{host} cannot be reached (its name is not found)")


async def fetch(url: str, checksum_url: str, target: Path, step: Step) -> None:
    """Download an executable to `target`, checked against the SHA-256 published at `checksum_url`."""
    data = await _checked(url, checksum_url, step)
    _place(data, target)


async def fetch_member(url: str, checksum_url: str, member: str, target: Path, step: Step) -> None:
    """Download a tar archive, check it, and put one executable out of it at `target`."""
    data = await _checked(url, checksum_url, step)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = archive.extractfile(member)
        if found is None:
            raise DownloadError(f"{url} holds no {member}")
        _place(found.read(), target)


def expected_checksum(text: str, name: str) -> str:
    """The checksum of `name` in a list of sums, or the only one in a file that holds just that; raises DownloadError."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 1 or (len(fields) == 2 and fields[1].lstrip("*") == name):
            return fields[0].lower()
    raise DownloadError(f"no checksum is published for {name}")


async def _checked(url: str, checksum_url: str, step: Step) -> bytes:
    name = url.rpartition("/")[2]
    timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS, sock_connect=_CONNECT_SECONDS, sock_read=_STALL_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True, raise_for_status=True) as session:
            async with session.get(checksum_url) as response:
                expected = expected_checksum(await response.text(), name)
            data = bytearray()
            async with session.get(url) as response:
                total = float(response.headers.get("Content-Length") or 0) or None
                async for block in response.content.iter_chunked(_BLOCK_BYTES):
                    data += block
                    step.note(name, float(len(data)), total)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise DownloadError(f"{urlsplit(url).netloc} cannot be reached ({type(error).__name__})") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise DownloadError(f"{name} does not match its published checksum")
    return bytes(data)


def _place(data: bytes, target: Path) -> None:
    """Write beside, then rename: a file with this name is complete."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.chmod(0o755)
    partial.replace(target)
