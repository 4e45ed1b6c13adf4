"""Images by repository name (the tag is ignored) and what runs in their place on this machine.

A launcher keeps the image's entrypoint and default command, so that manifests written for the real image work as they are.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from ergon.local.python_env import site_packages

SHIM_TARGET = "/opt/ergon/bin"
"""Where a container finds its image's programs."""


@dataclass(frozen=True)
class Launcher:
    """What stands for an image: its programs (shell scripts by name) and how the image starts by itself."""

    name: str
    programs: dict[str, str]
    entrypoint: tuple[str, ...] = ()
    default_arguments: tuple[str, ...] = ()
    user: int = 0
    options_only: bool = False
    """The entrypoint is put before arguments only when these begin with an option or a known subcommand."""


class UnknownImage(Exception):
    """No launcher stands for an image; the message lists those known."""


def repository_of(image: str) -> str:
    """`docker.io/library/traefik:v3@sha256:…` is `traefik`: the name without tag, digest and default registry."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    name = f"{head}{slash}{tail.partition(':')[0]}"
    return name.removeprefix("docker.io/").removeprefix("index.docker.io/").removeprefix("library/")


class Images:
    """The launchers of this machine."""

    def __init__(self, triton_environment: Path) -> None:
        site = site_packages(triton_environment / "venv")
        programs = triton_environment / "venv" / "bin"
        here = Path(sys.executable).parent
        python = {name: _program(sys.executable) for name in ("python", "python3")}
        self._launchers = {
            "nvcr.io/nvidia/tritonserver": Launcher("tritonserver", {"tritonserver": _triton(triton_environment, site)}),
            "rclone/rclone": Launcher("rclone", {"rclone": _program(str(programs / "rclone"))}, ("rclone",)),
            "traefik": Launcher("traefik", {"traefik": _program(str(programs / "traefik"))}, ("traefik",), options_only=True),
            "ghcr.io/ergon-dev/ergon": Launcher(
                "ergon", {"ergon": _program(str(here / "ergon")), **python}, ("ergon",), user=65532
            ),
            "python": Launcher("python", python, default_arguments=("python3",)),
            "curlimages/curl": Launcher("curl", {}, ("curl",), options_only=True, user=101),
        }
        self._known = sorted(self._launchers)

    def find(self, image: str) -> Launcher:
        """The launcher for an image; raises UnknownImage."""
        repository = repository_of(image)
        found = self._launchers.get(repository)
        if found is None:
            raise UnknownImage(f"local nodes have no launcher for image {repository!r}; known: {', '.join(self._known)}")
        return found

    def write_shims(self, folder: Path) -> None:
        """Write each launcher's programs as `folder/<launcher>/<program>`."""
        for launcher in self._launchers.values():
            target = folder / launcher.name
            target.mkdir(parents=True, exist_ok=True)
            for name, script in launcher.programs.items():
                (target / name).write_text(script)
                (target / name).chmod(0o755)


def command_line(launcher: Launcher, command: list[str], arguments: list[str]) -> list[str]:
    """What a container runs: its own command and arguments where given, else the image's, by the rules of Kubernetes."""
    if command:
        return [*command, *arguments]
    given = arguments or list(launcher.default_arguments)
    if launcher.options_only and given and not given[0].startswith("-") and given[0] not in ("version", "healthcheck"):
        return given
    return [*launcher.entrypoint, *given]


def _program(path: str) -> str:
    return f'#!/bin/sh\nexec {shlex.quote(path)} "$@"\n'


def _triton(environment: Path, site: Path) -> str:
    """Triton from the wheel: its own libraries, and its Python first on PATH so that model stubs find their packages."""
    server = site / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    return (
        "#!/bin/sh\n"
        f"export LD_LIBRARY_PATH={shlex.quote(str(site / 'nvidia_pytriton.libs'))}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\n"
        f'export PATH={shlex.quote(str(environment / "venv" / "bin"))}:"$PATH"\n'
        f'exec {shlex.quote(str(server))} "$@" --backend-directory={shlex.quote(str(environment / "backends"))}\n'
    )
