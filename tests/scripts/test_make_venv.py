"""Which Python `make install` takes: one that the local cluster can use, be it uv's own; without one it says so at once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKE_VENV = Path(__file__).parents[2] / "scripts" / "make-venv"
_NOTE = 'here=$(dirname "$0")\necho "$(basename "$0") $*" >> "$here/../log"\n'
# A Python of another version: it answers what is asked of its version, and makes environments with nothing in them.
_PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then exec {real} -S -c "import sys; sys.version_info = {version}; $2"; fi
{note}
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/ergon"; fi
"""
_UV = """#!/bin/sh
{note}
if [ "$1" = venv ]; then mkdir -p "$6/bin" && cp "$here/true" "$6/bin/ergon"; fi
"""


def install(folder: Path, pythons: dict[str, tuple[int, int]], uv: bool) -> subprocess.CompletedProcess[str]:
    """Run make-venv on a machine that has these Pythons alone; what it called is in `log`."""
    programs = folder / "bin"
    programs.mkdir()
    for tool in ("bash", "sh", "env", "dirname", "basename", "mkdir", "cp", "true"):
        (programs / tool).symlink_to(shutil.which(tool) or "")
    for name, version in pythons.items():
        (programs / name).write_text(_PYTHON.format(real=sys.executable, version=version, note=_NOTE))
    if uv:
        (programs / "uv").write_text(_UV.format(note=_NOTE))
    for name in (*pythons, *(["uv"] if uv else [])):
        (programs / name).chmod(0o755)
    command = [str(MAKE_VENV), str(folder / "venv")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={"PATH": str(programs)})


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3.13": (3, 13), "python3": (3, 13)}, "3.11"),
        ({"python3": (3, 10)}, "3.11"),
        ({}, "3.11"),
        ({"python3.13": (3, 13), "python3": (3, 12)}, "python3"),
        ({"python3.12": (3, 12), "python3": (3, 14)}, "python3.12"),
    ],
)
def test_uv_makes_it_of_a_python_that_the_local_cluster_can_use(
    tmp_path: Path, pythons: dict[str, tuple[int, int]], taken: str
) -> None:
    done = install(tmp_path, pythons, uv=True)
    assert done.returncode == 0, done.stderr
    assert f"uv venv --quiet --allow-existing --python {taken} {tmp_path}" in (tmp_path / "log").read_text()
    assert "too new" not in done.stderr


def test_without_uv_a_python_that_is_too_new_for_the_cluster_is_named_before_anything_is_installed(tmp_path: Path) -> None:
    done = install(tmp_path, {"python3.13": (3, 13)}, uv=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0].startswith("[install] python3.13 is too new for the local cluster: make demo")
    assert "python3.13 -m venv" in (tmp_path / "log").read_text()


def test_without_uv_and_a_python_it_says_what_to_install(tmp_path: Path) -> None:
    done = install(tmp_path, {"python3": (3, 10)}, uv=False)
    assert (done.returncode, done.stderr) == (1, "install: Ergon needs Python 3.11 or 3.12, or uv, on PATH\n")
