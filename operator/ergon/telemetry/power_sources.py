"""Readers of power sources: Triton's own metrics page, and Prometheus. They read and refuse what is no figure; the ledger judges.

In: HTTP answers. Out: `Reading` by accelerator, or one number. Raises SourceError alone, in one line for people.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from ergon.energy.meters import Reading
from ergon.pages import PageError, read_page

ANSWER_LIMIT_BYTES = 1 << 20
STALE_SECONDS = 300.0
"""Prometheus itself repeats a series for so long after its last scrape."""

_TRITON = {
    "nv_energy_consumption": "joules",
    "nv_gpu_power_usage": "watts",
    "nv_gpu_power_limit": "limit_watts",
}


class SourceError(Exception):
    """A power source did not give a figure; the message says which, why, and what to do where that is known."""


class PowerSources:
    """One session for all queries. Created inside a running event loop; `close` it there too.

    `prometheus_url`: of the operator's own settings, never of an object; None: there is no Prometheus.
    """

    def __init__(self, prometheus_url: str | None = None, seconds: float = 5.0) -> None:
        self._prometheus = URL(prometheus_url) if prometheus_url is not None else None
        self._seconds = seconds
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64), trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def prometheus(self, query: str, now_seconds: float | None = None) -> float:
        """The one number that a query gives now. With `now_seconds` (since the epoch) an older sample is refused.

        Raises SourceError: no answer, an error in the query, no series, several, or a value that is no figure.
        """
        if self._prometheus is None:
            raise SourceError("no Prometheus is configured: give the operator its address (--prometheus-url)")
        url = (self._prometheus / "api/v1/query").with_query(query=query)
        status, body = await self._get(url, str(self._prometheus))
        return read_prometheus_answer(query, status, body, now_seconds)

    async def _get(self, url: URL, shown: str) -> tuple[int, bytes]:
        try:
            return await read_page(self._session, url, limit_bytes=ANSWER_LIMIT_BYTES, seconds=self._seconds)
        except PageError as error:
            raise SourceError(f"{shown}: {error}") from None


def read_triton_page(page: str) -> Reading:
    """The power figures of a metrics page by gpu_uuid; half a page gives half of them. What is no figure is left out."""
    found: dict[str, dict[str, float]] = {"joules": {}, "watts": {}, "limit_watts": {}}
    for line in _power_lines(page):
        try:
            samples = [sample for family in text_string_to_metric_families(line) for sample in family.samples]
        except ValueError:
            continue
        for sample in samples:
            kind, uuid = _TRITON.get(sample.name), sample.labels.get("gpu_uuid")
            if kind is not None and uuid and math.isfinite(sample.value) and sample.value >= 0:
                found[kind][uuid] = sample.value
    return Reading(**found)


def read_prometheus_answer(query: str, status: int, body: bytes, now_seconds: float | None = None) -> float:
    """The number in the answer to an instant query. Raises SourceError, naming the query."""
    shown = query if len(query) <= 80 else f"{query[:77]}..."
    try:
        answer = json.loads(body)
        data = answer["data"] if answer.get("status") == "success" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SourceError(f"{shown}: answered {status} with something that is not Prometheus's") from None
    if data is None:
        raise SourceError(f"{shown}: {str(answer.get('error', 'failed'))[:300]}")
    time, text = _one_sample(shown, data)
    try:
        value, at = float(text), float(time)
    except (TypeError, ValueError):
        raise SourceError(f"{shown}: gave {str(text)[:40]!r}, which is no number") from None
    if not math.isfinite(value):
        raise SourceError(f"{shown}: gave {text}; a division by nothing, or a series that ended")
    if value < 0:
        raise SourceError(f"{shown}: gave {value:g}, which is negative; power and energy are not")
    if now_seconds is not None and now_seconds - at > STALE_SECONDS:
        raise SourceError(f"{shown}: its sample is {now_seconds - at:.0f} s old; is the target still scraped?")
    return value


def _one_sample(shown: str, data: Any) -> tuple[Any, Any]:
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "scalar" and isinstance(result, list) and len(result) == 2:
        return result[0], result[1]
    if kind != "vector" or not isinstance(result, list):
        raise SourceError(f"{shown}: gave a {kind or 'strange'} result; a query must give one number now, without a range")
    if not result:
        raise SourceError(f"{shown}: gave no series; is the exporter scraped, and are the labels right?")
    if len(result) > 1:
        raise SourceError(f"{shown}: gave {len(result)} series; put sum(...) around it, or select one")
    try:
        time, text = result[0]["value"]
    except (KeyError, TypeError, ValueError):
        raise SourceError(f"{shown}: gave a series without a value") from None
    return time, text


def _power_lines(page: str) -> Iterable[str]:
    """Complete lines of the metrics that are read: parsing 2,600 others would cost 15 times as much. A page that breaks off
    ends in half a line, which may look like a smaller number.
    """
    for line in page.splitlines(keepends=True):
        if line.startswith("nv_") and line.endswith("\n") and line.partition("{")[0] in _TRITON:
            yield line
