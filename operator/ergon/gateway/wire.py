"""Requests read and answers written over aiohttp, within limits of size and time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from ergon.gateway import kserve
from ergon.gateway.budget import Account
from ergon.gateway.failures import Failure, Kind

Form = Callable[[Failure], bytes]
_JSON = "application/json"
BUFFERED_BYTES = 32 << 10
"""An answer up to this size is written into a connection's empty buffer without waiting: asyncio's takes 64 KiB."""
ACCOUNT = web.RequestKey("account", Account)
"""What a request has taken of the bytes that requests may have."""
ANSWERS = web.RequestKey("answers", Account)
"""What its answer has taken of the bytes that answers may have."""


def KSERVE(failure: Failure) -> bytes:  # noqa: N802
    """An error as KServe v2 writes it."""
    return kserve.error(str(failure))


def OPENAI(failure: Failure) -> bytes:  # noqa: N802
    """An error as OpenAI's API writes it."""
    told = {"message": str(failure), "type": failure.kind.openai_type, "param": None, "code": failure.kind.grpc_code.lower()}
    return json.dumps({"error": told}, ensure_ascii=False).encode()


def error_response(failure: Failure, form: Form) -> web.Response:
    """A failure as an answer."""
    headers = {"Content-Type": _JSON}
    if failure.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, round(failure.retry_after_seconds)))
    response = web.Response(status=failure.kind.status, body=form(failure), headers=headers)
    if failure.kind in (Kind.TOO_LARGE, Kind.TOO_SLOW):
        response.force_close()  # what is left of the body is not read
    return response


def json_response(value: Any, headers: Iterable[tuple[str, str]] = ()) -> web.Response:
    """A value as JSON."""
    return web.Response(
        body=json.dumps(value, ensure_ascii=False).encode(), headers=CIMultiDict([("Content-Type", _JSON), *headers])
    )


async def read_body(request: web.BaseRequest, limit_bytes: int, seconds: float) -> bytes:
    """The whole body. Raises Failure: it is too large, comes too slowly, breaks off, or too much is under way."""
    announced = request.content_length
    if announced is not None and announced > limit_bytes:
        raise _too_large(limit_bytes)
    content, account = request.content, request[ACCOUNT]
    try:
        if content.is_eof():
            data = content.read_nowait()
            account.take(len(data))
            return data
        if announced is not None:
            account.take(announced)
        async with asyncio.timeout(seconds):
            return await _joined(content, limit_bytes, account if announced is None else None)
    except TimeoutError:
        raise Failure(Kind.TOO_SLOW, f"the body did not come within {seconds:g} s") from None
    except web.PayloadAccessError as error:
        raise Failure(Kind.BAD_REQUEST, f"the body breaks off: {error}") from None


async def _joined(content: Any, limit_bytes: int, account: Account | None) -> bytes:
    parts, size = [], 0
    while part := await content.readany():
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if account is not None:
            account.take(len(part))
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def body_pieces(request: web.BaseRequest, limit_bytes: int, seconds: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Failure as `read_body` does; `seconds` is for each piece."""
    size = 0
    try:
        while True:
            async with asyncio.timeout(seconds):
                part = await request.content.readany()
            if not part:
                return
            size += len(part)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            yield part
    except TimeoutError:
        raise Failure(Kind.TOO_SLOW, f"no more of the body came within {seconds:g} s") from None
    except web.PayloadAccessError as error:
        raise Failure(Kind.BAD_REQUEST, f"the body breaks off: {error}") from None


@contextmanager
def breaking_off(request: web.BaseRequest) -> Iterator[None]:
    """For what is sent once an answer's head may be out: a fault ends the connection, since no other answer may follow."""
    try:
        yield
    except BaseException:
        _abort(request)
        raise


async def write_whole(request: web.BaseRequest, response: web.StreamResponse, seconds: float) -> None:
    """Send an answer, but for the little that the connection buffers. Who does not take it within `seconds` is cut off."""
    try:
        if _fits(request, response):
            await response.prepare(request)
            await response.write_eof()
            return
        async with asyncio.timeout(seconds):
            await response.prepare(request)
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        _abort(request)
    except BaseException:
        _abort(request)
        raise


def _fits(request: web.BaseRequest, response: web.StreamResponse) -> bool:
    """Whether an answer goes into the connection's buffer as it is, so that nobody has to be waited for."""
    transport, body = request.transport, response.body if isinstance(response, web.Response) else None
    return (
        isinstance(body, bytes)
        and len(body) <= BUFFERED_BYTES
        and transport is not None
        and not transport.get_write_buffer_size()
    )


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


async def write_piece(response: web.StreamResponse, piece: bytes, seconds: float) -> None:
    """Send a piece of an answer. Raises ConnectionError where nobody takes it within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await response.write(piece)
    except TimeoutError:
        raise ConnectionError(f"the client takes nothing for {seconds:g} s") from None


def _too_large(limit_bytes: int) -> Failure:
    return Failure(Kind.TOO_LARGE, f"the body is larger than {limit_bytes} bytes, the most that this gateway takes")


def decoded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Headers as text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
