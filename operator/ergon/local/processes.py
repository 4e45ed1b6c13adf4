"""Components as processes: started with a log file, started again when they fail, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_RESTART_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_HEALTHY_SECONDS = 30.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class ComponentState:
    """What `status` shows of a component."""

    name: str
    pid: int
    restarts: int
    running: bool


class Component:
    """One long-lived process; its output is appended to its log file."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._restarts = 0
        self._keeper: asyncio.Task[None] | None = None

    @property
    def state(self) -> ComponentState:
        process = self._process
        running = process is not None and process.returncode is None
        return ComponentState(self.name, process.pid if process and running else 0, self._restarts, running)

    def start(self) -> None:
        """Keep the component running from now on."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=self.name)

    async def stop(self) -> None:
        """End the component: SIGTERM, and SIGKILL when it takes longer than five seconds."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _keep(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            code = await self._run_once()
            if time.monotonic() - started > _HEALTHY_SECONDS:
                failures = 0
            self._note(f"ergon: {self.name} ended with status {code}; starting it again\n")
            await asyncio.sleep(_RESTART_SECONDS[min(failures, len(_RESTART_SECONDS) - 1)])
            failures += 1
            self._restarts += 1

    async def _run_once(self) -> int:
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            self._note(f"ergon: {self._command[0]}: {error.strerror}\n")
            return 127
        finally:
            os.close(descriptor)
        return await self._process.wait()

    def _note(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(line)


def terminate(pid: int, seconds: float) -> None:
    """End a process of ours and wait until it is gone: SIGTERM first, SIGKILL after `seconds`. Gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            if not _ended(descriptor, seconds):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                _ended(descriptor, seconds)
        finally:
            os.close(descriptor)


def _ended(descriptor: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
