"""One Triton server's control API, over gRPC: over HTTP a load blocks the workers that also answer inference."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

import grpc.aio
from google.protobuf import json_format
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from ergon.triton.configuration import REVISION_PARAMETER
from ergon.triton.errors import (
    CallFailed,
    LoadRefused,
    ModelNotServed,
    OutcomeUnknown,
    ServerUnavailable,
    TritonError,
    WrongKey,
    one_line,
)
from ergon.triton.observed import BatchStatistics, LoadedModel, ModelState, ModelStatistics, RepositoryState, ServerMetadata

_KEY_HEADER = "triton-grpc-protocol-ergon-key"
_CHANNEL = [
    # A pod that restarts is reached again within seconds, not after gRPC's default back-off of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Pod addresses are reached directly, whatever proxy the operator's environment names.
    ("grpc.enable_http_proxy", 0),
    # All statistics of many models come in one message.
    ("grpc.max_receive_message_length", 64 << 20),
]
# A name is served while one of its versions is ready; after that, what goes on counts more than what has ended.
_STRONGEST_FIRST = (
    RepositoryState.READY,
    RepositoryState.LOADING,
    RepositoryState.UNLOADING,
    RepositoryState.UNAVAILABLE,
    RepositoryState.UNKNOWN,
    RepositoryState.ABSENT,
)


class TritonServer:
    """A client of one server. Every call has a deadline and raises nothing but `TritonError` (and asyncio's cancellation).

    `address` is "ip:port" of the gRPC port, `key` the value its restricted APIs expect, `read_seconds` the deadline of
    calls that only read. Calls may run at the same time. Created inside a running event loop; `close` it there too.
    """

    def __init__(self, address: str, key: str, *, read_seconds: float = 10.0) -> None:
        self.address = address
        self._headers = {_KEY_HEADER: key}
        self._read_seconds = read_seconds
        self._closed = False
        self._client = InferenceServerClient(address, channel_args=_CHANNEL)

    def __repr__(self) -> str:
        return f"TritonServer({self.address!r})"

    async def close(self) -> None:
        """Close the connection; calls under way end with `ServerUnavailable`."""
        self._closed = True
        await self._client.close()

    async def live(self) -> bool:
        """Whether the server answers and says it is alive. False, not an error, when it cannot be reached."""
        try:
            return bool(await self._read(self._client.is_server_live(**self._options())))
        except ServerUnavailable:
            return False

    async def server_metadata(self) -> ServerMetadata:
        """Triton's version and extensions."""
        answer = await self._read(self._client.get_server_metadata(**self._options()))
        return ServerMetadata(answer.name, answer.version, tuple(answer.extensions))

    async def index(self) -> dict[str, ModelState]:
        """Every model that lies in the repository, by name; what is being fetched (names with a leading dot) is left out.

        A model whose directory was removed while loaded is missing here although it serves.
        """
        answer = await self._read(self._client.get_model_repository_index(**self._options()))
        found = defaultdict(list)
        for entry in answer.models:
            if not entry.name.startswith("."):
                found[entry.name].append(entry)
        return {name: _state_of(name, entries) for name, entries in found.items()}

    async def load(self, name: str, config: Mapping[str, Any], deadline_seconds: float) -> None:
        """Load or reload a model with this complete configuration (see `compose`); returns when it is ready.

        Sending a load again is safe: it joins one that is running, and does nothing where nothing changed.
        Raises LoadRefused, OutcomeUnknown after `deadline_seconds` (the load goes on), ServerUnavailable, WrongKey.
        """
        call = self._client.load_model(name, config=json.dumps(config), **self._options(deadline_seconds))
        await self._answer(call, f"load of {name}", deadline_seconds, changes=True)

    async def unload(self, name: str, deadline_seconds: float = 10.0) -> None:
        """Ask for a model's unload; returns at once, while requests in flight still finish. No error for unknown names.

        The memory is free when the index says UNAVAILABLE. Raises OutcomeUnknown (a model stuck in LOADING),
        ServerUnavailable, WrongKey.
        """
        call = self._client.unload_model(name, **self._options(deadline_seconds))
        await self._answer(call, f"unload of {name}", deadline_seconds, changes=True)

    async def statistics(self) -> dict[str, ModelStatistics]:
        """Statistics of all loaded models, by name, in one call (7 ms with 200 models)."""
        answer = await self._read(self._client.get_inference_statistics(**self._options()))
        versions = defaultdict(list)
        for entry in answer.model_stats:
            versions[entry.name].append(entry)
        return {name: _statistics_of(name, entries) for name, entries in versions.items()}

    async def configuration(self, name: str) -> dict[str, Any]:
        """A served model's whole configuration, field names as in config.pbtxt. Raises ModelNotServed."""
        answer = await self._read(self._client.get_model_config(name, **self._options()))
        fields: dict[str, Any] = json_format.MessageToDict(answer.config, preserving_proto_field_name=True)
        return fields

    async def loaded(self, name: str) -> LoadedModel:
        """What of a model is loaded. Raises ModelNotServed."""
        configuration = await self.configuration(name)
        revision = configuration.get("parameters", {}).get(REVISION_PARAMETER, {}).get("string_value")
        return LoadedModel(None if revision is None else str(revision), _instances(configuration))

    def _options(self, seconds: float | None = None) -> dict[str, Any]:
        return {"headers": self._headers, "client_timeout": self._read_seconds if seconds is None else seconds}

    async def _read(self, call: Awaitable[Any]) -> Any:
        return await self._answer(call, "read", self._read_seconds, changes=False)

    async def _answer(self, call: Awaitable[Any], what: str, seconds: float, *, changes: bool) -> Any:
        try:
            return await call
        except InferenceServerException as error:
            raise self._explain(error, what, seconds, changes) from None
        except grpc.aio.UsageError:
            raise ServerUnavailable(f"{what}: the connection to Triton at {self.address} was closed") from None
        except asyncio.CancelledError:
            # gRPC ends calls of a closed channel by a cancellation that nobody asked for.
            if self._closed and not _being_cancelled():
                raise ServerUnavailable(f"{what}: the connection to Triton at {self.address} was closed") from None
            raise

    def _explain(self, error: InferenceServerException, what: str, seconds: float, changes: bool) -> TritonError:
        status = str(error.status() or "").removeprefix("StatusCode.")
        text = error.message() or ""
        match status:
            case "UNAVAILABLE" if "restricted" in text:
                return WrongKey(f"Triton at {self.address} refuses the pool's key; its pods must be started with the same key")
            case "DEADLINE_EXCEEDED" | "CANCELLED" if changes:
                return OutcomeUnknown(f"{what}: no answer from Triton at {self.address} within {seconds:g} s; it may still go on")
            case "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "CANCELLED":
                return ServerUnavailable(f"{what}: Triton at {self.address} does not answer ({one_line(text)})")
            case "INVALID_ARGUMENT" | "INTERNAL" if changes:
                return LoadRefused(_load_reason(text))
            case "NOT_FOUND":
                return ModelNotServed(one_line(text))
            case _:
                return CallFailed(f"{what}: Triton at {self.address} answers {status}: {one_line(text)}")


def _instances(configuration: Mapping[str, Any]) -> int:
    """How many of a model's instances execute at once; on GPUs a group has its count on each of them."""
    groups = configuration.get("instance_group", ())
    return max(1, sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", ()))) for group in groups))


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _load_reason(text: str) -> str:
    if "failed to poll from model repository" in text:
        return "Triton finds no model directory under this name, or its config.pbtxt does not fit; Triton's log says which"
    return one_line(text)


def _state_of(name: str, entries: Iterable[Any]) -> ModelState:
    by_state: dict[RepositoryState, list[Any]] = defaultdict(list)
    for entry in entries:
        by_state[RepositoryState(entry.state)].append(entry)
    state = next(candidate for candidate in _STRONGEST_FIRST if candidate in by_state)
    members = by_state[state]
    reason = next((one_line(entry.reason) for entry in members if entry.reason), "")
    return ModelState(name, tuple(entry.version for entry in members if entry.version), state, reason)


def _statistics_of(name: str, versions: list[Any]) -> ModelStatistics:
    executions: dict[int, int] = defaultdict(int)
    compute_ns: dict[int, int] = defaultdict(int)
    for version in versions:
        for batch in version.batch_stats:
            executions[batch.batch_size] += batch.compute_infer.count
            compute_ns[batch.batch_size] += batch.compute_infer.ns
    return ModelStatistics(
        name=name,
        inference_count=sum(version.inference_count for version in versions),
        execution_count=sum(version.execution_count for version in versions),
        success_count=sum(version.inference_stats.success.count for version in versions),
        failure_count=sum(version.inference_stats.fail.count for version in versions),
        queue_ns=sum(version.inference_stats.queue.ns for version in versions),
        request_ns=sum(version.inference_stats.success.ns for version in versions),
        failure_ns=sum(version.inference_stats.fail.ns for version in versions),
        batches=tuple(BatchStatistics(size, executions[size], compute_ns[size]) for size in sorted(executions)),
        last_inference_ms=max(version.last_inference for version in versions),
    )
