"""Where the control plane's binaries come from: assets, PATH, cache, the official release, a build from Go modules."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ergon.local import gobuild
from ergon.local.download import DownloadError, fetch, fetch_member, require_name
from ergon.local.progress import Progress
from ergon.local.state import LocalError, cache_folder

KUBERNETES_VERSION = "1.36.3"
ETCD_VERSION = "3.6.8"
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_OLDEST = {"etcd": (3, 5), "kube": (1, 33)}
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.\d+")
_RUN_SECONDS = 20.0


def provide(progress: Progress) -> dict[str, Path]:
    """A path for each binary; raises LocalError that says what was tried when there is no way to them."""
    folder = cache_folder() / "controlplane" / f"{KUBERNETES_VERSION}-{ETCD_VERSION}"
    for source in (_from_assets(), _from_path()):
        if source is not None:
            return source
    with _locked(folder):
        cached = _from_folder(folder)
        if cached is not None:
            return cached
        reasons = []
        for obtain in (_download, gobuild.build):
            try:
                obtain(folder, progress)
            except (DownloadError, gobuild.BuildError) as error:
                progress.say(f"  {error}")
                reasons.append(str(error))
                continue
            cached = _from_folder(folder)
            if cached is not None:
                return cached
            reasons.append(f"what came to {folder} does not run")
    raise LocalError(
        "no control plane: set KUBEBUILDER_ASSETS to a folder with "
        f"{', '.join(NAMES)}; tried also PATH, the release ({reasons[0]}) and a build ({reasons[1]})"
    )


def version_of(path: Path) -> tuple[int, int] | None:
    """Major and minor version that a binary reports, or None when it does not run."""
    try:
        result = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=_RUN_SECONDS, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(result.stdout)
    return (int(match.group(1)), int(match.group(2))) if match else None


def usable(found: dict[str, Path]) -> bool:
    """Whether all four run, none is too old, and the Kubernetes ones are of one minor version."""
    versions = {name: version_of(path) for name, path in found.items()}
    if any(version is None for version in versions.values()):
        return False
    kubernetes = {versions[name] for name in NAMES[1:]}
    etcd, (one, *others) = versions["etcd"], kubernetes
    return not others and etcd is not None and one is not None and etcd >= _OLDEST["etcd"] and one >= _OLDEST["kube"]


def _from_assets() -> dict[str, Path] | None:
    """KUBEBUILDER_ASSETS, the variable that controller tests use; one that is set wrongly is an error, not a fallback."""
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    if not folder:
        return None
    found = {name: shutil.which(name, path=folder) for name in NAMES}
    if not found["etcd"] or not found["kube-apiserver"]:
        raise LocalError(f"KUBEBUILDER_ASSETS={folder} holds no etcd and kube-apiserver: correct or unset it")
    return _complete(found)


def _from_path() -> dict[str, Path] | None:
    return _complete({name: shutil.which(name) for name in NAMES})


def _from_folder(folder: Path) -> dict[str, Path] | None:
    return _complete({name: shutil.which(name, path=str(folder)) for name in NAMES})


def _complete(found: dict[str, str | None]) -> dict[str, Path] | None:
    paths = {name: Path(path) for name, path in found.items() if path}
    return paths if len(paths) == len(NAMES) and usable(paths) else None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one `up` fills a cache folder at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def architecture() -> str:
    """This machine as release files name it; raises DownloadError for one that has no releases."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    if machine is None:
        raise DownloadError(f"there are no releases for {platform.machine()}")
    return machine


def _download(folder: Path, progress: Progress) -> None:
    """The official release files with their published checksums, about 300 MB."""
    for host in ("dl.k8s.io", "github.com"):
        require_name(host)
    asyncio.run(_download_all(folder, progress))


async def _download_all(folder: Path, progress: Progress) -> None:
    machine = architecture()
    title = "Downloading the control plane, once (about 300 MB)"
    with progress.step(title) as step:
        for name in NAMES[1:]:
            url = f"https://dl.k8s.io/release/v{KUBERNETES_VERSION}/bin/linux/{machine}/{name}"
            await fetch(url, f"{url}.sha256", folder / name, step)
        base = f"https://github.com/etcd-io/etcd/releases/download/v{ETCD_VERSION}"
        archive = f"etcd-v{ETCD_VERSION}-linux-{machine}"
        await fetch_member(f"{base}/{archive}.tar.gz", f"{base}/SHA256SUMS", f"{archive}/etcd", folder / "etcd", step)
