#!/usr/bin/env python3
"""consoles.py [--check] FILE...: run every `$ ergon …` in the files' console blocks, and write what it prints below it.

With --check, only compare; exit 1 where a file says something else. Seconds are not compared: they differ from run to run.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```console\n\$ (ergon (?:[^\\\n]|\\\n)*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECONDS = re.compile(r"\d+\.\d\d s\b")


def _run(command: str) -> str:
    program, *arguments = shlex.split(command.replace("\\\n", " "))
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}: {done.stderr}")
    return done.stdout.rstrip() + "\n"


def _stale(path: Path) -> bool:
    """Whether a block of the file says something else than its command."""
    return any(_SECONDS.sub("", _run(command)) != _SECONDS.sub("", shown) for command, shown in _BLOCK.findall(path.read_text()))


def main() -> None:
    """Write, or with --check compare."""
    check, paths = "--check" in sys.argv, [Path(name) for name in sys.argv[1:] if name != "--check"]
    stale = [path for path in paths if _stale(path)]
    for path in stale:
        if check:
            sys.stderr.write(f"{path} shows what is printed no longer; run: make tables\n")
        else:
            path.write_text(_BLOCK.sub(lambda found: f"```console\n$ {found[1]}\n{_run(found[1])}```", path.read_text()))
    if check and stale:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
