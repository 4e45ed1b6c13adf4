"""What the node agent answers to `ergon local node`."""

import pytest

from ergon.local.kubeclient import ApiError
from ergon.local.node.__main__ import Agent


class Stopped:
    """A node that cannot come back: the API server does not take it."""

    alive = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def sweep(self, known: set[str]) -> None:
        pass

    async def start(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", [OSError("connection refused"), ApiError(503, "etcd is away"), TimeoutError()])
async def test_a_node_that_cannot_come_back_says_why(error: Exception) -> None:
    answer = await Agent({"gpu-0": Stopped(error)}).command("start gpu-0")  # type: ignore[dict-item]
    assert answer == f"node 'gpu-0' cannot register with the API server: {error or 'TimeoutError'}"


async def test_a_node_that_is_not_there_is_told_with_those_that_are() -> None:
    assert await Agent({"cpu-0": Stopped(OSError())}).command("stop cpu-9") == "no node 'cpu-9'; there are cpu-0"  # type: ignore[dict-item]
