"""Whether there is a gateway that can wake models, and where gateways find the leader."""

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

from ergon.engine.cache import Cache
from ergon.engine.compare import covers
from ergon.engine.settings import WakingSettings
from ergon.kube.builders.model import SLICE_MANAGER
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError

log = logging.getLogger("ergon.gateways")

GONE_SECONDS = 30.0
"""Without a ready pod before the gateway is taken for gone and what sleeps is loaded: a rollout, or a node's end, takes less."""
AGAIN_SECONDS = 5.0
LOOK_SECONDS = 30.0
"""Between two looks at whether the leader's Service still points here: somebody may have changed it, or removed it."""


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


def leader_slice(waking: WakingSettings, namespace: str) -> dict[str, Any]:
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
    """Until cancelled: have the leader's Service point at this process. Written only where it does not, and while leading."""
    wanted = leader_slice(waking, namespace)
    while True:
        pause = AGAIN_SECONDS
        try:
            if await _announced(client.within(AGAIN_SECONDS), wanted, may_act):
                pause = LOOK_SECONDS
        except KubeError as error:
            log.warning("gateways cannot be told who leads, tried again in %g s: %s", AGAIN_SECONDS, error)
        except Exception:
            log.exception("gateways could not be told who leads; it is tried again in %g s", AGAIN_SECONDS)
        await asyncio.sleep(pause)


async def _announced(client: KubeClient, wanted: dict[str, Any], may_act: Callable[[float], bool]) -> bool:
    """Whether the slice says what it should, after writing it where need be; False where the Lease is about to end."""
    kind, name, namespace = wanted["kind"], wanted["metadata"]["name"], wanted["metadata"]["namespace"]
    held = await client.find(wanted["apiVersion"], kind, name, namespace)
    if held is not None and covers(held, {part: wanted[part] for part in wanted if part not in ("apiVersion", "kind")}):
        return True
    if held is not None and held.get("addressType") != wanted["addressType"]:  # it cannot be changed
        if not may_act(AGAIN_SECONDS):
            return False
        await client.delete(wanted["apiVersion"], kind, name, namespace)
    # Looked at last of all: reading takes time, in which another process may have come to lead.
    if not may_act(AGAIN_SECONDS):
        return False
    await client.apply(wanted)
    return True
