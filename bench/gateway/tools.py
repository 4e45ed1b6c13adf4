"""Programs that the speed bench needs: a load generator and a back-end in Go, made once into the cache, and Traefik."""

import os
import subprocess
from pathlib import Path

from bench.common import BenchFailed, say
from ergon.local.state import cache_folder

VEGETA = "github.com/tsenart/vegeta/v12@v12.13.0"
_BACKEND = Path(__file__).with_name("backend")


def folder() -> Path:
    """Where they are kept."""
    return cache_folder() / "bench"


def make() -> None:
    """Build what is missing. Raises BenchFailed where Go cannot."""
    where = folder()
    where.mkdir(parents=True, exist_ok=True)
    if not (where / "vegeta").exists():
        say("building the load generator")
        _go(["install", VEGETA], {"GOBIN": str(where)}, Path.cwd())
    _go(["build", "-o", str(where / "backend"), "."], {"GOFLAGS": "-mod=mod"}, _BACKEND)


def traefik() -> Path:
    """The local cluster's own Traefik. Raises BenchFailed where no cluster was ever up."""
    found = sorted((cache_folder() / "triton").glob("*/venv/bin/traefik"))
    if not found:
        raise BenchFailed("there is no Traefik in the cache; start a local cluster once")
    return found[-1]


def _go(arguments: list[str], environment: dict[str, str], where: Path) -> None:
    done = subprocess.run(
        ["go", *arguments], cwd=where, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFailed(f"go {arguments[0]}: {done.stderr.strip()[-500:]}")
