"""What was learned and booked, kept over a restart: one ConfigMap in the operator's namespace, written every few minutes.

Everything in it can be lost without harm to what is served: demand is seen anew, and energy is counted on from now.
"""

import asyncio
import base64
import gzip
import json
import logging
from collections.abc import Callable
from typing import Any

from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError

log = logging.getLogger("ergon.checkpoint")

NAME = "ergon-checkpoint"
CHECKPOINT_SECONDS = 300.0
READ_SECONDS, READ_AGAIN_SECONDS = 5.0, 10.0
"""So long one try may take, since nothing is decided before the first; and so long after it comes the next."""
LARGEST_BYTES = 900_000
"""Of what is kept: a ConfigMap holds 1 MiB with everything around it."""
Object = dict[str, Any]


class Checkpoint:
    """Reads what an operator before this one kept, and keeps it up to date. Nothing is written before that was read: what is
    known until then is nothing, and would take its place.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        demand: DemandKeeper,
        energy: EnergyKeeper,
    ) -> None:
        self._client, self._namespace = client, namespace
        self._demand, self._energy = demand, energy
        self.restored = False
        self._said = False

    async def restore(self) -> None:
        """Take up what was kept, unless it cannot be read now: then `keep` goes on trying. A part that is none of ours is said
        and left out.
        """
        try:
            held = await self._client.within(READ_SECONDS).find("v1", "ConfigMap", NAME, self._namespace)
        except KubeError as error:
            if not self._said:
                self._said = True
                log.warning("the checkpoint cannot be read; it is tried again, and demand and energy count from now: %s", error)
            return
        self.restored = True
        parts = (held or {}).get("binaryData") or {}
        for name, take_up in (("demand", self._demand.restore), ("energy", self._energy.restore)):
            try:
                if state := _read(parts, name):
                    take_up(state)
            except Exception:
                log.exception("the checkpoint's %s cannot be taken up, so it is counted from now", name)

    async def keep(self, may_write: Callable[[], bool]) -> None:
        """Read it where that is still to be done, then write it now and then; until cancelled."""
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS if self.restored else READ_AGAIN_SECONDS)
            try:
                if not self.restored:
                    await self.restore()
                elif may_write():
                    await self.save()
            except Exception:
                log.exception("the checkpoint was not kept up to date; it is tried again")

    async def save(self) -> None:
        """Write what is known now, unless what was kept was not read yet. A failure is said, and tried again the next time."""
        if not self.restored:
            log.info("the checkpoint stays as it was: it was not read yet")
            return
        energy = _written(self._energy.to_state())
        demand = _written(self._demand.to_state())
        kept = {"energy": energy}
        if len(energy) + len(demand) <= LARGEST_BYTES:
            kept["demand"] = demand
        else:
            log.warning("what was learned of demand is %d KiB, too much to be kept over a restart", len(demand) // 1024)
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": self._namespace, "labels": {"app.kubernetes.io/managed-by": "ergon"}},
            "binaryData": kept,
        }
        try:
            await self._client.apply(body)
        except KubeError as error:
            log.warning("the checkpoint could not be written: %s", error)


def _written(state: Object) -> str:
    text = json.dumps(state, separators=(",", ":"), allow_nan=False).encode()
    return base64.b64encode(gzip.compress(text, 6, mtime=0)).decode()


def _read(parts: Object, name: str) -> Object | None:
    if name not in parts:
        return None
    try:
        state = json.loads(gzip.decompress(base64.b64decode(parts[name])))
    except (ValueError, OSError, EOFError) as error:
        log.warning("the checkpoint's %s cannot be read: %s", name, error)
        return None
    return state if isinstance(state, dict) else None
