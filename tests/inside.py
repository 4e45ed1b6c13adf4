"""Commands inside a local cluster's network, as `ergon local exec` runs them, without its command line.

Tests start hundreds of these, and reading a command line with its help and colours takes 0.45 s of CPU each time, of 0.6 s.
"""

import sys
from pathlib import Path

from ergon.local import namespaces
from ergon.local.state import ClusterRecord, Layout


def inside(cluster: str, *command: str) -> list[str]:
    """The command line that runs a command inside, its exit status being the command's."""
    return [sys.executable, "-P", str(Path(__file__)), "exec", cluster, *command]


if __name__ == "__main__":
    _, name, *words = sys.argv[1:]
    record = ClusterRecord.load(Layout.of(name).record)
    assert record is not None, f"no cluster {name} is up"
    sys.exit(namespaces.run_inside(record.init_pid, Layout.of(name), words))
