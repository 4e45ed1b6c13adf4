"""What came of a request, told to the metrics once it is over: one place for routes and models, over HTTP and gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ergon.gateway.failures import Failure, Kind
from ergon.gateway.metrics import RouteMetrics


@dataclass
class Outcome:
    """Of one request: answered, refused, failed, expired or cancelled; which model answered, and for how many joules."""

    name: str = "failed"
    model: str = ""
    joules: float = 0.0


@asynccontextmanager
async def counted(metrics: RouteMetrics, what: str, deadline: float, model: str = "") -> AsyncIterator[Outcome]:
    """Counts a request that ends by `deadline` (seconds of the loop's clock); who answers it says so in the outcome.

    Raises Failure: there is no answer, in time or at all. `what` is asked, for the error's text.
    """
    clock = asyncio.get_running_loop().time
    began, outcome = clock(), Outcome(model=model)
    try:
        async with asyncio.timeout_at(deadline):
            yield outcome
    except TimeoutError:
        outcome.name = "expired"
        raise Failure(Kind.EXPIRED, f"{what}: no answer within {clock() - began:.3g} s") from None
    except Failure as failure:
        outcome.name = "expired" if failure.kind is Kind.EXPIRED else "refused" if failure.kind.refused else "failed"
        raise
    except (asyncio.CancelledError, ConnectionError):
        outcome.name = "cancelled"
        raise
    finally:
        metrics.ended(outcome.model, outcome.name, clock() - began, outcome.joules)
