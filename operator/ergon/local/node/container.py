"""A container's life on a node: configured, started, probed, started again with back-off, stopped with grace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from ergon.local.kubeclient import ApiError
from ergon.local.node import environment, probes
from ergon.local.node.backoff import Backoff
from ergon.local.node.context import PodContext
from ergon.local.node.environment import ConfigurationError
from ergon.local.node.images import SHIM_TARGET, Launcher, UnknownImage, command_line
from ergon.local.node.mounts import Mount
from ergon.local.node.process import ContainerProcess, ProcessSpec, StartError
from ergon.local.node.root import steps_for
from ergon.local.node.status import ContainerView, Running, Terminated, Waiting, now
from ergon.local.node.volumes import read_sources
from ergon.local.state import API_SERVICE_ADDRESS

Object = dict[str, Any]

_PATH = f"{SHIM_TARGET}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONFIGURE_AGAIN_SECONDS = 2.0
_MESSAGE_BYTES = 4096
_LOG_BYTES = 64 << 20
_MINIMUM_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class User:
    """The user and group that a container runs as."""

    user: int
    group: int


class ContainerRunner:
    """One container of one pod."""

    def __init__(self, pod: PodContext, container: Object, restart_policy: str) -> None:
        self.view = ContainerView(container["name"], container["image"])
        self._pod = pod
        self._container = container
        self._restart_policy = restart_policy
        self._process: ContainerProcess | None = None
        self._stopping = False
        self._task: asyncio.Task[int | None] | None = None
        self._runs = 0
        self.running = asyncio.Event()
        """Set once the container has started (its startup probe passed), for what waits on a sidecar."""

    def carry_on(self, restarts: int) -> None:
        """Count from where an earlier life of this node has left off."""
        self.view.restarts = self._runs = restarts

    def start(self) -> asyncio.Task[int | None]:
        """Begin the container's life; the task's result is the last exit code."""
        self._task = asyncio.get_running_loop().create_task(self._live())
        return self._task

    async def stop(self, grace_seconds: float) -> None:
        """End it for good: preStop hook, SIGTERM, and SIGKILL when the grace period is over."""
        self._stopping = True
        if self._task is None or self._task.done():
            return
        process = self._process
        if process is None:
            self._task.cancel()
        else:
            deadline = time.monotonic() + grace_seconds
            await self._pre_stop(process, grace_seconds)
            await process.stop(max(deadline - time.monotonic(), min(_MINIMUM_GRACE_SECONDS, grace_seconds)))
        await asyncio.gather(self._task, return_exceptions=True)

    def kill(self) -> None:
        """End it at once, as a node that loses power does."""
        self._stopping = True
        if self._process is not None:
            self._process.send(signal.SIGKILL)
        if self._task is not None:
            self._task.cancel()

    def log_file(self, previous: bool = False) -> Path:
        """The output of the current run, or of the one before it."""
        return self._pod.container_folder(self.view.name) / f"{max(self._runs - (2 if previous else 1), 0)}.log"

    def trim_log(self) -> None:
        """Begin the log anew when it has grown too large; the container goes on appending to it."""
        log = self.log_file()
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > _LOG_BYTES:
                os.truncate(log, 0)

    def writes(self, log: Path) -> bool:
        """Whether the container runs and its output goes to this file."""
        return self._process is not None and self.log_file() == log

    async def execute(self, command: list[str], seconds: float) -> tuple[int, str]:
        """Run a command in the running container."""
        if self._process is None:
            return 1, "the container does not run"
        return await self._process.execute(command, seconds)

    async def _live(self) -> int | None:
        backoff = Backoff()
        while True:
            begun = time.monotonic()
            code = await self._run_once()
            if self._stopping or not self._starts_again(code):
                return code
            delay = backoff.after(time.monotonic() - begun)
            if delay > 0:
                await self._back_off(delay)
            if isinstance(self.view.state, Terminated):
                self.view.last = self.view.state  # with the count, so that nobody sees a restart of which nothing is told
            self.view.restarts += 1

    def _starts_again(self, code: int) -> bool:
        return self._restart_policy == "Always" or (self._restart_policy == "OnFailure" and code != 0)

    async def _back_off(self, delay: float) -> None:
        if isinstance(self.view.state, Terminated):
            self.view.last = self.view.state
        message = f"back-off {delay:.0f}s restarting failed container={self.view.name} pod={self._pod.full_name}"
        self._wait_in(Waiting("CrashLoopBackOff", message))
        self._pod.warn("BackOff", message, self.view.name)
        await asyncio.sleep(delay)

    async def _run_once(self) -> int:
        """One run from configuration to exit code; a start that fails counts as a run with code 128."""
        spec, log = await self._configured()
        started_at = now()
        try:
            self._process = await ContainerProcess.start(spec, log)
        except (StartError, OSError) as error:
            self._end(128, "StartError", started_at, str(error))
            self._pod.warn("Failed", f"Error: {error}", self.view.name)
            return 128
        if self._stopping:
            self._process.send(signal.SIGKILL)
        if isinstance(self.view.state, Terminated):
            self.view.last = self.view.state
        self.view.container_id = f"process://{uuid.uuid4().hex}"
        self.view.state = Running(started_at)
        watcher = asyncio.get_running_loop().create_task(self._probe(self._process))
        self._pod.changed()
        try:
            code = await self._process.wait()
        finally:
            watcher.cancel()
            self._process.send(signal.SIGKILL)
            self._process = None
            self.view.ready = self.view.started = False
        await asyncio.gather(watcher, return_exceptions=True)
        self._end(code, "Completed" if code == 0 else "Error", started_at, self._last_words(code))
        return code

    def _end(self, code: int, reason: str, started_at: str, message: str) -> None:
        self.view.state = Terminated(code, reason, started_at, now(), message)
        self._pod.changed()

    def _wait_in(self, state: Waiting) -> None:
        if self.view.state != state:
            self.view.state = state
            self._pod.changed()

    async def _configured(self) -> tuple[ProcessSpec, Path]:
        """The launcher, the environment and the mounts; waits, and says why, until they can be had."""
        pulls = Backoff(first_seconds=5.0)
        while True:
            try:
                spec = await self._specification(self._pod.images.find(self._container["image"]))
                break
            except UnknownImage as error:
                self._pod.warn("Failed", f"Failed to pull image: {error}", self.view.name)
                self._wait_in(Waiting("ErrImagePull", str(error)))
                await asyncio.sleep(1.0)
                self._wait_in(Waiting("ImagePullBackOff", str(error)))
                await asyncio.sleep(pulls.after(0.0))
            except (ConfigurationError, ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                self._pod.warn("Failed", f"Error: {error}", self.view.name)
                self._wait_in(Waiting("CreateContainerConfigError", str(error)))
                await asyncio.sleep(_CONFIGURE_AGAIN_SECONDS)
        folder = self._pod.container_folder(self.view.name)
        self._runs += 1
        with contextlib.suppress(FileNotFoundError):
            (folder / f"{self._runs - 3}.log").unlink()
        return spec, folder / f"{self._runs - 1}.log"

    async def _specification(self, launcher: Launcher) -> ProcessSpec:
        container, pod = self._container, self._pod
        user = self._user(launcher)
        base = {
            "PATH": _PATH,
            "HOME": "/root" if user.user == 0 else "/",
            "HOSTNAME": pod.hostname,
            "KUBERNETES_SERVICE_HOST": API_SERVICE_ADDRESS,
            "KUBERNETES_SERVICE_PORT": "443",
            "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        }
        sources = await read_sources(pod.api, pod.object, container)
        variables = environment.build(pod.object, container, base, sources, pod.facts, pod.node_capacity)
        command = [environment.expand(word, variables) for word in container.get("command") or []]
        arguments = [environment.expand(word, variables) for word in container.get("args") or []]
        folder = pod.container_folder(self.view.name)
        root = folder / "root"
        root.mkdir(parents=True, exist_ok=True)
        message = folder / "termination-log"
        message.write_text("")
        mounts = [
            Mount(container.get("terminationMessagePath") or "/dev/termination-log", str(message), folder=False),
            *pod.volumes.mounts(container, variables),
        ]
        line = command_line(launcher, command, arguments)
        if not line:
            raise ConfigurationError(f"image {container['image']} has no command of its own and the container gives none")
        return ProcessSpec(
            root=str(root),
            steps=steps_for(pod.mirrors, pod.files, pod.shims / launcher.name, mounts),
            hostname=pod.hostname,
            command=line,
            environment=variables,
            folder=container.get("workingDir") or "/",
            user=user.user,
            group=user.group,
            read_only_root=bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem")),
        )

    def _user(self, launcher: Launcher) -> User:
        """Raises ConfigurationError where runAsNonRoot meets an image that runs as root, in the kubelet's words."""
        own = {**(self._pod.object["spec"].get("securityContext") or {}), **(self._container.get("securityContext") or {})}
        user = own.get("runAsUser")
        if user is None:
            user = launcher.user
            if own.get("runAsNonRoot") and user == 0:
                raise ConfigurationError("container has runAsNonRoot and image will run as root")
        elif own.get("runAsNonRoot") and user == 0:
            raise ConfigurationError("container's runAsUser breaks non-root policy")
        group = own.get("runAsGroup")
        return User(int(user), int(group if group is not None else 0))

    def _last_words(self, code: int) -> str:
        """The termination message, or the end of the log where the container asks for that."""
        with contextlib.suppress(OSError):
            text = (self._pod.container_folder(self.view.name) / "termination-log").read_bytes()
            if not text and code and self._container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
                text = self.log_file().read_bytes()[-_MESSAGE_BYTES // 2 :]
            return text[:_MESSAGE_BYTES].decode(errors="replace")
        return ""

    async def _pre_stop(self, process: ContainerProcess, seconds: float) -> None:
        hook = ((self._container.get("lifecycle") or {}).get("preStop")) or {}
        try:
            async with asyncio.timeout(seconds):
                if "sleep" in hook:
                    await asyncio.sleep(float(hook["sleep"]["seconds"]))
                elif hook:
                    spec = probes.ProbeSpec.of({**hook, "timeoutSeconds": seconds})
                    await probes.attempt(spec, self._container, self._pod.address, process.execute)
        except TimeoutError:
            self._pod.warn("FailedPreStopHook", "the preStop hook outlived the grace period", self.view.name)

    async def _probe(self, process: ContainerProcess) -> None:
        """The startup probe first, then readiness and liveness together, until the container ends."""
        startup = self._container.get("startupProbe")
        if startup and not await self._await_startup(process, probes.ProbeSpec.of(startup)):
            return
        self.view.started = True
        readiness, liveness = self._container.get("readinessProbe"), self._container.get("livenessProbe")
        self.view.ready = not readiness
        self.running.set()
        self._pod.changed()
        async with asyncio.TaskGroup() as group:
            if readiness:
                group.create_task(self._watch_readiness(process, probes.ProbeSpec.of(readiness)))
            if liveness:
                group.create_task(self._watch_liveness(process, probes.ProbeSpec.of(liveness)))

    async def _await_startup(self, process: ContainerProcess, spec: probes.ProbeSpec) -> bool:
        verdict = probes.Verdict(spec, initially=False)
        await asyncio.sleep(spec.initial_delay_seconds)
        while True:
            await self._try(process, spec, verdict, "Startup")
            if verdict.passing:
                return True
            if verdict.reached_failure:
                await self._kill_for(process, spec, "startup")
                return False
            await asyncio.sleep(spec.period_seconds)

    async def _watch_readiness(self, process: ContainerProcess, spec: probes.ProbeSpec) -> None:
        verdict = probes.Verdict(spec, initially=False)
        await asyncio.sleep(spec.initial_delay_seconds)
        while True:
            await self._try(process, spec, verdict, "Readiness")
            if self.view.ready != verdict.passing:
                self.view.ready = verdict.passing
                self._pod.changed()
            await asyncio.sleep(spec.period_seconds)

    async def _watch_liveness(self, process: ContainerProcess, spec: probes.ProbeSpec) -> None:
        verdict = probes.Verdict(spec, initially=True)
        await asyncio.sleep(spec.initial_delay_seconds)
        while True:
            await self._try(process, spec, verdict, "Liveness")
            if verdict.reached_failure:
                await self._kill_for(process, spec, "liveness")
                return
            await asyncio.sleep(spec.period_seconds)

    async def _try(self, process: ContainerProcess, spec: probes.ProbeSpec, verdict: probes.Verdict, kind: str) -> None:
        success, message = await probes.attempt(spec, self._container, self._pod.address, process.execute)
        verdict.add(success)
        if not success:
            self._pod.warn("Unhealthy", f"{kind} probe failed: {message}", self.view.name)

    async def _kill_for(self, process: ContainerProcess, spec: probes.ProbeSpec, kind: str) -> None:
        self._pod.note("Killing", f"Container {self.view.name} failed {kind} probe, will be restarted", self.view.name)
        grace = spec.grace_seconds
        await process.stop(float(self._pod.grace_seconds if grace is None else grace))
