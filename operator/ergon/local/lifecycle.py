"""Bringing a cluster up and taking it down: from nothing to ready, and back to nothing but the cache."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ergon.local import namespaces, processes
from ergon.local.node.addresses import node_address
from ergon.local.state import ClusterRecord, Layout, LocalError, NodeSpec, reserved_ports

if TYPE_CHECKING:
    from ergon.local.progress import Progress

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_CONTROL_SECONDS = 15.0

INNER_GATEWAY = "http://10.96.0.20"
"""The Gateway as clients inside the cluster reach it."""

DEFAULT_NODES = (
    NodeSpec("cpu-0", "cpu"),
    NodeSpec("gpu-0", "gpu", (("nvidia.com/gpu", 4),), simulated=True, zone="local-b"),
    NodeSpec("tpu-0", "tpu", (("google.com/tpu", 4),), simulated=True, zone="local-b"),
    NodeSpec("npu-0", "npu", (("ergon.dev/npu", 4),), simulated=True, zone="local-c"),
)


def up(layout: Layout, models: Path | None, progress: Progress) -> tuple[ClusterRecord, bool]:
    """Bring the cluster up, or find it up already; returns its record and whether it was started now."""
    namespaces.require_user_namespaces()
    with layout.lock():
        record = ClusterRecord.load(layout.record)
        if record is not None and record.alive:
            if models is not None and Path(record.models) != models:
                raise LocalError(f"cluster {layout.name!r} runs with models from {record.models}: run `ergon local down` first")
            if not read_health(layout).get("ready"):
                _await_ready(layout, record, progress)
            return record, False
        _clean(layout, record)
        record = _prepare(layout, models, progress)
        _start_supervisor(layout)
        try:
            return _await_ready(layout, record, progress), True
        except LocalError:
            _clean(layout, ClusterRecord.load(layout.record), keep_logs=True)
            raise


def down(layout: Layout) -> bool:
    """End every process and remove every file of the cluster but its models; returns whether there was one."""
    if not layout.root.exists():
        return False
    with layout.lock():
        record = ClusterRecord.load(layout.record)
        existed = record is not None
        _clean(layout, record)
    return existed


def _prepare(layout: Layout, models: Path | None, progress: Progress) -> ClusterRecord:
    """Everything that must lie there before the supervisor starts."""
    # Imported here, since `exec`, which scripts and tests call often, would else take twice as long to start.
    from ergon.local import binaries, certificates, triton_env

    triton_env.require_python()
    found = binaries.provide(progress)
    environment = triton_env.provide(progress)
    for folder in (layout.logs, layout.sockets, layout.nodes):
        folder.mkdir(parents=True, exist_ok=True)
    layout.root.chmod(0o700)
    folder = models or layout.default_models
    folder.mkdir(parents=True, exist_ok=True)
    addresses = {node.name: node_address(index) for index, node in enumerate(DEFAULT_NODES)}
    with reserved_ports(layout.name) as (api_port, gateway_port):
        certificates.create_all(layout, api_port, addresses)
        record = ClusterRecord(
            name=layout.name,
            api_port=api_port,
            gateway_port=gateway_port,
            models=str(folder),
            cpus=os.cpu_count() or 1,
            memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            binaries={name: str(path) for name, path in found.items()},
            triton_environment=str(environment),
            nodes=DEFAULT_NODES,
        )
        record.save(layout.record)
    return record


def _start_supervisor(layout: Layout) -> None:
    """Start the daemon in a session of its own: it outlives this terminal."""
    with (layout.logs / "supervisor.log").open("a") as log:
        subprocess.Popen(
            [sys.executable, "-m", "ergon.local.supervisor", layout.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.root,
            start_new_session=True,
        )


def _await_ready(layout: Layout, record: ClusterRecord, progress: Progress) -> ClusterRecord:
    """Wait until the cluster says that it is ready; raises LocalError that names the logs when it does not get there."""
    deadline = time.monotonic() + _START_SECONDS
    with progress.step("Starting the cluster (about 10 s)") as step:
        while time.monotonic() < deadline:
            current = ClusterRecord.load(layout.record) or record
            health = read_health(layout)
            if health.get("ready"):
                return current
            if current.supervisor_pid and not current.alive:
                raise LocalError(f"the cluster ended while it started: {_last_line(layout.logs / 'supervisor.log')}")
            step.note(str(health.get("phase", "making namespaces")))
            time.sleep(_POLL_SECONDS)
    health = read_health(layout)
    raise LocalError(f"the cluster is not ready after {_START_SECONDS:.0f} s ({health.get('phase')}): see {layout.logs}")


def read_health(layout: Layout) -> dict[str, Any]:
    """What the manager last wrote; empty before it wrote anything."""
    try:
        found = json.loads(layout.health.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = path.read_text().strip().splitlines()
        if lines:
            return f"{lines[-1]} (see {path})"
    return f"see {path}"


def _clean(layout: Layout, record: ClusterRecord | None, *, keep_logs: bool = False) -> None:
    """Remove what an earlier run left: its processes, then its files, but not the person's models."""
    if record is not None and record.alive:
        processes.terminate(record.supervisor_pid, _STOP_SECONDS)
    if not layout.root.exists():
        return
    for entry in layout.root.iterdir():
        if entry == layout.default_models or (keep_logs and entry == layout.logs):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        layout.default_models.rmdir()
    with contextlib.suppress(OSError):
        layout.root.rmdir()


def running(layout: Layout) -> ClusterRecord:
    """The record of a running cluster; raises LocalError when it does not run."""
    record = ClusterRecord.load(layout.record)
    if record is None or not record.alive:
        raise LocalError(f"cluster {layout.name!r} is not up: run `ergon local up --name {layout.name}`")
    return record


def control_node(layout: Layout, verb: str, node: str) -> None:
    """Stop or start a node, from outside or inside; raises LocalError with the node agent's words when it refuses."""
    if not layout.sockets.is_dir():
        raise LocalError(f"cluster {layout.name!r} is not up: run `ergon local up --name {layout.name}`")
    answer = _ask(layout.sockets, f"{verb} {node}\n")
    if answer != "ok":
        raise LocalError(answer)


def _ask(sockets: Path, line: str) -> str:
    """One line to the node agent and its answer; from inside the folder, for socket paths are short."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(sockets)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_CONTROL_SECONDS)
            connection.connect("nodes.sock")
            connection.sendall(line.encode())
            return connection.makefile().readline().strip()
    except OSError as error:
        raise LocalError(f"the node agent does not answer: {error}") from error
    finally:
        os.fchdir(before)
        os.close(before)
