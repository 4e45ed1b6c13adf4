#!/usr/bin/env python3
"""Where helm 4 is: on PATH, in the cache, in the official release, or built by Go. Prints its path.

The local cluster gets its binaries in the same order and by the same parts (ergon.local).
"""

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ergon.local import gobuild
from ergon.local.binaries import architecture
from ergon.local.download import DownloadError, fetch_member
from ergon.local.progress import Progress
from ergon.local.state import cache_folder

VERSION = "v4.3.1"
MAJOR = "v4"
_BUILD_SECONDS = 1800
_SCRATCH = ".build-"


class HelmMissing(Exception):
    """There is no helm and no way to one, in one line."""


def find_helm() -> Path:
    """The executable. Raises HelmMissing with what was tried."""
    on_path = shutil.which("helm")
    if on_path and version_of(on_path).startswith(f"{MAJOR}."):
        return Path(on_path)
    target = cache_folder() / "tools" / f"helm-{VERSION}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_file():
            obtain(target, Progress())
    return target


def version_of(program: str) -> str:
    """What a helm calls itself, such as v4.3.1; empty where it does not run."""
    command = [program, "version", "--template", "{{.Version}}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def obtain(target: Path, progress: Progress) -> None:
    """Put helm at `target`, whole or not at all. Raises HelmMissing."""
    failures = []
    for way in (download, build):
        try:
            way(target, progress)
        except (DownloadError, gobuild.BuildError) as error:
            progress.say(f"  {error}")
            failures.append(str(error))
        else:
            return
    raise HelmMissing(f"no helm {MAJOR}: put it on PATH; tried also the release ({failures[0]}) and a build ({failures[1]})")


def download(target: Path, progress: Progress) -> None:
    """From the official release, by its checksum. Raises DownloadError."""
    machine = architecture()
    url = f"https://get.helm.sh/helm-{VERSION}-linux-{machine}.tar.gz"
    with progress.step("Downloading helm, once (about 20 MB)") as step:
        asyncio.run(fetch_member(url, f"{url}.sha256sum", f"linux-{machine}/helm", target, step))


def build(target: Path, progress: Progress) -> None:
    """From its Go module. Raises BuildError."""
    go = gobuild.provide_go(progress)
    for left in target.parent.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    module = f"helm.sh/helm/v4/cmd/helm@{VERSION}"
    with (
        progress.step("Building helm from its Go module, once (about 3 min)"),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=_SCRATCH) as folder,
    ):
        environment = {**os.environ, "GOBIN": folder, "CGO_ENABLED": "0"}
        command = [go, "install", "-trimpath", "-ldflags=-s -w", module]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise gobuild.BuildError(f"{module} is not built after {_BUILD_SECONDS} s") from error
        if done.returncode != 0:
            raise gobuild.BuildError(f"{module} cannot be built: {(done.stderr.strip().splitlines() or ['no words'])[-1][:300]}")
        (Path(folder) / "helm").replace(target)


def main() -> int:
    """Print the path; the exit status."""
    try:
        sys.stdout.write(f"{find_helm()}\n")
    except HelmMissing as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
