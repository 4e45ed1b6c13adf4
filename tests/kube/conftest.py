"""A client of the real API server, and a namespace to work in."""

from collections.abc import AsyncIterator

import pytest

from ergon.kube.client import KubeClient
from tests.kube.cluster import Cluster, connected, new_namespace


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[KubeClient]:
    """A client with the cluster's admin account."""
    async for client in connected(cluster):
        yield client


@pytest.fixture
async def namespace(kube: KubeClient) -> AsyncIterator[str]:
    """A namespace of the test's own."""
    async for name in new_namespace(kube):
        yield name
