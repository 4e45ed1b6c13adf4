"""Real tritonservers for the tests of this room."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ergon.triton import TritonServer
from tests.triton.environment import environment
from tests.triton.server import KEY, Server


@pytest.fixture(scope="session")
def triton_environment() -> Path:
    return environment()


@pytest.fixture(scope="module")
def server(triton_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests of a module share; each uses model names of its own."""
    yield from _run(triton_environment, tmp_path_factory.mktemp("triton"))


@pytest.fixture
def own_server(triton_environment: Path, tmp_path: Path) -> Iterator[Server]:
    """A server for one test: one that hangs or kills it."""
    yield from _run(triton_environment, tmp_path)


@pytest.fixture
async def triton(server: Server) -> AsyncIterator[TritonServer]:
    client = TritonServer(server.address, KEY)
    yield client
    await client.close()


@pytest.fixture
async def own_triton(own_server: Server) -> AsyncIterator[TritonServer]:
    client = TritonServer(own_server.address, KEY)
    yield client
    await client.close()


def _run(environment: Path, folder: Path) -> Iterator[Server]:
    repository = folder / "models"
    repository.mkdir()
    server = Server(environment, folder, repository)
    try:
        server.wait_until_live()
        yield server
    finally:
        server.kill()
