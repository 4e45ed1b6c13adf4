"""A client of the real API server that knows Ergon's kinds, and a namespace to work in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ergon.kube.client import KubeClient
from tests.kube.cluster import Cluster, connected, install_kinds, new_namespace

_WITH_KINDS: set[Path] = set()
"""The clusters that have them: nobody takes them away, and applying them anew for each test takes longer than most tests."""


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[KubeClient]:
    """A client with the cluster's admin account, and Ergon's kinds installed."""
    async for client in connected(cluster):
        if cluster.kubeconfig not in _WITH_KINDS:
            await install_kinds(client)
            _WITH_KINDS.add(cluster.kubeconfig)
        yield client


@pytest.fixture
async def namespace(kube: KubeClient) -> AsyncIterator[str]:
    """A namespace of the test's own."""
    async for name in new_namespace(kube):
        yield name
