"""What was learned and booked, kept over a restart: one ConfigMap in the operator's namespace, written every few minutes.

Everything in it can be lost without harm to what is served: demand is seen anew, and energy is counted on from now.
"""

import base64
import gzip
import json
import logging
from typing import Any

from pydantic import ValidationError

from ergon.energy.budget import BudgetState
from ergon.energy.ledger_state import LedgerState
from ergon.engine.booked import ReplicaState
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError

log = logging.getLogger("ergon.checkpoint")

NAME = "ergon-checkpoint"
CHECKPOINT_SECONDS = 300.0
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

    async def restore(self) -> None:
        """Take up what was kept. What cannot be read is said and left out."""
        try:
            held = await self._client.find("v1", "ConfigMap", NAME, self._namespace)
        except KubeError as error:
            log.warning("the checkpoint cannot be read, so demand and energy are counted from now: %s", error)
            self.restored = True
            return
        self.restored = True
        parts = (held or {}).get("binaryData") or {}
        if demand := _read(parts, "demand"):
            self._demand.restore(demand)
        energy = _read(parts, "energy") or {}
        try:
            ledger = LedgerState.model_validate(energy["ledger"]) if "ledger" in energy else None
            budgets = {name: BudgetState.model_validate(state) for name, state in (energy.get("budgets") or {}).items()}
            counters = tuple(ReplicaState.model_validate(state) for state in energy.get("counters") or ())
        except ValidationError as error:
            log.warning("the checkpoint's energy is none of ours, so it is counted from now: %s", error.errors()[0]["msg"])
            return
        self._energy.restore(ledger, budgets, counters)

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
