"""An energy meter for Triton servers on a processor that has none: CPU seconds of a server's processes times stated watts.

It knows nothing of the operator. It reads /proc, keeps a truth of its own, and stands at each server's metrics address in front
of Triton's page, to which it adds a counter shaped like a GPU's: joules since Triton started, a second old, read at uneven times.
"""

import asyncio
import os
import random
import re
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

TICK_SECONDS = 0.2
LAG_SECONDS = 1.0
JITTER_SECONDS = 0.3
METRICS_PORT = 8002
TRITON_ARGUMENT = "--metrics-port=8012"
"""What the pool gives Triton, so that the meter can stand at the port where the operator looks."""
_TRITON_PORT = 8012
_TICKS = os.sysconf("SC_CLK_TCK")
_ADDRESS = re.compile(r"--http-address=(\S+)")
_MODEL = re.compile(r"/models/([a-z0-9-]+\.[a-z0-9-]+)/")


@dataclass
class Truth:
    """What was used since the meter began. CPU seconds by model are those of its own processes."""

    joules: float = 0.0
    cpu_seconds: float = 0.0
    on_seconds: float = 0.0
    model_cpu_seconds: dict[str, float] = field(default_factory=dict)

    def since(self, before: "Truth") -> "Truth":
        """What came after `before`."""
        models = {name: cpu - before.model_cpu_seconds.get(name, 0.0) for name, cpu in self.model_cpu_seconds.items()}
        return Truth(
            self.joules - before.joules, self.cpu_seconds - before.cpu_seconds, self.on_seconds - before.on_seconds, models
        )


@dataclass
class _Server:
    address: str
    pid: int
    joules: float = 0.0
    shown: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=64))
    """(monotonic seconds, joules), oldest first."""


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    started: int
    cpu_seconds: float


class Meter:
    """Runs from entering to leaving. Watts are those of a server: `idle_watts` when on, `core_watts` more for each busy core."""

    def __init__(self, idle_watts: float, core_watts: float, chance: random.Random) -> None:
        self.truth = Truth()
        self.problem = ""
        self._idle_watts, self._core_watts, self._chance = idle_watts, core_watts, chance
        self._servers: dict[str, _Server] = {}
        self._ended: dict[str, float] = {}
        self._seen: dict[tuple[int, int], float] = {}
        self._named: dict[tuple[int, int], str] = {}
        self._runners: dict[str, web.AppRunner] = {}
        self._at = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Meter":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=4))
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        assert self._session is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for runner in self._runners.values():
            await runner.cleanup()
        await self._session.close()

    def now(self) -> Truth:
        """The truth so far."""
        return Truth(self.truth.joules, self.truth.cpu_seconds, self.truth.on_seconds, dict(self.truth.model_cpu_seconds))

    def pids(self) -> list[int]:
        """Of the Triton processes that run now."""
        return [server.pid for server in self._servers.values()]

    async def _run(self) -> None:
        while True:
            try:
                self._tick()
                await self._stand_at_new_servers()
            except Exception as error:
                self.problem = self.problem or f"{type(error).__name__}: {error}"
            await asyncio.sleep(TICK_SECONDS)

    def _tick(self) -> None:
        now = time.monotonic()
        seconds, self._at = now - self._at, now
        processes = {process.pid: process for process in _processes()}
        self._find_servers(processes)
        children: dict[int, list[int]] = {}
        for process in processes.values():
            children.setdefault(process.parent, []).append(process.pid)
        for server in self._servers.values():
            used = 0.0
            todo = [(server.pid, "")]
            while todo:
                pid, model = todo.pop()
                more, model = self._used(processes[pid], model)
                used += more
                todo += [(child, model) for child in children.get(pid, ())]
            joules = seconds * self._idle_watts + used * self._core_watts
            server.joules += joules
            server.shown.append((now, server.joules))
            self.truth.joules += joules
            self.truth.cpu_seconds += used
            self.truth.on_seconds += seconds

    def _used(self, process: _Process, model: str) -> tuple[float, str]:
        """CPU seconds since the last tick, and the model whose process this is: what it started is its own too."""
        key = (process.pid, process.started)
        used = process.cpu_seconds - self._seen.get(key, 0.0)
        self._seen[key] = process.cpu_seconds
        if key not in self._named:
            found = _MODEL.search(_command(process.pid))
            self._named[key] = found.group(1) if found else ""
        if name := self._named[key] or model:
            self.truth.model_cpu_seconds[name] = self.truth.model_cpu_seconds.get(name, 0.0) + used
        return used, name

    def _find_servers(self, processes: dict[int, _Process]) -> None:
        known = {server.pid for server in self._servers.values()}
        for address, server in list(self._servers.items()):
            if server.pid not in processes:
                self._ended[address] = time.monotonic()
                del self._servers[address]
        for pid in processes.keys() - known:
            command = _command(pid)
            if "tritonserver" in command.partition(" ")[0] and TRITON_ARGUMENT in command:
                found = _ADDRESS.search(command)
                # A launcher shows the same arguments until it becomes Triton: the deepest of a family counts, and it comes last.
                if found is not None:
                    address = found.group(1)
                    self._servers[address] = _Server(address, pid)
                    # Its device was on while Triton was started again in the same pod.
                    away = time.monotonic() - self._ended.pop(address, time.monotonic())
                    self.truth.joules += away * self._idle_watts
                    self.truth.on_seconds += away

    async def _stand_at_new_servers(self) -> None:
        for address in self._servers.keys() - self._runners.keys():
            application = web.Application()
            application.router.add_get("/metrics", self._page)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, address, METRICS_PORT).start()
            self._runners[address] = runner

    async def _page(self, request: web.Request) -> web.Response:
        address = request.host.partition(":")[0]
        assert self._session is not None
        try:
            async with self._session.get(f"http://{address}:{_TRITON_PORT}/metrics") as answer:
                page = await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return web.Response(status=502, text=str(error))
        server = self._servers.get(address)
        if server is not None and server.shown:
            seen_at = time.monotonic() - LAG_SECONDS - self._chance.random() * JITTER_SECONDS
            joules = next((joules for at, joules in reversed(server.shown) if at <= seen_at), server.shown[0][1])
            page += f'# TYPE nv_energy_consumption counter\nnv_energy_consumption{{gpu_uuid="meter-{address}"}} {joules:.6f}\n'
        return web.Response(text=page)


def _processes() -> list[_Process]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            cpu = (int(fields[11]) + int(fields[12])) / _TICKS
            found.append(_Process(int(folder.name), int(fields[1]), int(fields[19]), cpu))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
