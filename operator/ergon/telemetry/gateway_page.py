"""What a gateway's metrics page says of routes, as the plan takes it. What is no figure is left out.

The page of 1,000 routes is 8 MB, most of it histograms that nobody asks for here: it is searched for a few series by pattern,
since a whole parser takes 4 s for it and every gateway's page is read every few seconds.
"""

import asyncio
import logging
import math
import re
from dataclasses import dataclass, field

import aiohttp

from ergon.demand.cascade import RouteCounters
from ergon.fleet.types import ModelKey
from ergon.pages import PageError, PageTooLarge, read_page

log = logging.getLogger("ergon.gateways")

METRICS_PORT = 8080
LARGEST_PAGE_BYTES = 32 << 20
"""Of some 4,000 routes."""
READ_SECONDS = 3.0
BESIDE_BYTES = 256 << 10
"""From here on a page is read in a thread, beside the loop: that takes more than some 5 ms."""
_MARK = "# TYPE ergon_gateway_requests"
_SERIES = re.compile(
    r"\nergon_gateway_(requests_total|asked_total|escalations_total|wished_escalations_total|joules_total|sample_quality"
    r"|first_answer_seconds_count|first_answer_seconds_sum)"
    r"\{([^}\n]*)\} (\S+)"
)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Told:
    """A histogram's count and sum of seconds."""

    count: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class GatewayPage:
    """One page. `samples`: a route's estimated quality by the share that escalates; `first_answers`: of models that woke."""

    routes: dict[ModelKey, RouteCounters] = field(default_factory=dict)
    samples: dict[ModelKey, dict[float, float]] = field(default_factory=dict)
    first_answers: dict[ModelKey, Told] = field(default_factory=dict)


@dataclass(slots=True)
class _Sums:
    requests: float = 0.0
    asked: dict[str, float] = field(default_factory=dict)
    escalations: float = 0.0
    wished: float = 0.0
    joules: float = 0.0


def read_gateway_page(page: str) -> GatewayPage:
    """The counters of all routes on a page. Raises ValueError where it is not the page of a gateway."""
    if page and not page.isspace() and _MARK not in page:
        raise ValueError("it is not the metrics page of a gateway")
    sums: dict[ModelKey, _Sums] = {}
    quality: dict[ModelKey, dict[float, float]] = {}
    woken: dict[ModelKey, dict[str, float]] = {}
    for found in _SERIES.finditer(page):
        series, text, said = found.groups()
        labels: dict[str, str] = dict(_LABEL.findall(text))
        namespace, route, value = labels.get("namespace"), labels.get("route"), _number(said)
        if series.startswith("first_answer") and namespace and labels.get("model") and value is not None:
            woken.setdefault(ModelKey(namespace, labels["model"]), {})[series.rpartition("_")[2]] = value
            continue
        if not namespace or not route or value is None:
            continue
        key = ModelKey(namespace, route)
        if series == "sample_quality":
            rate = _number(labels.get("rate", ""))
            if rate is not None and rate <= 1 and value <= 1:
                quality.setdefault(key, {})[rate] = value
            continue
        _add(sums.setdefault(key, _Sums()), series, labels, value)
    routes = {key: RouteCounters(s.requests, s.asked, s.escalations, s.wished, s.joules) for key, s in sums.items()}
    first = {key: Told(told.get("count", 0.0), told.get("sum", 0.0)) for key, told in woken.items()}
    return GatewayPage(routes, quality, first)


def _add(sums: _Sums, series: str, labels: dict[str, str], value: float) -> None:
    match series:
        case "requests_total":
            # What was refused asked nobody.
            sums.requests += 0.0 if labels.get("outcome") == "refused" else value
        case "asked_total":
            model = labels.get("model", "")
            sums.asked[model] = sums.asked.get(model, 0.0) + value
        case "escalations_total":
            sums.escalations += value
        case "wished_escalations_total":
            sums.wished += value
        case "joules_total":
            sums.joules += value


def _number(text: str) -> float | None:
    """A finite figure from 0 up, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value >= 0 and math.isfinite(value) else None


class GatewayPages:
    """Reads gateways' pages. What cannot be taken from one is told once, until it can be again. `session` stays the caller's."""

    def __init__(
        self, session: aiohttp.ClientSession, *, port: int = METRICS_PORT, largest_bytes: int = LARGEST_PAGE_BYTES
    ) -> None:
        self._session, self._port, self._largest_bytes = session, port, largest_bytes
        self._told: set[str] = set()

    async def read(self, address: str) -> GatewayPage | None:
        """The page of the gateway at an IP address; None where it cannot be had now."""
        try:
            text = await self._fetch(address)
            beside = len(text) >= BESIDE_BYTES
            page = await asyncio.to_thread(read_gateway_page, text) if beside else read_gateway_page(text)
        except (PageTooLarge, ValueError) as error:
            if address not in self._told:
                self._told.add(address)
                log.warning("what the gateway at %s counts of routes is not taken in: %s", address, error)
            return None
        except PageError:
            return None  # it begins, ends or is busy: its counters stand on the next page
        self._told.discard(address)
        return page

    async def _fetch(self, address: str) -> str:
        """The page as text. Raises PageError, and ValueError where it is no page."""
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._port}/metrics"
        status, body = await read_page(self._session, url, limit_bytes=self._largest_bytes, seconds=READ_SECONDS)
        if status != 200:
            raise ValueError(f"it answers HTTP {status}")
        return body.decode("utf-8", errors="replace")
