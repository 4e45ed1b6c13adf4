"""Requests for a model that sleeps: held, in order, while the operator is asked to wake it; once for all of them.

That the model is awake tells its EndpointSlice; the operator's answer only says whether to wait.
"""

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from ergon.gateway.directory import Directory
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.metrics import Metrics

log = logging.getLogger("ergon.gateway")

ASK_AGAIN_SECONDS = 3.0
"""While a model is not ready the operator is told again, so that a lost answer or a new leader does no harm."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.25, 3.0
"""An operator that does not answer is asked again after as long as it has been silent, within these."""
CALL_SECONDS = 3.0
LAST_WORD_SECONDS = 0.02
"""Waiting ends so long before the deadline, so that what it was for can still be said."""
_HOPELESS_SECONDS = 10.0


@dataclass
class _Sleeper:
    """Who waits for one model."""

    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    state: str = "the operator has not answered yet"


class Waker:
    """Holds requests and wakes models. Created inside a running event loop; `close` it there too."""

    def __init__(
        self,
        directory: Directory,
        metrics: Metrics,
        url: str,
        token_file: Path | None = None,
        *,
        held_requests: int = 10_000,
        held_bytes: int = 256 << 20,
    ) -> None:
        self._directory, self._metrics = directory, metrics
        self._url, self._token_file = url, token_file
        self._most_requests, self._most_bytes = held_requests, held_bytes
        self._requests = self._bytes = 0
        self._sleepers: dict[str, _Sleeper] = {}
        self._unanswered: dict[str, float] = {}
        """Models that have woken and not answered yet, and since when."""
        self._silent_since: float | None = None
        """When the operator first gave no answer, whichever model it was asked for; None: it answered last."""
        self._session = aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=CALL_SECONDS))
        directory.listeners.append(self._changed)

    async def close(self) -> None:
        """End all waiting: those who wait are told to ask again."""
        for sleeper in self._sleepers.values():
            _fail_all(sleeper, Failure(Kind.UNAVAILABLE, "this gateway is stopping; ask again", 1))
        tasks = [sleeper.task for sleeper in self._sleepers.values() if sleeper.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def must_wait(self, served: str, awake_by: float, *, wake: bool) -> bool:
        """Whether a request must take its `turn` before it is sent. Raises Failure where waiting would be in vain.

        `wake`: it waits also where the model neither answers nor sleeps, since it may be about to, and however long it may take.
        """
        if self._directory.addresses(served) and served not in self._sleepers:
            return False
        model = self._directory.model(served)
        if model is None:
            raise Failure(Kind.NOT_FOUND, f"there is no model {served[:140]}")
        if self._directory.addresses(served) or wake:
            return True
        if not self._directory.asleep(served):
            raise Failure(Kind.UNAVAILABLE, f"{served} is not ready: {model.problem or 'no server has it'}", 1)
        needs = model.cold_start_seconds or 0.0
        if asyncio.get_running_loop().time() + needs > awake_by:
            raise Failure(Kind.UNAVAILABLE, f"{served} sleeps, and its last start took {needs:.3g} s", needs)
        return True

    @asynccontextmanager
    async def turn(self, served: str, awake_by: float, size_bytes: int = 0) -> AsyncIterator[None]:
        """Waits until the model is awake and those who came before have sent; the next one's turn is when this one leaves.

        `awake_by` in seconds of the loop's clock. Raises Failure: too many wait, the model cannot be woken, or it is too late.
        """
        if self._requests >= self._most_requests or self._bytes + size_bytes > self._most_bytes:
            raise Failure(Kind.TOO_MANY, f"{self._requests} requests wait for models already; ask again later", 1)
        loop = asyncio.get_running_loop()
        sleeper = self._sleepers.setdefault(served, _Sleeper())
        turn: asyncio.Future[None] = loop.create_future()
        sleeper.waiting.append(turn)
        if sleeper.task is None:
            sleeper.task = loop.create_task(self._wake(served, sleeper), name=f"waking {served}")
        self._count(served, 1, size_bytes)
        began = loop.time()
        try:
            # Waiting may end in the very iteration in which the turn is given: the turn is passed on all the same.
            try:
                async with asyncio.timeout_at(awake_by - LAST_WORD_SECONDS):
                    await turn
            except TimeoutError:
                message = f"{served} was not awake within {loop.time() - began:.3g} s: {sleeper.state}"
                raise Failure(Kind.UNAVAILABLE, message, 1) from None
            finally:
                self._count(served, -1, -size_bytes)
            yield
        finally:
            self._leave(sleeper, turn)

    def answered(self, served: str) -> None:
        """A request that waited was answered: the first one ends the model's cold start."""
        woken_at = self._unanswered.pop(served, None)
        if woken_at is not None:
            seconds = asyncio.get_running_loop().time() - woken_at
            self._metrics.first_answer_seconds.labels(*served.split(".", 1)).observe(seconds)

    @staticmethod
    def _leave(sleeper: _Sleeper, turn: "asyncio.Future[None]") -> None:
        """It is the next one's turn."""
        if turn in sleeper.waiting:
            sleeper.waiting.remove(turn)
        sleeper.changed.set()

    def _count(self, served: str, requests: int, size_bytes: int) -> None:
        self._requests += requests
        self._bytes += size_bytes
        self._metrics.held.labels(*served.split(".", 1)).inc(requests)

    def _changed(self, served: str) -> None:
        sleeper = self._sleepers.get(served)
        if sleeper is not None:
            sleeper.changed.set()

    async def _wake(self, served: str, sleeper: _Sleeper) -> None:
        """While somebody waits: ask the operator, and give turns as soon as a server answers."""
        loop = asyncio.get_running_loop()
        began, woken, asking = loop.time(), False, None
        try:
            while sleeper.waiting:
                sleeper.changed.clear()
                if self._directory.addresses(served):
                    if not woken:
                        self._metrics.wake_seconds.labels(*served.split(".", 1)).observe(loop.time() - began)
                        log.info("%s is awake after %.2f s, %d wait", served, loop.time() - began, len(sleeper.waiting))
                        woken = True
                        self._unanswered[served] = loop.time()
                    if not sleeper.waiting[0].done():
                        sleeper.waiting[0].set_result(None)
                elif problem := self._problem(served):
                    _fail_all(sleeper, problem)
                elif asking is None or asking.done():
                    asking = loop.create_task(self._ask(served, sleeper), name=f"asking for {served}")
                await sleeper.changed.wait()
        finally:
            if asking is not None:
                asking.cancel()
            del self._sleepers[served]

    def _problem(self, served: str) -> Failure | None:
        model = self._directory.model(served)
        if model is None:
            return Failure(Kind.NOT_FOUND, f"there is no model {served}")
        return (
            Failure(Kind.UNAVAILABLE, f"{served} cannot be woken: {model.stalled}", _HOPELESS_SECONDS) if model.stalled else None
        )

    async def _ask(self, served: str, sleeper: _Sleeper) -> None:
        """Tell the operator until a server is there."""
        told = False
        while True:
            problem, pause = await self._post(served, sleeper)
            if problem is None and not told:
                log.info("waking %s: %s", served, sleeper.state)
                told = True
            if problem is not None:
                log.warning("%s is not woken: %s", served, problem)
                _fail_all(sleeper, problem)
                return
            await asyncio.sleep(pause)

    async def _post(self, served: str, sleeper: _Sleeper) -> tuple[Failure | None, float]:
        """One `POST /wake`: why waiting is in vain, if it is, and when to ask again."""
        namespace, _, model = served.partition(".")
        try:
            body = {"namespace": namespace, "model": model, "requests": len(sleeper.waiting)}
            async with self._session.post(self._url, json=body, headers=self._credentials(), allow_redirects=False) as answer:
                status, text = answer.status, await answer.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            sleeper.state = f"the operator does not answer ({error or type(error).__name__})"
            return None, self._retry_seconds()
        if status < 500:
            self._silent_since = None
        match status:
            case 200 | 202:
                sleeper.state = "it is waking"
                return None, ASK_AGAIN_SECONDS
            case 404:
                return Failure(Kind.NOT_FOUND, f"the operator knows no model {served}"), 0
            case 409:
                return Failure(Kind.UNAVAILABLE, f"{served} cannot be woken: {_reason(text)}", _HOPELESS_SECONDS), 0
            case 401 | 403:
                log.error("the operator refuses this gateway's token (HTTP %d): %s", status, text[:200])
                return Failure(
                    Kind.UNAVAILABLE, f"{served} cannot be woken: the operator refuses this gateway", _HOPELESS_SECONDS
                ), 0
            case _:
                sleeper.state = f"the operator answers HTTP {status}"
                return None, self._retry_seconds()

    def _retry_seconds(self) -> float:
        """Longer the longer the operator is silent, and not the same for all models and gateways."""
        now = asyncio.get_running_loop().time()
        if self._silent_since is None:
            self._silent_since = now
        return retry_seconds(now - self._silent_since, random.random())

    def _credentials(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        return {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}


def retry_seconds(silent_seconds: float, draw: float) -> float:
    """When to ask an operator again that has been silent for so long. `draw`: a random number from 0 to 1."""
    return min(LONGEST_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, silent_seconds)) * (0.5 + draw / 2)


def _fail_all(sleeper: _Sleeper, failure: Failure) -> None:
    for turn in sleeper.waiting:
        if not turn.done():
            turn.set_exception(Failure(failure.kind, str(failure), failure.retry_after_seconds))
    sleeper.waiting.clear()
    sleeper.changed.set()


def _reason(text: str) -> str:
    """`{"reason", "message"}` of the operator as one line."""
    try:
        answer = json.loads(text)
        return ": ".join(str(answer[key]) for key in ("reason", "message") if answer.get(key)) or text[:200]
    except (ValueError, AttributeError):
        return text[:200]
