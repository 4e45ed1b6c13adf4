"""Events of events.k8s.io/v1: what happened to an object, said once, counted when it repeats, and never in the way."""

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ergon.kube.client import KubeClient
from ergon.kube.errors import Conflict, KubeError
from ergon.kube.pace import TokenBucket

log = logging.getLogger("ergon.events")
Object = dict[str, Any]

WINDOW_SECONDS = 600.0
_REMEMBERED = 4096
_WAITING = 1000
_NOTE_BYTES = 1000  # the API's limit is 1 KiB
_CONTROLLER = "ergon.dev/operator"


@dataclass
class _Series:
    """One (object, type, reason, message) in its window, and how much of it the API server knows."""

    name: str
    namespace: str
    began: float
    body: Object
    count: int = 1
    written: int = 0
    last: str = ""
    queued: bool = field(default=False)


@dataclass
class _Allowance:
    tokens: float
    at: float


class EventRecorder:
    """Takes events without waiting and writes them in the background: run `run()` beside the loop, or `flush()` once.

    The same event of the same object within 10 minutes counts up one series. An object has 25 events at once and one more every
    5 minutes; one reason, over all objects of a kind, 100 at once and one more every 3 s: what befalls thousands at once stands
    in their conditions, and a thousand events would only hide the others. All together are written at `per_second`. What is
    over the limits, or refused by the API server, is dropped and logged.
    """

    def __init__(
        self,
        client: KubeClient,
        instance: str,
        *,
        per_second: float = 20.0,
        object_burst: int = 25,
        object_refill_seconds: float = 300.0,
        reason_burst: int = 100,
        reason_refill_seconds: float = 3.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._instance = instance[:128]
        self._bucket = TokenBucket(per_second, max(1, int(per_second * 5)))
        self._of_object = (float(object_burst), object_refill_seconds)
        self._of_reason = (float(reason_burst), reason_refill_seconds)
        self._now = now
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._queue: asyncio.Queue[_Series] = asyncio.Queue(_WAITING)

    def record(self, regarding: Object, kind: str, reason: str, message: str, *, action: str = "") -> None:
        """Say that something happened. `kind`: Normal or Warning. `regarding`: apiVersion, kind, metadata. Never raises."""
        try:
            self._record(regarding, kind, reason, message, action or reason)
        except Exception:
            log.exception("event %s could not be recorded", reason)

    async def run(self) -> None:
        """Writes what is recorded, until cancelled."""
        while True:
            series = await self._queue.get()
            try:
                await self._write(series)
            except Exception:
                log.exception("event %s is not written", series.body["reason"])

    async def flush(self) -> None:
        """Writes what is recorded so far."""
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                await self._write(self._queue.get_nowait())

    def _record(self, regarding: Object, kind: str, reason: str, message: str, action: str) -> None:
        moment, metadata = self._now(), regarding["metadata"]
        seconds = moment.timestamp()
        key = (str(metadata.get("uid") or metadata["name"]), kind, reason, message)
        series = self._series.get(key)
        if series is None or seconds - series.began > WINDOW_SECONDS:
            if not self._allowed(key[0], seconds, *self._of_object):
                log.info("event %s of %s is not written: the object has too many", reason, metadata["name"])
                return
            if not self._allowed(f"{regarding['kind']}/{reason}", seconds, *self._of_reason):
                log.debug("event %s of %s is not written: too many have it", reason, metadata["name"])
                return
            series = self._started(key, regarding, kind, reason, message, action, moment)
        else:
            series.count += 1
        series.last = _micro_time(moment)
        if not series.queued:
            try:
                self._queue.put_nowait(series)
                series.queued = True
            except asyncio.QueueFull:
                log.debug("event %s of %s is not written: too many wait", reason, metadata["name"])

    def _started(
        self, key: tuple[str, ...], regarding: Object, kind: str, reason: str, message: str, action: str, moment: datetime
    ) -> _Series:
        metadata, time = regarding["metadata"], _micro_time(moment)
        namespace = metadata.get("namespace") or "default"
        digest = hashlib.sha256("\0".join((*key, time)).encode(errors="replace")).hexdigest()[:16]
        name = f"{metadata['name'][:200]}.{digest}"
        reference = {field: metadata[field] for field in ("namespace", "name", "uid") if metadata.get(field)}
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": time,
            "reportingController": _CONTROLLER,
            "reportingInstance": self._instance,
            "action": action[:128],
            "reason": reason[:128],
            "type": kind,
            "regarding": {"apiVersion": regarding["apiVersion"], "kind": regarding["kind"], **reference},
            "note": _cut(message),
        }
        series = self._series[key] = _Series(name, namespace, moment.timestamp(), body)
        self._series.move_to_end(key)
        while len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)
        return series

    def _allowed(self, identity: str, seconds: float, burst: float, refill_seconds: float) -> bool:
        allowance = self._allowances.setdefault(identity, _Allowance(burst, seconds))
        refill = (seconds - allowance.at) / refill_seconds
        allowance.tokens, allowance.at = min(burst, allowance.tokens + max(0.0, refill)), seconds
        self._allowances.move_to_end(identity)
        while len(self._allowances) > _REMEMBERED:
            self._allowances.popitem(last=False)
        if allowance.tokens < 1.0:
            return False
        allowance.tokens -= 1.0
        return True

    async def _write(self, series: _Series) -> None:
        series.queued = False
        await self._bucket.take()
        count, first = series.count, series.written == 0
        try:
            if first:
                with contextlib.suppress(Conflict):  # the answer to our own create was lost
                    await self._client.create(series.body)
                series.written = 1
            if count > series.written:
                patch = {"series": {"count": count, "lastObservedTime": series.last}}
                await self._client.patch_merge("events.k8s.io/v1", "Event", series.name, series.namespace, patch)
                series.written = count
        except KubeError as error:
            log.info("event %s is not written: %s", series.body["reason"], error)
        except Exception:
            log.exception("event %s could not be written", series.body["reason"])


def _cut(message: str) -> str:
    """The message within the API's limit of bytes."""
    raw = message.encode(errors="replace")
    return message if len(raw) <= _NOTE_BYTES else raw[: _NOTE_BYTES - 3].decode(errors="ignore") + "…"


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
