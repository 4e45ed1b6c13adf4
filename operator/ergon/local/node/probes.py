"""Probes: how one is tried (httpGet, tcpSocket, exec, grpc) and how tries become a verdict (thresholds, delays, periods)."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

Object = dict[str, Any]
Execute = Callable[[list[str], float], Awaitable[tuple[int, str]]]
"""Runs a command in the container within some seconds: exit status and output."""

_SERVING = b"\x08\x01"


@dataclass(frozen=True)
class ProbeSpec:
    """A probe with the API's defaults filled in."""

    action: Object
    initial_delay_seconds: float
    period_seconds: float
    timeout_seconds: float
    success_threshold: int
    failure_threshold: int
    grace_seconds: int | None = None

    @classmethod
    def of(cls, raw: Object) -> ProbeSpec:
        return cls(
            action=raw,
            initial_delay_seconds=float(raw.get("initialDelaySeconds") or 0),
            period_seconds=float(raw.get("periodSeconds") or 10),
            timeout_seconds=float(raw.get("timeoutSeconds") or 1),
            success_threshold=int(raw.get("successThreshold") or 1),
            failure_threshold=int(raw.get("failureThreshold") or 3),
            grace_seconds=raw.get("terminationGracePeriodSeconds"),
        )


class Verdict:
    """Counts results in a row; the verdict flips only when a threshold is reached."""

    def __init__(self, spec: ProbeSpec, initially: bool) -> None:
        self._spec = spec
        self.passing = initially
        self.reached_failure = False
        self._last: bool | None = None
        self._run = 0

    def add(self, success: bool) -> None:
        """Take in one result."""
        self._run = self._run + 1 if success == self._last else 1
        self._last = success
        if success and self._run >= self._spec.success_threshold:
            self.passing = True
            self.reached_failure = False
        if not success and self._run >= self._spec.failure_threshold:
            self.passing = False
            self.reached_failure = True


async def attempt(spec: ProbeSpec, container: Object, address: str, execute: Execute) -> tuple[bool, str]:
    """Try a probe once: whether it succeeded, and the kubelet's words when it did not."""
    action = spec.action
    try:
        async with asyncio.timeout(spec.timeout_seconds):
            if "httpGet" in action:
                return await _http(action["httpGet"], container, address)
            if "tcpSocket" in action:
                return await _tcp(action["tcpSocket"], container, address)
            if "grpc" in action:
                return await _grpc(action["grpc"], address)
            code, output = await execute(list(action["exec"]["command"]), spec.timeout_seconds)
            return code == 0, output.strip()[-500:]
    except TimeoutError:
        return False, f"no answer within {spec.timeout_seconds:g} s"
    except (OSError, aiohttp.ClientError) as error:
        return False, str(error)


def port_number(container: Object, port: int | str) -> int:
    """A probe's port: a number, or the name of one of the container's ports; raises OSError when there is none."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise OSError(f"the container has no port named {port!r}")


@functools.cache
def _unverified() -> ssl.SSLContext:
    """Probes accept any certificate, as the kubelet's do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _http(action: Object, container: Object, address: str) -> tuple[bool, str]:
    scheme = str(action.get("scheme") or "HTTP").lower()
    host = action.get("host") or address
    url = f"{scheme}://{host}:{port_number(container, action['port'])}{action.get('path') or '/'}"
    headers = {header["name"]: header["value"] for header in action.get("httpHeaders") or []}
    headers.setdefault("User-Agent", "kube-probe/1.36")
    connector = aiohttp.TCPConnector(ssl=_unverified(), force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, trust_env=False) as session,
        session.get(url, headers=headers, allow_redirects=False) as response,
    ):
        if 200 <= response.status < 400:
            return True, ""
        return False, f"HTTP probe failed with statuscode: {response.status}"


async def _tcp(action: Object, container: Object, address: str) -> tuple[bool, str]:
    host = action.get("host") or address
    _, writer = await asyncio.open_connection(host, port_number(container, action["port"]))
    writer.close()
    return True, ""


async def _grpc(action: Object, address: str) -> tuple[bool, str]:
    import grpc.aio

    service = str(action.get("service") or "").encode()
    request = b"\x0a" + bytes([len(service)]) + service if service else b""
    async with grpc.aio.insecure_channel(f"{address}:{action['port']}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = await check(request)
        except grpc.aio.AioRpcError as error:
            return False, str(error.details())
    return answer == _SERVING, "the gRPC health service does not answer SERVING"
