"""Asks for requests on standard input, one JSON object a line, sends them where pod addresses work, and prints what came of each.

A request has an id, and `url` (HTTP: method, headers, body as base64) or `grpc` (target, model, a text or a number, timeout).
Requests run beside each other; an answer says its id, the status, headers, body (base64), seconds, and its place among them.
"""

import asyncio
import base64
import json
import sys
import time
from typing import Any

import aiohttp
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

Object = dict[str, Any]


async def by_http(session: aiohttp.ClientSession, asked: Object) -> Object:
    """One HTTP request."""
    method, body = asked.get("method", "POST"), base64.b64decode(asked.get("body", ""))
    async with session.request(method, asked["url"], data=body or None, headers=asked.get("headers") or {}) as answer:
        data = await answer.read()
        return {"status": answer.status, "headers": dict(answer.headers), "body": base64.b64encode(data).decode()}


async def by_grpc(channels: dict[str, grpc.aio.Channel], asked: Object) -> Object:
    """One ModelInfer; outputs as texts and numbers."""
    target = asked["grpc"]
    channel = channels.setdefault(target, grpc.aio.insecure_channel(target))
    request = service_pb2.ModelInferRequest(model_name=asked["model"])
    request.inputs.add(name="TEXT", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(asked["text"].encode())
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(
        request, timeout=asked.get("timeout", 20), metadata=tuple((asked.get("headers") or {}).items())
    )
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return {"status": error.code().name, "headers": {}, "body": base64.b64encode(str(error.details()).encode()).decode()}
    outputs = {o.name: base64.b64encode(answer.raw_output_contents[place]).decode() for place, o in enumerate(answer.outputs)}
    told = {"model_name": answer.model_name, "outputs": outputs}
    headers = {key: str(value) for key, value in await call.trailing_metadata()}
    return {"status": "OK", "headers": headers, "body": base64.b64encode(json.dumps(told).encode()).decode()}


async def main() -> None:
    """Until standard input ends."""
    loop, place, tasks = asyncio.get_running_loop(), 0, set()
    lines = asyncio.StreamReader(limit=1 << 28)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    connector = aiohttp.TCPConnector(limit=0)
    channels: dict[str, grpc.aio.Channel] = {}
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:

        async def ask(asked: Object) -> None:
            nonlocal place
            began = time.monotonic()
            try:
                told = await (by_grpc(channels, asked) if "grpc" in asked else by_http(session, asked))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                told = {
                    "status": 0,
                    "headers": {},
                    "body": base64.b64encode(f"{type(error).__name__}: {error}".encode()).decode(),
                }
            place += 1
            print(json.dumps({**told, "id": asked["id"], "seconds": time.monotonic() - began, "place": place}), flush=True)

        print("ready", flush=True)
        while line := await lines.readline():
            task = asyncio.create_task(ask(json.loads(line)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main())
