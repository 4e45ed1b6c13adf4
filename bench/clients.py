"""Steady clients of one model in a process of their own, so that what the bench itself does is not in their latencies.

Each client sends one request after another over one connection that it keeps, at a fixed rate. A latency counts from when the
request was due, so that a server that stands still for a second costs every request that fell into it.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.common import ROOT, BenchFailed, percentile

TIMEOUT_SECONDS = 10.0
FIRST_ANSWER_SECONDS = 20.0
_ROUTE_HEADER = "ergon-model"


@dataclass(frozen=True)
class Answer:
    """One request: when it was due and answered (monotonic seconds), and what went wrong (empty: nothing)."""

    due: float
    done: float
    problem: str

    @property
    def latency_seconds(self) -> float:
        """From when it was due."""
        return self.done - self.due


class Clients:
    """Clients that run in another process from entering to leaving; `answers` by client name afterwards."""

    def __init__(self, model: str, rate: float, http: dict[str, str], grpc: dict[str, str], seed: int) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self._command = [sys.executable, "-m", "bench.clients", "--model", model, "--rate", str(rate), "--seed", str(seed)]
        for protocol, targets in (("http", http), ("grpc", grpc)):
            for name, target in targets.items():
                self._command += [f"--{protocol}", f"{name}={target}"]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Clients":
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, cwd=ROOT, limit=1 << 28)
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != b"answered\n":
            raise BenchFailed("the clients got no first answer; what they said stands above")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        output, _unused = await self._process.communicate(b"")  # and the end of its input
        if self._process.returncode == 0:
            self.answers = {name: [Answer(*answer) for answer in found] for name, found in json.loads(output).items()}


def between(answers: list[Answer], begin: float, end: float) -> list[Answer]:
    """Those that were due in a span of time."""
    return [answer for answer in answers if begin <= answer.due < end]


def p99_seconds(answers: list[Answer]) -> float:
    """99th percentile of the latencies. Raises BenchFailed where there are too few to have one."""
    if len(answers) < 100:
        raise BenchFailed(
            f"only {len(answers)} requests fell into the time that was measured; lower the rate of change or raise --rate"
        )
    return percentile([answer.latency_seconds for answer in answers], 0.99)


# What runs in the other process

Ask = Callable[[], Awaitable[str]]


async def _steady(ask: Ask, rate: float, offset: float, stop: asyncio.Event, answers: list[Answer]) -> None:
    due = time.monotonic() + offset
    while not stop.is_set():
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        problem = await ask()
        answers.append(Answer(due, time.monotonic(), problem))
        due += 1 / rate


def _http(session: aiohttp.ClientSession, model: str, base: str) -> Ask:
    body = json.dumps({"inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [21.0]}]}).encode()
    url = f"{base}/v2/models/{model}/infer"

    async def ask() -> str:
        try:
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                text = await answer.text()
                right = answer.status == 200 and json.loads(text)["outputs"][0]["data"] == [42.0]
                return "" if right else f"HTTP {answer.status}: {text[:200]}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{type(error).__name__}: {error}"

    return ask


def _grpc(model: str, target: str) -> tuple[Ask, grpc.aio.Channel]:
    channel = grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="X", datatype="FP32", shape=[1]).contents.fp32_contents.append(21.0)

    async def ask() -> str:
        try:
            answer = await stub.ModelInfer(request, timeout=TIMEOUT_SECONDS, metadata=((_ROUTE_HEADER, model),))
            return "" if len(answer.raw_output_contents) == 1 else "an answer without an output"
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {str(error.details())[:200]}"

    return ask, channel


async def _first_answer(name: str, ask: Ask) -> None:
    """Until the client has had a right answer, since routes may not be there yet; one that never gets one fails from then on."""
    ends_at = time.monotonic() + FIRST_ANSWER_SECONDS
    while problem := await ask():
        if time.monotonic() > ends_at:
            sys.stderr.write(f"{name} has no right answer after {FIRST_ANSWER_SECONDS:g} s: {problem}\n")
            return
        await asyncio.sleep(0.1)


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)  # the end of stdin ends the clients
    asks: dict[str, Ask] = {}
    sessions, channels = [], []
    for name, target in arguments.http:
        connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=300)
        sessions.append(aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)))
        asks[name] = _http(sessions[-1], arguments.model, target)
    for name, target in arguments.grpc:
        asks[name], channel = _grpc(arguments.model, target)
        channels.append(channel)
    await asyncio.gather(*(_first_answer(name, ask) for name, ask in asks.items()))
    sys.stdout.write("answered\n")
    sys.stdout.flush()
    chance = random.Random(arguments.seed)
    answers: dict[str, list[Answer]] = {name: [] for name in asks}
    await asyncio.gather(
        *(_steady(ask, arguments.rate, chance.random() / arguments.rate, stop, answers[name]) for name, ask in asks.items())
    )
    for session in sessions:
        await session.close()
    for channel in channels:
        await channel.close()
    json.dump({name: [(a.due, a.done, a.problem) for a in found] for name, found in answers.items()}, sys.stdout)


def _pair(text: str) -> tuple[str, str]:
    name, equals, target = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=target")
    return name, target


def main() -> int:
    """Entry point of the clients' process."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True, help="name that Triton knows it by: <namespace>.<name>")
    options.add_argument("--rate", type=float, default=20.0, help="requests a second of each client")
    options.add_argument("--seed", type=int, default=1, help="seed of when in their period the clients begin")
    options.add_argument("--http", type=_pair, action="append", default=[], help="name=http://host:port of a client")
    options.add_argument("--grpc", type=_pair, action="append", default=[], help="name=host:port of a client")
    asyncio.run(_run(options.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
