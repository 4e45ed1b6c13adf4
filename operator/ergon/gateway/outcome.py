"""What came of a request, told to the metrics once it is over: one place for routes and models, over HTTP and gRPC."""

import asyncio
from dataclasses import dataclass
from types import TracebackType

from ergon.gateway.failures import Failure, Kind
from ergon.gateway.metrics import RouteMetrics


@dataclass
class Outcome:
    """Of one request: answered, refused, failed, expired or cancelled; which model answered, and for how many joules."""

    name: str = "failed"
    model: str = ""
    joules: float = 0.0


class counted:  # noqa: N801 - used like a function, and no generator: two of those were a tenth of a request's CPU
    """Counts a request that ends by `deadline` (seconds of the loop's clock); who answers it says so in the outcome.

    Raises Failure: there is no answer, in time or at all. `what` is asked, for the error's text.
    """

    __slots__ = ("_began", "_clock", "_metrics", "_outcome", "_timeout", "_what")

    def __init__(self, metrics: RouteMetrics, what: str, deadline: float, model: str = "") -> None:
        self._clock = asyncio.get_running_loop().time
        self._metrics, self._what, self._outcome = metrics, what, Outcome(model=model)
        self._began, self._timeout = self._clock(), asyncio.timeout_at(deadline)

    async def __aenter__(self) -> Outcome:
        await self._timeout.__aenter__()
        return self._outcome

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        outcome, took = self._outcome, self._clock() - self._began
        try:
            await self._timeout.__aexit__(kind, error, trace)
            if isinstance(error, TimeoutError):
                raise error
        except TimeoutError:
            outcome.name = "expired"
            raise Failure(Kind.EXPIRED, f"{self._what}: no answer within {took:.3g} s") from None
        finally:
            if isinstance(error, Failure):
                outcome.name = "expired" if error.kind is Kind.EXPIRED else "refused" if error.kind.refused else "failed"
            elif isinstance(error, (asyncio.CancelledError, ConnectionError)) and outcome.name != "expired":
                outcome.name = "cancelled"
            self._metrics.ended(outcome.model, outcome.name, took, outcome.joules)
