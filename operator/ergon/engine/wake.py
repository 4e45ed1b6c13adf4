"""`POST /wake` on the leader: the gateway says that somebody asks for a model that has no replica.

A wake moves nothing by itself: it is a sign of demand, planned at once. Its answer says whether the model is on its way.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ergon.engine.cache import Cache
from ergon.engine.demand import DemandKeeper
from ergon.fleet.types import ModelKey
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError
from ergon.reconcile.waking import Answer, wake_answer

log = logging.getLogger("ergon.wake")

AUDIENCE = "ergon-operator"
TOKEN_SECONDS = 60.0
"""For how long a token that was found good is not reviewed again: a pod that is gone wakes models for a minute more at most."""
REFUSED_SECONDS = 10.0
"""For how long a token that was found bad is not reviewed again."""
REVIEW_SECONDS = 3.0
REVIEWS_AT_ONCE = 4
"""They go through the client with which the leader does all else: whoever sends made-up tokens must not slow that."""
WAITING = 64
"""Reviews that may wait for their turn, before more are sent away."""
LARGEST_BODY_BYTES = 4096
_TOKENS_KEPT = 256
Refusal = tuple[int, str] | None
"""The status and the sentence of the answer; None where nothing is against it."""


class TokenReviewer:
    """Whether a bearer token is the gateway's: the API server says so (TokenReview), for our audience alone."""

    def __init__(self, client: KubeClient, username: str, now: Callable[[], float]) -> None:
        self._client = client.within(REVIEW_SECONDS)
        self._username = username
        self._now = now
        self._known: dict[bytes, tuple[float, Refusal]] = {}
        self._reviews: dict[bytes, asyncio.Task[Refusal]] = {}
        self._turns = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def refusal(self, token: str) -> Refusal:
        """None where it is; else the status and the sentence of the answer."""
        mark = hashlib.sha256(token.encode()).digest()
        until, answer = self._known.get(mark, (0.0, None))
        if until > self._now():
            return answer
        review = self._reviews.get(mark)
        if review is None:
            if len(self._reviews) >= WAITING and mark not in self._known:
                return 503, "too many tokens wait to be checked"
            review = self._reviews[mark] = asyncio.create_task(self._review(mark, token), name="token review")
            review.add_done_callback(lambda _: self._reviews.pop(mark, None))
        return await asyncio.shield(review)  # others may wait for the same one

    async def _review(self, mark: bytes, token: str) -> Refusal:
        try:
            async with self._turns:
                answer = await self._reviewed(token)
        except KubeError as error:
            return 503, f"the token cannot be checked: {error}"
        if len(self._known) >= _TOKENS_KEPT:
            self._make_room()
        self._known[mark] = self._now() + (TOKEN_SECONDS if answer is None else REFUSED_SECONDS), answer
        return answer

    def _make_room(self) -> None:
        """Forget bad tokens before good ones: however many come, the gateway's own stays known."""
        self._known = {mark: (until, answer) for mark, (until, answer) in self._known.items() if answer is None}
        if len(self._known) >= _TOKENS_KEPT:
            self._known.clear()

    async def _reviewed(self, token: str) -> Refusal:
        """What the API server says of a token. Raises KubeError where it does not say."""
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        status = (await self._client.create(review)).get("status") or {}
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            return 401, f"the token is not one for audience {AUDIENCE}"
        name = (status.get("user") or {}).get("username", "")
        if name != self._username:
            return 403, f"{name} may not wake models; {self._username} may"
        return None


class WakeServer:
    """Listens while this process leads. `answers(key)`: servers that answer for a model now."""

    def __init__(
        self,
        cache: Cache,
        demand: DemandKeeper,
        refusal: Callable[[str], Awaitable[tuple[int, str] | None]],
        answers: Callable[[ModelKey], int],
    ) -> None:
        self._cache = cache
        self._demand = demand
        self._refusal = refusal
        self._answers = answers
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which for port 0 is the system's choice. Raises OSError where the address cannot be bound."""
        app = web.Application(client_max_size=LARGEST_BODY_BYTES)
        app.router.add_post("/wake", self._wake)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening: the gateway asks whoever leads next."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _wake(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return _json(401, {"reason": "Unauthorized", "message": "a bearer token is needed"})
        refusal = await self._refusal(token.strip())
        if refusal is not None:
            return _json(refusal[0], {"reason": "Unauthorized", "message": refusal[1]})
        key = _key_of(await _body(request))
        if key is None:
            message = 'the body must be {"namespace": "…", "model": "…", "requests": n}'
            return _json(400, {"reason": "Invalid", "message": message})
        answer = self.wake(key)
        return _json(answer.code, answer.body)

    def wake(self, key: ModelKey) -> Answer:
        """Have a model planned for, and say what can be expected."""
        record = self._cache.models.get(key)
        answer = wake_answer(key, record.model if record is not None else None, _conditions(record), self._answers(key))
        if answer.wakes:
            self._demand.wake(key)
        return answer


def _conditions(record: Any) -> list[dict[str, Any]] | None:
    return None if record is None else list(record.status.get("conditions") or ())


async def _body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except (ValueError, web.HTTPException):
        return None


def _key_of(body: Any) -> ModelKey | None:
    names = [body.get("namespace"), body.get("model")] if isinstance(body, dict) else [None]
    return ModelKey(*names) if all(isinstance(name, str) and 0 < len(name) <= 63 for name in names) else None


def _json(code: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=code)
