"""What is kept over a restart, in a ConfigMap of a real API server: read back as it was, and never more than fits."""

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from ergon.demand.cascade import Cascades, RouteCounters
from ergon.engine.checkpoint import LARGEST_BYTES, NAME, Checkpoint
from ergon.fleet.types import ModelKey
from ergon.kube.client import KubeClient
from tests.engine.world import Cluster

pytestmark = pytest.mark.cluster
ROUTE = ModelKey("team", "languages")


def kept(client: KubeClient, namespace: str, routes: Cascades, demand: dict[str, Any]) -> tuple[Checkpoint, list[Any]]:
    """A checkpoint, and what it gives back of demand."""
    restored: list[Any] = []
    demands = SimpleNamespace(to_state=lambda: demand, restore=restored.append)
    energy = SimpleNamespace(to_state=lambda wall: {}, restore=lambda ledger, budgets: None)
    return Checkpoint(client, namespace, demands, energy, routes, lambda: 0.0), restored  # type: ignore[arg-type]


def busy() -> Cascades:
    """A route that was asked."""
    cascades = Cascades()
    for number in range(20):
        counted = RouteCounters(10.0 * number, {"small": 10.0 * number, "big": 2.0 * number}, 2.0 * number)
        cascades.observe(1e9 + 5 * number, {"pod": {ROUTE: counted}})
    return cascades


async def test_routes_and_demand_come_back_as_they_were_and_what_does_not_fit_stays_away(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with await KubeClient.from_environment(kubeconfig=cluster.kubeconfig) as client:
        before, after = busy(), Cascades()
        await kept(client, "default", before, {"version": 1})[0].save()
        again, restored = kept(client, "default", after, {})
        await again.restore()
        assert restored == [{"version": 1}]
        assert after.figures(ROUTE, {}) == before.figures(ROUTE, {})
        assert after.figures(ROUTE, {}) is not None
        # Demand of very many models goes, since it is seen anew; what is smaller and comes after it is kept all the same.
        noise = Random(1).randbytes(LARGEST_BYTES).hex()
        await kept(client, "default", before, {"noise": noise})[0].save()
        assert "demand is" in caplog.text
        held = await client.get("v1", "ConfigMap", NAME, "default")
        assert set(held["binaryData"]) == {"energy", "routes"}
        await client.delete("v1", "ConfigMap", NAME, "default")
