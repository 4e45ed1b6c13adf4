"""A gateway in this process, in front of servers that are a few lines each: for what goes wrong on the wire."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web

from ergon.gateway.directory import MODEL, ROUTE, SLICE, Directory
from ergon.gateway.metrics import Metrics
from ergon.gateway.serving import Serving
from ergon.gateway.settings import Settings
from ergon.gateway.upstream import Upstream

Object = dict[str, Any]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = {"outputs": [{"name": "SCORE", "datatype": "FP32", "shape": [1, 1], "data": [0.9]}]}


def answered(value: Any = None, status: str = "200 OK") -> bytes:
    """An HTTP answer with JSON."""
    body = json.dumps(GOOD if value is None else value).encode()
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(body)) + body


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """One request with its body; empty where the connection has ended."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


@dataclass
class Server:
    """A server whose talk the test decides. `requests` are those that came."""

    talk: Callable[[int, bytes], bytes | Awaitable[bytes | None] | None]
    requests: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: `talk` gets the request's number and gives the bytes to send; None: the connection is cut."""
        try:
            while request := await request_of(reader):
                self.requests.append(request)
                told = self.talk(len(self.requests), request)
                answer = told if isinstance(told, bytes) or told is None else await told
                if answer is None:
                    writer.transport.abort()
                    return
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in answer.lower():
                    return
        finally:
            writer.close()


class Wire:
    """The gateway, its directory, and a client."""

    def __init__(
        self, directory: Directory, metrics: Metrics, serving: Serving, client: aiohttp.ClientSession, ports: tuple[int, int]
    ) -> None:
        self.directory, self.metrics, self.serving, self.client = directory, metrics, serving, client
        self.port, self.grpc_port = ports
        self.wakes: list[Object] = []

    def model(
        self, name: str, *addresses: str, asleep: bool = False, stalled: str = "", quality: float = 0.5, **told: Any
    ) -> None:
        """A model of namespace `a` with the task `t`, on these servers, or asleep. `told`: its uri, its coldStart."""
        variant = {
            "name": "cpu",
            "accelerators": ["cpu"],
            "backend": "python",
            "source": {"uri": told.get("uri", "file:///x")},
            "memory": "1Mi",
            "quality": quality,
        }
        conditions = [{"type": "Stalled", "status": "True", "reason": "LoadRefused", "message": stalled}] if stalled else []
        metadata = {"namespace": "a", "name": name}
        status = {"conditions": conditions, "coldStart": told.get("coldStart")}
        self.directory.put(MODEL, {"metadata": metadata, "spec": {"task": "t", "variants": [variant]}, "status": status})
        labels = {"ergon.dev/model": name, **({"ergon.dev/asleep": "true"} if asleep else {})}
        endpoints = [{"addresses": [address]} for address in addresses or (("127.0.0.1",) if asleep else ())]
        self.directory.put(SLICE, {"metadata": {"namespace": "a", "name": f"{name}-0", "labels": labels}, "endpoints": endpoints})

    def route(self, name: str = "r", **spec: Any) -> None:
        """A route of namespace `a` over the task `t`, judged by SCORE."""
        base = {"task": "t", "escalation": {"when": [{"output": "SCORE", "below": 0.5}]}}
        status = spec.pop("status", {})
        self.directory.put(ROUTE, {"metadata": {"namespace": "a", "name": name}, "spec": {**base, **spec}, "status": status})

    async def post(self, path: str = "/a/r/v2/models/any/infer", data: Any = b"{}", **headers: str) -> tuple[int, Any, Any]:
        """Status, headers and body of one request; a body that is JSON as its value."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(f"http://127.0.0.1:{self.port}{path}", data=data, headers=named) as answer:
            body = await answer.read()
            try:
                return answer.status, answer.headers, json.loads(body)
            except ValueError:
                return answer.status, answer.headers, body

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value; 0 where it was never counted."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def _kept(talk: Talk, talking: "set[asyncio.Task[None]]") -> Talk:
    """The same talk; its connection is closed when the test is over."""

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # streams of Python 3.11 make an error of it
                await talk(reader, writer)
        finally:
            talking.discard(task)
            writer.transport.abort()

    return talks


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[Upstream]:
    """Connections to one server, at 127.0.0.2."""
    talking: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(_kept(talk, talking), "127.0.0.2", 0)
    upstream = Upstream(server.sockets[0].getsockname()[1], 10)
    try:
        yield upstream
    finally:
        upstream.close()
        server.close()
        await _ended(talking)


async def _ended(talking: "set[asyncio.Task[None]]") -> None:
    for task in talking:
        task.cancel()
    await asyncio.gather(*talking, return_exceptions=True)
    await asyncio.sleep(0)  # transports say their last to their sockets


@asynccontextmanager
async def wire(*servers: Talk, wake: Callable[[Object], tuple[int, Object]] | None = None, **changes: Any) -> AsyncIterator[Wire]:
    """A gateway whose servers are at 127.0.0.2, 127.0.0.3 and so on. `wake` stands in for the operator."""
    port, listening = 0, []
    talking: set[asyncio.Task[None]] = set()
    for number, talk in enumerate(servers):
        listening.append(await asyncio.start_server(_kept(talk, talking), f"127.0.0.{number + 2}", port))
        port = port or listening[0].sockets[0].getsockname()[1]
    wakes: list[Object] = []

    async def on_wake(request: web.BaseRequest) -> web.Response:
        asked = await request.json()
        wakes.append({**asked, "authorization": request.headers.get("Authorization")})
        status, told = wake(asked) if wake is not None else (503, {})
        return web.json_response(told, status=status)

    operator = web.ServerRunner(web.Server(on_wake))
    await operator.setup()
    site = web.TCPSite(operator, "127.0.0.1", 0)
    await site.start()
    settings = replace(
        Settings(
            host="127.0.0.1",
            http_port=0,
            grpc_port=0,
            server_http_port=port,
            stop_seconds=1.0,
            wake_url=f"http://127.0.0.1:{operator.addresses[0][1]}/wake",
        ),
        **changes,
    )
    directory, metrics = Directory(), Metrics()
    serving = Serving(settings, directory, metrics, str)
    ports = await serving.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        world = Wire(directory, metrics, serving, client, ports)
        world.wakes = wakes
        try:
            yield world
        finally:
            await client.close()
            await serving.close()
            await operator.cleanup()
            for server in listening:
                server.close()
            await _ended(talking)
