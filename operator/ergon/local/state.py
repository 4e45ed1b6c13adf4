"""Where a cluster lives on disk and what a running one records about itself.

Everything of a cluster lies in its state folder and goes with `down`; only the cache, shared by all clusters, and the person's
models folder stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import zlib
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

NODE_NETWORK = "10.243.0.0/16"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_ADDRESS = "10.243.0.1"
API_PORT = 6443
DNS_ADDRESS = "10.96.0.10"
API_SERVICE_ADDRESS = "10.96.0.1"
GATEWAY_NAMESPACE = "ergon-gateway"
GATEWAY_PORT = 80
NODE_SOURCES_PATH = "/var/lib/ergon/sources"
"""The node path that manifests name in a hostPath; a local node maps it to the person's models folder."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_FIRST_PORT = 16443
_PORT_SPAN = 4000


class LocalError(Exception):
    """Something the person can act on: one line that says what is wrong and what to do.

    `exit_code` is the exit status the command line answers with.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


def cache_folder() -> Path:
    """The folder that all clusters share: binaries and the Triton environment. It stays after `down`."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "ergon"


def state_folder() -> Path:
    """The folder that holds a folder for each cluster."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "ergon"


@dataclass(frozen=True)
class Layout:
    """The files of one cluster."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str) -> Layout:
        """The layout of the cluster called `name`; raises LocalError for a name that is no DNS label."""
        if not _NAME.fullmatch(name):
            raise LocalError(f"cluster name {name!r} must be lower-case letters, digits and dashes, at most 40")
        return cls(name, state_folder() / name)

    @property
    def record(self) -> Path:
        return self.root / "cluster.json"

    @property
    def health(self) -> Path:
        return self.root / "health.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def sockets(self) -> Path:
        return self.root / "sockets"

    @property
    def nodes(self) -> Path:
        """What the process nodes keep: pod volumes and container logs."""
        return self.root / "nodes"

    @property
    def kubeconfig(self) -> Path:
        """For clients on the machine, through the loopback port."""
        return self.root / "kubeconfig"

    @property
    def inner_kubeconfig(self) -> Path:
        """For clients inside the cluster's namespaces."""
        return self.root / "kubeconfig.inside"

    @property
    def resolv_conf(self) -> Path:
        return self.root / "resolv.conf"

    @property
    def default_models(self) -> Path:
        return self.root / "models"

    @property
    def lock_file(self) -> Path:
        return self.root.parent / f".{self.name}.lock"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the cluster for one command at a time; waits for the other. The lock file goes with the cluster."""
        handle = self._locked()
        try:
            yield
        finally:
            if not self.record.exists():
                self.lock_file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self.root.parent.rmdir()
            os.close(handle)

    def _locked(self) -> int:
        """A locked descriptor of the lock file as it is now: another command may have removed the one we waited for."""
        while True:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(handle, fcntl.LOCK_EX)
                if _same_file(handle, self.lock_file):
                    return handle
                os.close(handle)


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether the locked file is still the one at `path` (another command may have removed it meanwhile)."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), found)


@dataclass(frozen=True)
class NodeSpec:
    """One process node: what it advertises and whether its accelerator is only pretended."""

    name: str
    accelerator: str
    resources: tuple[tuple[str, int], ...] = ()
    simulated: bool = False
    zone: str = "local-a"


@dataclass(frozen=True)
class ClusterRecord:
    """What `up` decided; `cluster.json`."""

    name: str
    api_port: int
    gateway_port: int
    models: str
    cpus: int
    memory_bytes: int
    binaries: dict[str, str]
    triton_environment: str
    nodes: tuple[NodeSpec, ...]
    supervisor_pid: int = 0
    init_pid: int = 0
    supervisor_start: str = ""

    def save(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, path: Path) -> ClusterRecord | None:
        """The record at `path`, or None when there is none that can be read (a crash may have cut it)."""
        try:
            raw = json.loads(path.read_text())
            nodes = tuple(
                NodeSpec(**{**node, "resources": tuple((name, count) for name, count in node["resources"])})
                for node in raw.pop("nodes")
            )
            return cls(nodes=nodes, **raw)
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            return None

    @property
    def alive(self) -> bool:
        """Whether the supervisor of this record still runs (same pid and same start time, so not a recycled pid)."""
        return self.supervisor_pid > 0 and process_start(self.supervisor_pid) == self.supervisor_start != ""

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"


def living_clusters() -> list[ClusterRecord]:
    """The records of this person's clusters that run now."""
    records = [ClusterRecord.load(path) for path in state_folder().glob("*/cluster.json")]
    return [record for record in records if record is not None and record.alive]


def process_start(pid: int) -> str:
    """The kernel's start time of a process in clock ticks, or an empty string when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` so that a reader sees the old or the new content, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.touch(mode=mode)
    partial.chmod(mode)
    partial.write_text(text)
    partial.replace(path)


@contextlib.contextmanager
def reserved_ports(name: str, count: int = 2) -> Iterator[list[int]]:
    """Loopback ports for a cluster: the same for the same name when they are free, else the next free ones.

    They are the cluster's own once its record, saved before this ends, names them: two `up`s at once get different ones.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "ports.lock").open("w") as lock:  # in the cache, since of a cluster's state no file stays
        fcntl.flock(lock, fcntl.LOCK_EX)
        others = [ClusterRecord.load(path) for path in state_folder().glob("*/cluster.json") if path.parent.name != name]
        yield choose_ports(name, count, {port for each in others if each for port in (each.api_port, each.gateway_port)})


def choose_ports(name: str, count: int = 2, taken: Collection[int] = ()) -> list[int]:
    """Ports that nobody listens on and that are not taken, the first of them by the name. Raises LocalError without any."""
    offset = 0 if name == "local" else 10 + zlib.crc32(name.encode()) % _PORT_SPAN
    chosen: list[int] = []
    for port in range(_FIRST_PORT + offset, 65536):
        if port not in taken and _is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise LocalError("no free loopback port above 16443: stop something that listens there")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
