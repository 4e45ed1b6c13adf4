"""Real requests to the four example models, at a rate, through the Gateway; each request is due when it is due."""

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

TEXTS = (
    "On 3 May 2024 Siemens paid Anna Schmidt in Munich $2.4 million for twelve patents.",
    "Der Zug nach Hamburg hat heute leider zwanzig Minuten Verspätung.",
    "The council of Utrecht will vote on Tuesday about the new bridge over the Vecht, said Mayor Sharon Dijksma.",
)
CODE = "def area(radius: float) -> float:\n    import math\n    return math.pi * radius ** 2\n"
QUESTION = "In one short sentence: why is the sky blue?"
TIMEOUT_SECONDS = 60.0
AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its model, when it was due and answered (monotonic seconds), the HTTP status (0: none) and what was wrong."""

    model: str
    due: float
    done: float
    status: int
    problem: str

    @property
    def latency_seconds(self) -> float:
        """From when it was due."""
        return self.done - self.due


def request_body(model: str, number: int) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a model's next request."""
    if model == "content-type":
        content = CODE.encode()
        data = len(content).to_bytes(4, "little") + content
        head = {"name": "CONTENT", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
        header = json.dumps({"inputs": [head], "parameters": {"binary_data_output": False}}).encode()
        kind = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
        return header + data, kind
    name, text = ("PROMPT", QUESTION) if model == "general" else ("TEXT", TEXTS[number % len(TEXTS)])
    body = {"inputs": [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


class Traffic:
    """Poisson arrivals for each model at the rates last set, until left. `asked` holds every request that ended."""

    def __init__(self, base: str, namespace: str, seed: int) -> None:
        self.asked: list[Asked] = []
        self.rates: Mapping[str, float] = {}
        self._base, self._namespace, self._seed = base, namespace, seed
        self._tasks: list[asyncio.Task[None]] = []
        self._requests: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Traffic":
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._requests, return_exceptions=True)
        assert self._session is not None
        await self._session.close()

    def start(self, models: list[str]) -> None:
        """Begin to ask these models, at the rates that stand in `rates`."""
        self._tasks = [asyncio.create_task(self._stream(model, number)) for number, model in enumerate(models)]

    async def one(self, model: str, number: int = 0, due: float | None = None) -> Asked:
        """One request, noted."""
        assert self._session is not None
        due = time.monotonic() if due is None else due
        body, headers = request_body(model, number)
        url = f"{self._base}/v2/models/{self._namespace}.{model}/infer"
        status, problem = 0, ""
        try:
            async with self._session.post(url, data=body, headers=headers) as answer:
                status, text = answer.status, await answer.text()
                problem = "" if status == 200 and '"outputs"' in text else f"HTTP {status}: {text[:160]}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = f"{type(error).__name__}: {error}"
        asked = Asked(model, due, time.monotonic(), status, problem)
        self.asked.append(asked)
        return asked

    async def _stream(self, model: str, number: int) -> None:
        chance = random.Random(f"{self._seed}/{model}")
        due, count = time.monotonic(), number
        while True:
            rate = self.rates.get(model, 0.0)
            if rate <= 0:
                await asyncio.sleep(0.1)
                due = time.monotonic()
                continue
            due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            count += 1
            task = asyncio.create_task(self._noted(model, count, due))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    async def _noted(self, model: str, number: int, due: float) -> None:
        await self.one(model, number, due)


class MeanOf:
    """The mean slope of a growing figure over the last so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: deque[tuple[float, float]] = deque()

    def take(self, at: float, total: float) -> float | None:
        """With one more reading; None before half the time was seen."""
        self._seen.append((at, total))
        while len(self._seen) > 2 and self._seen[1][0] <= at - self._seconds:
            self._seen.popleft()
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began) if ended - began >= 0.5 * self._seconds else None
