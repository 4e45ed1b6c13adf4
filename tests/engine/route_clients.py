"""Clients of a URL, run inside the cluster's network.

`burst URL COUNT SECONDS VALUE`: so many requests at once, each with that deadline; prints what came of them as JSON.
`steady URL VALUE`: eight kept connections that ask again and again until standard input ends; prints `asking` once one was
answered, and at the end the counts.
"""

import asyncio
import collections
import json
import sys
import time

import aiohttp

PAUSE_SECONDS = 0.02
CLIENTS = 8
SHOWN = 5


def body(value: float) -> bytes:
    """One row."""
    return json.dumps({"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}).encode()


async def ask(session: aiohttp.ClientSession, url: str, value: float, headers: dict[str, str]) -> tuple[int, str, str]:
    """Status, answer's text, and the models that were asked."""
    async with session.post(url, data=body(value), headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers.get("ergon-models", "")


async def burst(url: str, count: int, seconds: float, value: float) -> None:
    """All at once."""
    limits, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=seconds + 30)
    begun, statuses, failed = time.monotonic(), collections.Counter[str](), []
    took: list[float] = []
    async with aiohttp.ClientSession(connector=limits, timeout=patience) as session:

        async def one() -> None:
            try:
                status, text, _ = await ask(session, url, value, {"ergon-timeout": f"{seconds:g}s"})
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                statuses[type(error).__name__] += 1
                failed.append(str(error)[:200])
                return
            took.append(time.monotonic() - begun)
            statuses[str(status)] += 1
            if status != 200:
                failed.append(text[:300])

        await asyncio.gather(*(one() for _ in range(count)))
    times = {"first": min(took, default=None), "last": max(took, default=None)}
    print(json.dumps({"statuses": statuses, "failed": failed[:SHOWN], **times}))


async def steady(url: str, value: float) -> None:
    """Until standard input ends. A connection that the other side closed between two requests is made anew, as clients do."""
    answered, failed, asked = 0, [], collections.Counter[str]()
    first, done = asyncio.Event(), asyncio.Event()

    async def one(session: aiohttp.ClientSession) -> None:
        nonlocal answered
        while not done.is_set():
            try:
                status, text, models = await ask(session, url, value, {})
                if status != 200:
                    raise RuntimeError(f"{status} {text[:200]}")
                answered += 1
                asked[models] += 1
                first.set()
            except aiohttp.ServerDisconnectedError:
                continue
            except Exception as error:
                if len(failed) < SHOWN:
                    failed.append(f"{time.time():.1f} {type(error).__name__}: {error}")
            await asyncio.sleep(PAUSE_SECONDS)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        clients = [asyncio.create_task(one(session)) for _ in range(CLIENTS)]
        await asyncio.wait_for(first.wait(), 30)
        print("asking", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        done.set()
        await asyncio.gather(*clients)
    print(json.dumps({"http": {"answered": answered, "failed": failed, "asked": asked}}))


if __name__ == "__main__":
    if sys.argv[1] == "burst":
        asyncio.run(burst(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])))
    else:
        asyncio.run(steady(sys.argv[2], float(sys.argv[3])))
