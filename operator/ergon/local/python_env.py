"""Virtual environments of our own, made with uv where it is present and with venv and pip elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class InstallError(Exception):
    """Why an environment could not be made, in one line."""


def create(folder: Path) -> None:
    """Make an empty environment for the Python that runs this."""
    uv = shutil.which("uv")
    command = [uv, "venv", "--quiet", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    _run([*command, str(folder)])


def install(folder: Path, arguments: list[str]) -> None:
    """Install into an environment from the package index that the person has configured.

    Byte code is compiled now: pods see the environment read-only and would compile it at every start.
    """
    uv = shutil.which("uv")
    python = str(folder / "bin" / "python")
    command = (
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        if uv
        else [python, "-m", "pip", "install", "--quiet"]
    )
    _run([*command, *arguments])


def site_packages(folder: Path) -> Path:
    """Where an environment's packages lie."""
    return folder / "lib" / f"python{_VERSION}" / "site-packages"


def _run(command: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    try:
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False)
    except OSError as error:
        raise InstallError(f"{command[0]} cannot be run: {error.strerror}") from error
    if result.returncode != 0:
        words = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()] or ["no words"]
        raise InstallError(f"{Path(command[0]).name} failed: {' '.join(words)[:400]}")
