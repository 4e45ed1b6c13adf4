"""What was learned and booked, kept over a restart: one ConfigMap in the operator's namespace, written every few minutes.

Everything in it can be lost without harm to what is served: demand is seen anew, and energy is counted on from now.
"""

import base64
import gzip
import json
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from ergon.demand.cascade import Cascades
from ergon.energy.budget import BudgetState
from ergon.energy.ledger_state import LedgerState
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
    """Reads what an operator before this one kept, and keeps it up to date. `wall_seconds`: the time since the epoch."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        demand: DemandKeeper,
        energy: EnergyKeeper,
        routes: Cascades,
        wall_seconds: Callable[[], float],
    ) -> None:
        self._client, self._namespace = client, namespace
        self._demand, self._energy, self._routes = demand, energy, routes
        self._wall_seconds = wall_seconds

    async def restore(self) -> None:
        """Take up what was kept. What cannot be read is said and left out."""
        try:
            held = await self._client.find("v1", "ConfigMap", NAME, self._namespace)
        except KubeError as error:
            log.warning("the checkpoint cannot be read, so demand and energy are counted from now: %s", error)
            return
        parts = (held or {}).get("binaryData") or {}
        if demand := _read(parts, "demand"):
            self._demand.restore(demand)
        if routes := _read(parts, "routes"):
            self._routes.take_state(routes)
        energy = _read(parts, "energy") or {}
        try:
            ledger = LedgerState.model_validate(energy["ledger"]) if "ledger" in energy else None
            budgets = {name: BudgetState.model_validate(state) for name, state in (energy.get("budgets") or {}).items()}
        except ValidationError as error:
            log.warning("the checkpoint's energy is none of ours, so it is counted from now: %s", error.errors()[0]["msg"])
            return
        self._energy.restore(ledger, budgets)

    async def save(self) -> None:
        """Write what is known now. A failure is said, and tried again the next time."""
        kept, size = {}, 0
        # By what is worst to lose: joules are booked once, demand is seen anew in minutes.
        for name, state in (
            ("energy", self._energy.to_state(self._wall_seconds())),
            ("demand", self._demand.to_state()),
            ("routes", self._routes.to_state()),
        ):
            text = _written(state)
            if name == "energy" or size + len(text) <= LARGEST_BYTES:
                kept[name], size = text, size + len(text)
            else:
                log.warning("what is known of %s is %d KiB, too much to be kept over a restart", name, len(text) // 1024)
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
