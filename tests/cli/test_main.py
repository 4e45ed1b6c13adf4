"""What goes wrong outside of a command's own words: one line, a failure, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

ERGON = Path(sys.executable).with_name("ergon")


def ergon(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ERGON, *arguments], **{"stdout": subprocess.PIPE, **more}, stderr=subprocess.PIPE, text=True, timeout=60
    )  # type: ignore[call-overload, no-any-return]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = ergon("crds", "--output", str(tmp_path / "file" / "crds"))
    assert (done.returncode, done.stderr) == (1, f"ergon: {tmp_path}/file/crds: Not a directory\n")


def test_a_full_disk_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        done = ergon("crds", stdout=full)
    assert (done.returncode, done.stderr) == (1, "ergon: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["crds", "--output", "FILE"], "'FILE' is a file"),
        (["local", "up", "--models", "FILE"], "'FILE' is a file"),
        (["run", "--log-level", "loud"], "write debug, info, warning or error"),
        (["gateway", "--log-level", "loud"], "write debug, info, warning or error"),
    ],
)
def test_what_an_option_cannot_be_is_said_before_anything_is_done(arguments: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "FILE").touch()
    done = ergon(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
