"""Ask a model for answers over HTTP, as its clients do, and say how long each took: for measuring, not for serving."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from ergon.triton.errors import CallFailed, ModelNotServed, ServerUnavailable, one_line

_TEXT = "A customer in Rotterdam ordered 250 valves for 1,200 euros on 3 March and asks when they will arrive."
"""What a model that takes text is asked with where nobody gave an input: a sentence with a place, an amount and a date."""


@dataclass(frozen=True)
class Input:
    """One input tensor as Triton describes it; -1 in the shape stands for any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """A served model's inputs, and the platform that runs it."""

    platform: str
    inputs: tuple[Input, ...]


class ModelClient:
    """One model behind one base URL, such as `http://10.244.0.7:8000` or a Gateway's; an async context manager.

    Raises nothing but `TritonError`. `connections`: how many requests may be under way at once.
    """

    def __init__(self, base_url: str, served_name: str, *, connections: int = 1024, timeout_seconds: float = 60.0) -> None:
        self.base_url = base_url.rstrip("/")
        self._path = f"{self.base_url}/v2/models/{served_name}"
        self._served_name = served_name
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, trust_env=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def metadata(self) -> ModelMetadata:
        """The model's inputs. Raises ModelNotServed where it is not served there."""
        answer = json.loads(await self._send("GET", "", b""))
        return ModelMetadata(
            platform=str(answer.get("platform", "")),
            inputs=tuple(
                Input(str(i["name"]), str(i["datatype"]), tuple(int(d) for d in i["shape"])) for i in answer.get("inputs", ())
            ),
        )

    async def ask(self, body: bytes) -> float:
        """Send one inference request (a KServe v2 JSON body); the seconds until its whole answer was there."""
        began = time.perf_counter()
        await self._send("POST", "/infer", body)
        return time.perf_counter() - began

    async def _send(self, method: str, suffix: str, body: bytes) -> bytes:
        assert self._session is not None, "use ModelClient as an async context manager"
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            async with self._session.request(method, self._path + suffix, data=body or None, headers=headers) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = one_line(str(error) or type(error).__name__)
            raise ServerUnavailable(f"{self.base_url} does not answer: {reason}") from None
        if answer.status == 404:
            raise ModelNotServed(f"{self.base_url} does not serve {self._served_name}")
        if answer.status != 200:
            raise CallFailed(f"{self._served_name} answers HTTP {answer.status}: {_reason(text)}")
        return text


def example_request(metadata: ModelMetadata) -> bytes:
    """A request that fits the model's inputs: a sentence for text, small numbers for the rest, 1 for lengths that are free."""
    return json.dumps({"inputs": [_tensor(tensor) for tensor in metadata.inputs]}).encode()


def _tensor(tensor: Input) -> Mapping[str, Any]:
    shape = [max(1, length) for length in tensor.shape]
    count = 1
    for length in shape:
        count *= length
    value: Any = {"BYTES": _TEXT, "BOOL": True}.get(tensor.datatype, 0.5 if tensor.datatype.startswith(("FP", "BF")) else 1)
    return {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": [value] * count}


def _reason(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return one_line(text)[:300]
    return one_line(str(answer.get("error", text)) if isinstance(answer, dict) else text)[:300]
