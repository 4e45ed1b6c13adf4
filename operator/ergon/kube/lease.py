"""Leader election on a Lease of coordination.k8s.io: the driver of the state machine in election.py."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ergon.kube.client import KubeClient
from ergon.kube.election import Election, Seen, Step, Timing
from ergon.kube.errors import Conflict, KubeError, NotFound

log = logging.getLogger("ergon.lease")
Object = dict[str, Any]
_API_VERSION, _KIND = "coordination.k8s.io/v1", "Lease"
_CALL_SECONDS = 5.0


class LeaderElection:
    """One candidate for one Lease.

    `run()` waits for leadership, sets `leading`, keeps it, and returns when it is lost or given back; it is for one term.
    What acts asks `outlives(seconds)` first: a Lease cannot promise that two never act, but this makes it so that what was begun
    ends before another can lead.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        timing: Timing | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.leading = asyncio.Event()
        self._client = client
        self._namespace = namespace
        self._name = name
        self._state = Election(identity, timing or Timing())
        self._chance = chance or random.Random()
        self._lease: Object | None = None
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()
        self._over.set()

    @property
    def identity(self) -> str:
        """This candidate's name in the Lease."""
        return self._state.identity

    def outlives(self, seconds: float) -> bool:
        """Whether an action that takes at most so long ends while this candidate surely still leads."""
        return self.leading.is_set() and self._state.outlives(seconds, _now())

    async def run(self) -> None:
        """One term: until the Lease is lost or `stop()` is called."""
        self._over.clear()
        try:
            while not self._stopping.is_set():
                step = self._state.step(_now())
                if step is Step.LOST:
                    log.error("the Lease %s/%s is lost", self._namespace, self._name)
                    return
                await self._advance(step)
                if self._state.leads and not self.leading.is_set():
                    log.info("%s leads", self.identity)
                    self.leading.set()
                if self._state.step(_now()) is not Step.LOST:
                    await self._pause()
            if self._state.leads:
                await self._give_back()
        finally:
            self._state = self._state.gave_back()
            self.leading.clear()
            self._over.set()

    async def stop(self) -> None:
        """Give the Lease back, so that the next leader need not wait, and end `run()`."""
        self._stopping.set()
        await self._over.wait()

    async def _advance(self, step: Step) -> None:
        """One try. Errors are tolerated: the state machine counts the time that passes."""
        try:
            match step:
                case Step.RENEW:
                    await self._renew()
                case Step.TAKE | Step.CREATE if self._state.read:
                    await self._write(step)
                case _:
                    await self._look()
                    if (step := self._state.step(_now())) in (Step.TAKE, Step.CREATE):
                        await self._write(step)
        except Conflict:
            # Somebody else wrote meanwhile; see what.
            with contextlib.suppress(KubeError):
                await self._look()
        except KubeError as error:
            log.warning("the Lease cannot be %s: %s", "renewed" if step is Step.RENEW else "reached", error)

    async def _renew(self) -> None:
        try:
            await self._write(Step.RENEW)
        except Conflict:
            # Written by another hand (an annotation, a new leader): while the holder is still us, renew that version.
            await self._look()
            if self._state.leads:
                await self._write(Step.RENEW)

    async def _look(self) -> None:
        try:
            self._lease = await self._client.within(_CALL_SECONDS).get(_API_VERSION, _KIND, self._name, self._namespace)
        except NotFound:
            self._lease = None
        self._state = self._state.observe(_seen(self._lease), _now())

    async def _write(self, step: Step) -> None:
        started = _now()
        allowed = self._state.timing.renew_seconds
        if self._state.renewed_at is not None:
            allowed -= started - self._state.renewed_at
        client = self._client.within(max(0.1, min(_CALL_SECONDS, allowed)))
        if step is Step.CREATE or self._lease is None:
            self._lease = await client.create(self._record({}, step))
        else:
            self._lease = await client.replace(self._record(self._lease, step))
        seen = _seen(self._lease)
        assert seen is not None
        self._state = self._state.wrote(seen, started)

    async def _give_back(self) -> None:
        if self._lease is None:
            return
        spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _text_now()}
        try:
            await self._client.within(_CALL_SECONDS).replace({**self._lease, "spec": spec})
            log.info("%s gave the Lease back", self.identity)
        except KubeError as error:
            log.warning("the Lease could not be given back, so the next leader waits for its end: %s", error)

    def _record(self, lease: Mapping[str, Any], step: Step) -> Object:
        spec = dict(lease.get("spec") or {})
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._state.timing.lease_seconds)),
            "renewTime": _text_now(),
        }
        if step is not Step.RENEW:
            spec["acquireTime"] = spec["renewTime"]
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if lease else 0)
        metadata = dict(lease.get("metadata") or {"name": self._name, "namespace": self._namespace})
        return {"apiVersion": _API_VERSION, "kind": _KIND, "metadata": metadata, "spec": spec}

    async def _pause(self) -> None:
        """Until the next try: evenly while leading, with jitter while waiting, so that candidates do not step on each other."""
        seconds = self._state.timing.retry_seconds
        if self._state.renewed_at is not None:
            seconds = min(seconds, max(0.05, self._state.renewed_at + self._state.timing.renew_seconds - _now()))
        else:
            seconds *= 1.0 + 0.2 * self._chance.random()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _seen(lease: Mapping[str, Any] | None) -> Seen | None:
    if lease is None:
        return None
    spec = lease.get("spec") or {}
    return Seen(
        holder=spec.get("holderIdentity") or "",
        lease_seconds=float(spec.get("leaseDurationSeconds") or 0),
        version=str(lease["metadata"].get("resourceVersion", "")),
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _text_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
