"""What only Triton's metrics page says: of a model its waiting requests and a few percentiles, of GPUs the memory in use.

The page of a server with 200 models is 2,600 lines: it is searched for two series by pattern (4 ms), since a whole parser takes
many times as long and every server's page is read every few seconds.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from ergon.pages import PageError, read_page
from ergon.triton.errors import ServerUnavailable, one_line

LARGEST_PAGE_BYTES = 64 << 20
_SERIES = re.compile(
    r"^(nv_inference_pending_request_count|nv_inference_request_summary_us)\{([^}]*)\} (\S+)\r?$",
    re.MULTILINE,
)
_FAILURES = re.compile(r"^nv_inference_request_failure\{([^}]*)\} (\S+)\r?$", re.MULTILINE)
_GPU_MEMORY = re.compile(r"^nv_gpu_memory_used_bytes\{[^}]*\} (\S+)\r?$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class ModelMetrics:
    """One model on one server. `pending`: requests that wait, None where not said.

    `latency_seconds`: by quantile (0 to 1), of successful requests over Triton's own sliding window, queueing included. A model's
    versions are taken together: pending ones are added up, of latencies the largest counts.
    """

    pending: int | None = None
    latency_seconds: Mapping[float, float] = field(default_factory=dict)

    def latency_at(self, percentile: float) -> float | None:
        """The latency at the least quantile at or above `percentile` (1 to 99); None where Triton says none."""
        known = [quantile for quantile in self.latency_seconds if quantile * 100 >= percentile - 1e-9]
        return self.latency_seconds[min(known)] if known else None


def model_metrics(page: str) -> dict[str, ModelMetrics]:
    """By model name. Lines that are cut off, negative, absurd or not numbers are passed over."""
    pending: dict[str, int] = {}
    latency: dict[str, dict[float, float]] = {}
    for series, labels, text in _SERIES.findall(page):
        said = dict(_LABEL.findall(labels))
        name, value = said.get("model", ""), _number(text)
        if not name or value is None:
            continue
        if series.endswith("pending_request_count"):
            pending[name] = pending.get(name, 0) + int(value)
            continue
        quantile = _number(said.get("quantile", ""))
        if quantile is not None and quantile <= 1:
            mine = latency.setdefault(name, {})
            mine[quantile] = max(mine.get(quantile, 0.0), value / 1e6)
    return {name: ModelMetrics(pending.get(name), latency.get(name, {})) for name in {*pending, *latency}}


def backend_failures(page: str, model: str) -> int | None:
    """Requests to a model that its backend failed, as against those that were cancelled or refused; None where not said."""
    said = [(dict(_LABEL.findall(labels)), _number(text)) for labels, text in _FAILURES.findall(page)]
    found = [n for labels, n in said if n is not None and labels.get("model") == model and labels.get("reason") == "BACKEND"]
    return int(sum(found)) if found else None


def gpu_memory_used_bytes(page: str) -> int | None:
    """What is in use on all GPUs of the server together; None where the page does not say it of each."""
    said = [_number(text) for text in _GPU_MEMORY.findall(page)]
    known = [value for value in said if value is not None]
    return int(sum(known)) if known and len(known) == len(said) else None


def _number(text: str) -> float | None:
    """A finite figure from 0 up, else None: quantiles of a model that was not asked of late are NaN."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e15 and math.isfinite(value) else None


class MetricsPage:
    """The metrics page of one server, such as `http://10.244.0.7:8002/metrics`. `session` is shared and stays the caller's."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        timeout_seconds: float = 5.0,
        largest_bytes: int = LARGEST_PAGE_BYTES,
    ) -> None:
        self.url = url
        self._session = session
        self._seconds, self._largest_bytes = timeout_seconds, largest_bytes

    async def read(self) -> str:
        """The page as text. Raises ServerUnavailable."""
        try:
            status, body = await read_page(self._session, self.url, limit_bytes=self._largest_bytes, seconds=self._seconds)
        except PageError as error:
            raise ServerUnavailable(f"{self.url} does not answer: {one_line(str(error))}") from None
        if status != 200:
            raise ServerUnavailable(f"{self.url} answers HTTP {status}")
        return body.decode("utf-8", "replace")
