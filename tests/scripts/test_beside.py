"""What runs the parts of `make test` beside each other: whose line is whose, what failed, and that a signal ends all."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / "scripts" / "beside"


def beside(*parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BESIDE), *parts], capture_output=True, text=True, check=False, timeout=60)


def test_lines_bear_names_and_the_last_ones_are_told_again() -> None:
    done = beside("one=echo first; echo 3 passed in 1 s", "other=echo second >&2")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert {"one   | first", "one   | 3 passed in 1 s", "other | second"} <= set(lines)
    assert re.fullmatch(r"one +passed after \d+ s: 3 passed in 1 s", lines[-2])
    assert re.fullmatch(r"other +passed after \d+ s: second", lines[-1])


def test_one_that_fails_lets_the_others_end_and_is_shown_at_the_end() -> None:
    done = beside("bad=echo what broke; exit 3", "good=sleep 0.3; echo went on")
    assert done.returncode == 1
    after = done.stdout.partition("──── bad said last:\n")[2]
    assert after.startswith("what broke\n")
    assert re.search(r"^bad +FAILED \(3\) after", after, re.MULTILINE)
    assert re.search(r"^good +passed after \d+ s: went on$", after, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_part_once_and_is_waited_for(number: signal.Signals, tmp_path: Path) -> None:
    tidy = tmp_path / "tidy"
    tidy.write_text(
        f"trap 'sleep 0.3; echo told >>{tmp_path}/told; exit' INT\ntouch {tmp_path}/$1\nwhile :; do sleep 0.05; done\n"
    )
    parts = [f"{name}=bash {tidy} {name}" for name in ("a", "b")]
    with subprocess.Popen([sys.executable, str(BESIDE), *parts], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while not all((tmp_path / name).exists() for name in "ab"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (tmp_path / "told").read_text() == "told\ntold\n"
    assert "ended by a signal" in out
