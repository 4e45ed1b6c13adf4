"""What tests of this room and of the API need of a real API server."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from ergon.api.crd import crd_documents
from ergon.kube.client import KubeClient

Object = dict[str, Any]

# pytest-asyncio asks for the current loop before its first own; without this, asyncio makes one that nobody closes.
asyncio.set_event_loop(None)


class Cluster(Protocol):
    """A running cluster, as far as these tests know it."""

    kubeconfig: Path


async def connected(cluster: Cluster) -> AsyncIterator[KubeClient]:
    """A client with the cluster's admin account."""
    async with await KubeClient.from_environment(kubeconfig=cluster.kubeconfig) as client:
        yield client


async def install_kinds(client: KubeClient) -> None:
    """Ergon's kinds, served and established. Idempotent; their field manager is the tests' own."""
    for document in crd_documents():
        await client.apply(document, field_manager="tests")
    for document in crd_documents():
        await _established(client, document["metadata"]["name"])


async def _established(client: KubeClient, name: str) -> None:
    async with asyncio.timeout(30):
        while True:
            crd = await client.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
            conditions = {c["type"]: c["status"] for c in (crd.get("status") or {}).get("conditions") or ()}
            if conditions.get("Established") == "True":
                return
            await asyncio.sleep(0.05)


async def new_namespace(client: KubeClient) -> AsyncIterator[str]:
    """A namespace of the test's own, gone afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    await client.delete("v1", "Namespace", name)
