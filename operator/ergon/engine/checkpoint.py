"""What was learned and booked, kept over a restart: one ConfigMap in the operator's namespace, written every few minutes.

Everything in it can be lost without harm to what is served: demand is seen anew, and energy is counted on from now.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ergon.demand.cascade import Cascades
from ergon.engine.demand import DemandKeeper
from ergon.engine.energy import EnergyKeeper
from ergon.engine.packed import Object, Path, packed, united, unpacked
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError

log = logging.getLogger("ergon.checkpoint")

NAME = "ergon-checkpoint"
CHECKPOINT_SECONDS = 300.0
READ_SECONDS, READ_AGAIN_SECONDS = 5.0, 10.0
"""So long one try may take, since nothing is decided before the first; and so long after it comes the next."""
LARGEST_CHARACTERS = 900_000
"""Of what is kept: a ConfigMap holds 1 MiB with everything around it."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is kept under a name. `pieces` of its state are united; each is made in a few milliseconds, since everything waits
    meanwhile. `may_go` is left out where it is too long, the last entries first (see `packed`). `share`: of the room that the
    parts before it have left; what it does not need is left to those after it.
    """

    name: str
    pieces: Callable[[], Iterable[Mapping[str, Any]]]
    restore: Callable[[Mapping[str, Any]], None]
    may_go: tuple[tuple[Path, ...], ...]
    share: float = 1.0


def parts_of(demand: DemandKeeper, energy: EnergyKeeper, routes: Cascades, now: Callable[[], float]) -> tuple[Part, ...]:
    """Energy first, which is booked once: counters go before the ledger, the ledger's devices before what budgets used. The rest
    is for demand, of the busiest models, and for routes. `now` is their clock, in seconds since the epoch.
    """
    return (
        Part("energy", lambda: [energy.to_state()], energy.restore, ((("counters",),), (("ledger", "devices"),)), 0.5),
        Part("demand", demand.pieces, demand.restore, ((("forecasts",), ("peaks",), ("learning", "services")),), 0.8),
        Part("routes", lambda: [routes.to_state()], lambda state: routes.take_state(state, now()), ((("routes",),),)),
    )


class Checkpoint:
    """Reads what an operator before this one kept, and keeps it up to date. Nothing is written before that was read: what is
    known until then is nothing, and would take its place.
    """

    def __init__(self, client: KubeClient, namespace: str, parts: Sequence[Part]) -> None:
        self._client, self._namespace, self._parts = client, namespace, parts
        self.restored = False
        self._said: set[str] = set()

    async def restore(self) -> None:
        """Take up what was kept, unless it cannot be read now: then `keep` goes on trying. A part that is none of ours is said
        and left out.
        """
        try:
            held = await self._client.within(READ_SECONDS).find("v1", "ConfigMap", NAME, self._namespace)
        except KubeError as error:
            self._say_once("read", f"the checkpoint cannot be read; it is tried again, and all is counted from now: {error}")
            return
        self.restored = True
        texts = (held or {}).get("binaryData") or {}
        for part in self._parts:
            try:
                if part.name in texts:
                    part.restore(unpacked(texts[part.name]))
            except (ValueError, OSError, EOFError) as error:
                log.warning("the checkpoint's %s cannot be read: %s", part.name, error)
            except Exception:
                log.exception("the checkpoint's %s cannot be taken up, so it is counted from now", part.name)

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
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": self._namespace, "labels": {"app.kubernetes.io/managed-by": "ergon"}},
            "binaryData": await self._texts(),
        }
        try:
            await self._client.apply(body)
        except KubeError as error:
            log.warning("the checkpoint could not be written: %s", error)

    async def _texts(self) -> dict[str, str]:
        """Every part's state, packed; the loop goes on between its pieces, and while it is packed."""
        texts: dict[str, str] = {}
        room = LARGEST_CHARACTERS
        for part in self._parts:
            pieces = []
            for piece in part.pieces():
                pieces.append(piece)
                await asyncio.sleep(0)
            found = await asyncio.to_thread(_pack, pieces, int(part.share * room), part.may_go)
            if found is None:
                self._say_once(part.name, f"what is known of {part.name} is too much to be kept over a restart")
                continue
            texts[part.name], kept = found
            room -= len(texts[part.name])
            if kept < 1:
                self._say_once(
                    part.name, f"what is known of {part.name} is too much to be kept whole over a restart: the least goes"
                )
        return texts

    def _say_once(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("%s", text)


def _pack(pieces: Sequence[Mapping[str, Any]], most: int, may_go: Sequence[Sequence[Path]]) -> tuple[str, float] | None:
    return packed(united(pieces), most, may_go)
