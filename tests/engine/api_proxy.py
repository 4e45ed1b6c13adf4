"""A proxy before the API server that misbehaves as it is told; run inside the cluster's network, KUBECONFIG says where it leads.

Reads one JSON order a line from standard input and answers each with its counts so far. Orders:
  {"refuse": {"code": 429, "every": 2, "retry_after": 1}}  every second request is refused; null: none
  {"swallow": ["pods"]}   watch events of these kinds (bookmarks too) are lost from now on; []: none
  {"cut": ["pods"]}       watches of these kinds end now
  {"expire": ["pods"]}    and the next watch of each is told that its version is too old, so that its client lists anew
  {"fail": ["pods"]}      watches of these kinds get an error event with code 500, and end
  {"silent": true}        nothing is answered and no event passed on, though connections stay; false: all is well again
"""

import asyncio
import base64
import json
import logging
import os
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

_HOP = {"host", "connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive"}


class Proxy:
    """One upstream, one set of orders."""

    def __init__(self, server: str, tls: ssl.SSLContext) -> None:
        self.server = server
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0), trust_env=False, auto_decompress=False, read_bufsize=1 << 22
        )
        self.refuse: dict[str, Any] | None = None
        self.swallow: set[str] = set()
        self.expire: set[str] = set()
        self.speaking = asyncio.Event()
        self.speaking.set()
        self.watches: dict[asyncio.Task[Any], tuple[str, web.StreamResponse]] = {}
        self.counts = {"passed": 0, "refused": 0, "swallowed": 0, "cut": 0, "expired": 0}

    async def order(self, order: dict[str, Any]) -> None:
        """Carry out one order."""
        if "refuse" in order:
            self.refuse = order["refuse"]
        if "swallow" in order:
            self.swallow = set(order["swallow"])
        if "silent" in order:
            (self.speaking.clear if order["silent"] else self.speaking.set)()
        for plural in order.get("fail", ()):
            await self.end_watches(plural, 500)
        self.expire |= set(order.get("expire", ()))
        for plural in (*order.get("cut", ()), *order.get("expire", ())):
            await self.end_watches(plural)

    async def end_watches(self, plural: str, code: int = 0) -> None:
        """End all watches of a kind, after an error event where a code is given."""
        for passing, (kind, response) in list(self.watches.items()):
            if kind == plural:
                self.counts["cut"] += 1
                if code:
                    await response.write(_error_event(code, "told to fail"))
                passing.cancel()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request of the operator's."""
        await self.speaking.wait()
        plural = _plural(request.path)
        if self.refused():
            assert self.refuse is not None
            code = self.refuse["code"]
            headers = {"Retry-After": str(self.refuse["retry_after"])} if "retry_after" in self.refuse else {}
            status = {"kind": "Status", "status": "Failure", "message": "told to refuse", "code": code}
            return web.json_response(status, status=code, headers=headers)
        self.counts["passed"] += 1
        if request.query.get("watch") == "true":
            return await self.pass_watch(request, plural)
        async with self.upstream(request, await request.read()) as answer:
            body = await answer.read()
            await self.speaking.wait()
            return web.Response(status=answer.status, body=body, headers=_headers(answer.headers))

    def refused(self) -> bool:
        """Whether this request's turn to be refused has come."""
        if self.refuse is None:
            return False
        self.refuse["seen"] = self.refuse.get("seen", 0) + 1
        if self.refuse["seen"] % self.refuse["every"]:
            return False
        self.counts["refused"] += 1
        return True

    def upstream(self, request: web.Request, body: bytes | None = None) -> Any:
        return self.session.request(
            request.method,
            self.server + request.raw_path,
            headers=_headers(request.headers),
            data=body or None,
            skip_auto_headers=("Content-Type",),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def pass_watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        """One watch, event by event."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if plural in self.expire:
            self.expire.discard(plural)
            self.counts["expired"] += 1
            await response.write(_error_event(410, "too old resource version"))
            return response
        passing = asyncio.create_task(self.pass_events(request, plural, response))
        self.watches[passing] = (plural, response)
        try:
            await asyncio.wait({passing})
        finally:
            passing.cancel()
            del self.watches[passing]
        return response

    async def pass_events(self, request: web.Request, plural: str, response: web.StreamResponse) -> None:
        """What the API server tells, less what is to be lost."""
        async with self.upstream(request) as answer:
            async for line in answer.content:
                await self.speaking.wait()
                if plural in self.swallow:
                    self.counts["swallowed"] += 1
                else:
                    await response.write(line)


def _error_event(code: int, message: str) -> bytes:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def _plural(path: str) -> str:
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    return rest[2] if len(rest) > 2 and rest[0] == "namespaces" else (rest or [""])[0]


def _headers(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP}


def _tls(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    content = yaml.safe_load(kubeconfig.read_text())
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(b"\n".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
        file.flush()
        tls.load_cert_chain(file.name)
    return cluster["server"], tls


async def main(kubeconfig: Path, port: int) -> None:
    """Serve until standard input ends."""
    proxy = Proxy(*_tls(kubeconfig))
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # clients are killed in the middle of requests here
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("serving", flush=True)
    while line := await orders.readline():
        await proxy.order(json.loads(line))
        print(json.dumps(proxy.counts), flush=True)
    proxy.speaking.set()
    await runner.cleanup()
    await proxy.session.close()


if __name__ == "__main__":
    asyncio.run(main(Path(os.environ["KUBECONFIG"]), int(sys.argv[1])))
