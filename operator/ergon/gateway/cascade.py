"""One request's way through a route: the models are asked in their order until an answer stands. The protocol is the caller's.

An answer stands when no rule speaks against it, when there is no further model, or when the route has escalated its share. It is
the only one that is given: a model that is late is asked no longer before the next one is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, NamedTuple, Protocol, TypeVar

from ergon.gateway.columns import Column, Malformed
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.metrics import RouteMetrics
from ergon.gateway.rate import EscalationRate
from ergon.gateway.routes import Candidate, Route
from ergon.gateway.rules import Reason, Sign, judge

LAST_WORD_SECONDS = 0.01
"""So long before the deadline no model is waited for any more; who waits for one to wake has given up before."""
HELD = "held"
"""In place of a reason: the answer asked for a bigger model, and none was asked or none answered."""


class Wish(Enum):
    """What the caller wants of escalation."""

    BY_RULES = ""
    FORBID = "forbid"
    FORCE = "force"


class Reply(Protocol):
    """A model's answer in any protocol."""

    @property
    def refused(self) -> bool:
        """Whether it says that the request itself is wrong, which no other model will see otherwise."""

    def outputs(self, names: Set[str]) -> Mapping[str, Column]:
        """Those of the named outputs that it has. Raises Malformed."""


R = TypeVar("R", bound=Reply)
Ask = Callable[[Candidate, float], Awaitable[R]]
"""Asks a model; one that sleeps must be awake at the given time of the loop's clock. Raises Failure."""


class Answered(NamedTuple, Generic[R]):
    """The answer that is given: whose it is, which models were asked, and why further ones were."""

    reply: R
    model: str
    asked: tuple[str, ...]
    reasons: tuple[str, ...] = ()


@dataclass
class Cascade(Generic[R]):
    """One request. `deadline` in seconds of the loop's clock."""

    route: Route
    ask: Ask[R]
    rate: EscalationRate
    metrics: RouteMetrics
    deadline: float
    wish: Wish = Wish.BY_RULES
    asked: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    _began: float = 0.0
    _best: tuple[R, str] | None = None
    _granted: bool = False
    _wished: bool = False

    async def run(self) -> Answered[R]:
        """The answer. Raises Failure where no model of the route gave one."""
        candidates, clock = self.route.candidates, asyncio.get_running_loop().time
        if not candidates:
            raise Failure(Kind.UNAVAILABLE, f"route {self.route.namespace}/{self.route.name} has no model", 10)
        self._began = clock()
        self.rate.request(self._began)
        place = self._forced(clock())
        while True:
            candidate, last = candidates[place], place == len(candidates) - 1
            try:
                reply = await self._answer(candidate, last)
            except Failure as failure:
                if failure.kind.refused:
                    raise
                if failure.kind in (Kind.NOT_FOUND, Kind.TOO_MANY):  # of this model: the route is there, and has others
                    failure = Failure(Kind.UNAVAILABLE, str(failure), failure.retry_after_seconds or 1)
                if last or failure.kind is Kind.EXPIRED:
                    return self._instead(failure)
                self._next(candidate, candidates[place + 1], Reason.UNAVAILABLE)
            else:
                if reply is None:
                    self._next(candidate, candidates[place + 1], Reason.LATE)
                elif last or reply.refused or (sign := self._sign(reply)) is None:
                    return self._stands(reply, candidate.model)
                else:
                    self._best = (reply, candidate.model)
                    if not self._may(sign, clock()):
                        self.reasons.append(HELD)
                        return self._stands(reply, candidate.model)
                    self._next(candidate, candidates[place + 1], sign.reason)
            place += 1

    async def _answer(self, candidate: Candidate, last: bool) -> R | None:
        """A model's answer; None where it is late and another one may be asked."""
        clock = asyncio.get_running_loop().time
        self.asked.append(candidate.model)
        self.metrics.asked(candidate.model)
        now = clock()
        # Half of what is left stays for the models after it.
        awake_by = self.deadline if last and self._best is None else now + (self.deadline - now) / 2
        after = self.route.after_seconds
        if after is None or last or self.wish is Wish.FORBID or now + after >= self.deadline:
            return await self._in_time(candidate, awake_by)
        asking = asyncio.ensure_future(self._in_time(candidate, awake_by))
        try:
            done, _ = await asyncio.wait({asking}, timeout=after)
            if not done and self._may(Sign(Reason.LATE), clock()):
                return None
            return await asking
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})  # only then is it sure that it will not answer

    async def _in_time(self, candidate: Candidate, awake_by: float) -> R:
        """A model's answer, while an earlier one can still be given in its place. Where there is none, the request's own deadline
        ends it.
        """
        if self._best is None:
            return await self.ask(candidate, awake_by)
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(self.deadline - min(LAST_WORD_SECONDS, (self.deadline - now) / 10)):
                return await self.ask(candidate, awake_by)
        except TimeoutError:
            took = asyncio.get_running_loop().time() - self._began
            message = f"route {self.route.namespace}/{self.route.name}: no answer within {took:.3g} s"
            raise Failure(Kind.EXPIRED, message) from None

    def _forced(self, now: float) -> int:
        """Where to begin: with the last model where the caller insists."""
        last = len(self.route.candidates) - 1
        if self.wish is not Wish.FORCE or not last:
            return 0
        if not self._may(Sign(Reason.FORCED), now):
            self.wish = Wish.FORBID
            self.reasons.append(HELD)
            return 0
        first, biggest = self.route.candidates[0].model, self.route.candidates[last].model
        self.metrics.escalated(first, biggest, Reason.FORCED)
        self.reasons.append(Reason.FORCED)
        return last

    def _sign(self, reply: R) -> Sign | None:
        if not self.route.when:
            return None
        try:
            sign = judge(self.route.when, reply.outputs(self.route.names))
        except Malformed:
            sign = Sign(Reason.MALFORMED)
        if sign is None:
            self.rate.good()
        return sign

    def _may(self, sign: Sign, now: float) -> bool:
        """Whether the next model may be asked for what the answer says. One grant is for the whole request."""
        if not self._wished:
            self._wished = True
            self.metrics.wished()
        if self.wish is Wish.FORBID:
            return False
        self._granted = self._granted or self.rate.may(self.route.allowed_rate, sign.urgency, now)
        return self._granted

    def _next(self, candidate: Candidate, to: Candidate, reason: Reason) -> None:
        self.metrics.escalated(candidate.model, to.model, reason)
        self.reasons.append(reason)

    def _stands(self, reply: R, model: str) -> Answered[R]:
        return Answered(reply, model, tuple(self.asked), tuple(self.reasons))

    def _instead(self, failure: Failure) -> Answered[R]:
        """An answer that was not good enough is better than none."""
        if self._best is None:
            raise failure
        self.reasons.append(HELD)
        return self._stands(*self._best)
