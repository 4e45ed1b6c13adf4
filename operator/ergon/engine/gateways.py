"""Whether there is a gateway that can wake models, and where gateways find the leader."""

import asyncio
import ipaddress
import logging
from collections.abc import Callable

from ergon.engine.cache import Cache
from ergon.engine.settings import WakingSettings
from ergon.kube.builders.model import SLICE_MANAGER
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError

log = logging.getLogger("ergon.gateways")

GONE_SECONDS = 30.0
"""Without a ready pod before the gateway is taken for gone and what sleeps is loaded: a rollout, or a node's end, takes less."""
AGAIN_SECONDS = 5.0


class GatewayWatch:
    """Whether models may sleep. Just after a start the benefit of the doubt: nothing is loaded because somebody was slow."""

    def __init__(self, cache: Cache, waking: WakingSettings | None, now: Callable[[], float]) -> None:
        self._cache = cache
        self._configured = waking is not None
        self._now = now
        self._seen_at = now()

    def can_wake(self) -> bool:
        """Whether a gateway stands, or stood a short while ago."""
        if self._cache.gateways:
            self._seen_at = self._now()
        return self._configured and self._now() - self._seen_at < GONE_SECONDS


def leader_slice(waking: WakingSettings, namespace: str) -> dict[str, object]:
    """The EndpointSlice of the leader's Service: this process alone."""
    address = waking.address
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": waking.leader_service,
            "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": waking.leader_service,
                "endpointslice.kubernetes.io/managed-by": SLICE_MANAGER,
            },
        },
        "addressType": f"IPv{ipaddress.ip_address(address).version}",
        "ports": [{"name": "wake", "port": waking.port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True, "serving": True, "terminating": False}}],
    }


async def announce(client: KubeClient, waking: WakingSettings, namespace: str, may_act: Callable[[float], bool]) -> None:
    """Point the leader's Service at this process, once; tried again until the API server takes it."""
    wanted = leader_slice(waking, namespace)
    while True:
        try:
            if may_act(AGAIN_SECONDS):
                held = await client.find("discovery.k8s.io/v1", "EndpointSlice", waking.leader_service, namespace)
                if held is not None and held.get("addressType") != wanted["addressType"]:  # it cannot be changed
                    await client.delete("discovery.k8s.io/v1", "EndpointSlice", waking.leader_service, namespace)
                await client.within(AGAIN_SECONDS).apply(wanted)
                return
        except KubeError as error:
            log.warning("gateways cannot be told who leads, tried again in %g s: %s", AGAIN_SECONDS, error)
        await asyncio.sleep(AGAIN_SECONDS)
