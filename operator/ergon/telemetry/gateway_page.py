"""What a gateway's metrics page says of routes, as the plan takes it. What is no figure is left out."""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ergon.demand.cascade import RouteCounters
from ergon.fleet.types import ModelKey

METRICS_PORT = 8080
PAGE_LIMIT_BYTES = 8 << 20
READ_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class GatewayPage:
    """One page. `samples`: a route's estimated quality by the share that escalates."""

    routes: dict[ModelKey, RouteCounters] = field(default_factory=dict)
    samples: dict[ModelKey, dict[float, float]] = field(default_factory=dict)


@dataclass(slots=True)
class _Sums:
    requests: float = 0.0
    asked: dict[str, float] = field(default_factory=dict)
    escalations: float = 0.0
    wished: float = 0.0
    joules: float = 0.0


def read_gateway_page(page: str) -> GatewayPage:
    """The counters of all routes on a page. Raises ValueError where it is no metrics page."""
    sums: dict[ModelKey, _Sums] = {}
    quality: dict[ModelKey, dict[float, float]] = {}
    for sample in _samples(page):
        namespace, route = sample.labels.get("namespace"), sample.labels.get("route")
        if not namespace or not route or not math.isfinite(sample.value) or sample.value < 0:
            continue
        key = ModelKey(namespace, route)
        if sample.name == "ergon_gateway_sample_quality":
            rate = _number(sample.labels.get("rate", ""))
            if rate is not None and sample.value <= 1:
                quality.setdefault(key, {})[rate] = sample.value
            continue
        _add(sums.setdefault(key, _Sums()), sample)
    routes = {key: RouteCounters(s.requests, s.asked, s.escalations, s.wished, s.joules) for key, s in sums.items()}
    return GatewayPage(routes, quality)


def _samples(page: str) -> Iterable[Sample]:
    return (sample for family in text_string_to_metric_families(page) for sample in family.samples)


def _add(sums: _Sums, sample: Sample) -> None:
    match sample.name:
        case "ergon_gateway_requests_total":
            # What was refused asked nobody.
            sums.requests += 0.0 if sample.labels.get("outcome") == "refused" else sample.value
        case "ergon_gateway_asked_total":
            model = sample.labels.get("model", "")
            sums.asked[model] = sums.asked.get(model, 0.0) + sample.value
        case "ergon_gateway_escalations_total":
            sums.escalations += sample.value
        case "ergon_gateway_wished_escalations_total":
            sums.wished += sample.value
        case "ergon_gateway_joules_total":
            sums.joules += sample.value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


async def fetch_page(session: aiohttp.ClientSession, address: str) -> GatewayPage | None:
    """The page of the gateway at an IP address; None where it cannot be had now."""
    host = f"[{address}]" if ":" in address else address
    try:
        async with asyncio.timeout(READ_SECONDS), session.get(f"http://{host}:{METRICS_PORT}/metrics") as answer:
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > PAGE_LIMIT_BYTES:
                    return None
            return read_gateway_page(body.decode("utf-8", errors="replace")) if answer.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return None
