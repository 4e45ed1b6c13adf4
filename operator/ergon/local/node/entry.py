"""Runs a command inside a running container: `python -I -S entry.py PID SPEC_FD`; the kubelet's exec, for probes and hooks."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ergon.local import linux

_NOT_FOUND = 127
_KINDS = (("uts", linux.CLONE_NEWUTS), ("ipc", linux.CLONE_NEWIPC), ("pid", linux.CLONE_NEWPID), ("mnt", linux.CLONE_NEWNS))


def main() -> NoReturn:
    """Join the container's namespaces, fork into its pid namespace, execute, and end with the command's status."""
    linux.die_with_parent(signal.SIGKILL)
    pid = sys.argv[1]
    with os.fdopen(int(sys.argv[2])) as file:
        spec = json.load(file)
    descriptors = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in _KINDS]
    for descriptor, kind in descriptors:
        linux.setns(descriptor, kind)
    child = os.fork()
    if child == 0:
        linux.die_with_parent(signal.SIGKILL)
        os.chdir(spec["folder"])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvpe(spec["command"][0], spec["command"], spec["environment"])
        except OSError as error:
            os.write(2, f"{spec['command'][0]}: {error.strerror}\n".encode())
        os._exit(_NOT_FOUND)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
