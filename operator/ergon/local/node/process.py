"""One run of a container as a process: started through the starter, signalled, waited for; commands executed beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ergon.local.node.mounts import Step

_STARTER = str(Path(__file__).with_name("starter.py"))
_ENTRY = str(Path(__file__).with_name("entry.py"))
_OUTPUT_BYTES = 10240


class StartError(Exception):
    """The container's program could not be executed, and why."""


@dataclass(frozen=True)
class ProcessSpec:
    """All that the starter needs; `root` is an empty folder of this container's own."""

    root: str
    steps: tuple[Step, ...]
    hostname: str
    command: list[str]
    environment: dict[str, str]
    folder: str = "/"
    user: int = 0
    group: int = 0
    read_only_root: bool = False


class ContainerProcess:
    """A started container."""

    def __init__(self, spec: ProcessSpec, process: asyncio.subprocess.Process, inner_pid: int) -> None:
        self._spec = spec
        self._process = process
        self._inner_pid = inner_pid

    @classmethod
    async def start(cls, spec: ProcessSpec, log: Path) -> ContainerProcess:
        """Start a container whose output goes to `log`; returns once its program is executed. Raises StartError."""
        reader, writer = os.pipe()
        memory = _hand_over(spec)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _STARTER, str(memory), str(writer)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(memory, writer),
                env={},
                start_new_session=True,
            )
        finally:
            for descriptor in (memory, writer, output):
                os.close(descriptor)
        try:
            pid, _, failure = (await _read_all(reader)).partition("\n")
        except asyncio.CancelledError:
            process.kill()
            raise
        if failure or not pid:
            await process.wait()
            raise StartError(failure.strip() or "the starter ended without a word; see the container's log")
        return cls(spec, process, int(pid))

    async def wait(self) -> int:
        """The exit code, 128 + n for signal n."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    def send(self, number: signal.Signals) -> None:
        """Signal the container's first process; SIGKILL ends all of its processes. One that has ended is left alone."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.kill(self._inner_pid, number)
            else:
                self._process.send_signal(number)

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL for the whole container when it outlives the grace period."""
        if self._process.returncode is not None:
            return
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), max(grace_seconds, 0.0))
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()

    async def execute(self, command: list[str], seconds: float) -> tuple[int, str]:
        """Run a command inside the container: its exit status and its output. Raises TimeoutError."""
        memory = _hand_over(
            ProcessSpec("", (), "", command, self._spec.environment, self._spec.folder),
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _ENTRY, str(self._inner_pid), str(memory)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(memory,),
                env={},
            )
        finally:
            os.close(memory)
        try:
            async with asyncio.timeout(seconds):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        return process.returncode or 0, output[-_OUTPUT_BYTES:].decode(errors="replace")


def _hand_over(spec: ProcessSpec) -> int:
    """The spec in a memory file: environments hold secrets, so it never touches the disk."""
    memory = os.memfd_create("container")
    with os.fdopen(os.dup(memory), "w") as file:
        json.dump(asdict(spec), file)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


async def _read_all(descriptor: int) -> str:
    """Everything until the last writer closed the pipe."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb"))
    try:
        return (await reader.read()).decode(errors="replace")
    finally:
        transport.close()
