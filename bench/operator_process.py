"""The operator as one process of the machine, started as a user's Deployment starts it, and what it costs."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench.common import RESULTS, BenchFailed

PORT = 18080
WRITES = {"APPLY", "POST", "PUT", "PATCH", "DELETE"}
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a process has used so far: CPU seconds, resident bytes now and at most."""

    cpu_seconds: float
    resident_bytes: int
    peak_bytes: int


class Operator:
    """One `ergon run` without a Lease, its log under bench/results. `started_at` is monotonic seconds."""

    def __init__(
        self, log_name: str, *, gateway: bool = False, connection_age_seconds: int = 10, more: Sequence[str] = ()
    ) -> None:
        self.started_at = 0.0
        self.log = RESULTS / f"{log_name}.log"
        self._arguments = [
            "--no-lease",
            "--address=127.0.0.1",
            f"--port={PORT}",
            "--log-format=text",
            "--allow-private-addresses",
            f"--connection-age={connection_age_seconds}",
            *(["--gateway=ergon-gateway/ergon"] if gateway else []),
            *more,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> "Operator":
        self.log.unlink(missing_ok=True)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it and wait until it says that it is ready. The log goes on where it ended."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        command = [str(Path(sys.executable).parent / "ergon"), "run", *self._arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork, and its pid is wanted at once
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.started_at = time.monotonic()
        while time.monotonic() < self.started_at + _START_SECONDS:
            if self._process.poll() is not None:
                raise BenchFailed(f"the operator ended with {self._process.returncode}; see bench/results/{self.log.name}")
            if await self._ready():
                return
            await asyncio.sleep(0.05)
        raise BenchFailed(f"the operator is not ready after {_START_SECONDS:g} s; see bench/results/{self.log.name}")

    async def stop(self) -> None:
        """End it by SIGTERM, as Kubernetes does."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def kill(self) -> None:
        """End it as a crash does, with no time to say anything."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    def usage(self) -> Usage:
        """What the process has used. Raises BenchFailed where it is gone."""
        if self._process is None or self._process.poll() is not None:
            raise BenchFailed(f"the operator ended on its own; see bench/results/{self.log.name}")
        return usage_of(self._process.pid)

    async def metrics(self) -> dict[str, float]:
        """Its metrics, by name and labels as they stand on the page: `name{a="b"}`."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{PORT}/metrics") as answer:
            text = await answer.text()
        return {
            sample.name
            + ("{" + ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items())) + "}" if sample.labels else ""): (
                sample.value
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def writes(self) -> int:
        """Calls so far that change something in the API server, by its own count."""
        total = 0.0
        for name, value in (await self.metrics()).items():
            if name.startswith("ergon_kubernetes_requests_total{") and any(f'verb="{verb}"' in name for verb in WRITES):
                total += value
        return int(total)

    async def synced(self, models: int, seconds: float) -> float:
        """Until it knows so many models, has been through all of them once, and has nothing left to write.

        Returns the seconds since its start.
        """
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            seen = await self.metrics()
            passes = seen.get('ergon_phase_seconds_count{phase="pass"}', 0)
            queued = sum(value for name, value in seen.items() if name.startswith("ergon_queue_depth"))
            if seen.get('ergon_models{state="known"}', 0) >= models and passes >= 1 and not queued:
                return time.monotonic() - self.started_at
            await asyncio.sleep(0.2)
        raise BenchFailed(f"the operator is not synced after {seconds:g} s; see bench/results/{self.log.name}")

    def problems(self) -> list[str]:
        """Lines of its log that speak of an error, without their time."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if " ERROR " in line or "Traceback" in line]

    async def _ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{PORT}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


def usage_of(pid: int) -> Usage:
    """What a process, threads included, has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return Usage(
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        resident_bytes=_kilobytes(status["VmRSS"]),
        peak_bytes=_kilobytes(status["VmHWM"]),
    )


def _kilobytes(text: str) -> int:
    return int(text.split()[0]) * 1024
