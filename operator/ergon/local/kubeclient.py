"""A small asynchronous client of the API server: requests with plain objects, and informers that list and watch."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yaml

Object = dict[str, Any]
"""A Kubernetes object as the API server speaks it."""

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_log = logging.getLogger(__name__)
_REQUEST_SECONDS = 30.0
_WATCH_SECONDS = 300
_RETRY_SECONDS = 0.5
_LINE_BYTES = 16 << 20


class ApiError(Exception):
    """The API server refused a request: its HTTP status and its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A connection pool to one API server under one identity; use as an async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        self.server: str = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        _load_identity(self._tls, user["client-certificate-data"], user["client-key-data"])
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False, read_bufsize=_LINE_BYTES)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._session is not None
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
        seconds: float = _REQUEST_SECONDS,
    ) -> Object:
        """One request; raises ApiError for a refusal and OSError or TimeoutError when the server cannot be reached."""
        assert self._session is not None
        data = json.dumps(body).encode() if body is not None else None
        async with self._session.request(
            method,
            self.server + path,
            data=data,
            params=query,
            headers={"Content-Type": content_type, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            text = await response.text()
            if response.status >= 400:
                raise ApiError(response.status, _message(text))
            parsed = json.loads(text) if text.startswith(("{", "[")) else {}
            return parsed if isinstance(parsed, dict) else {}

    async def get(self, path: str) -> Object:
        return await self.request("GET", path)

    async def apply(self, path: str, body: Object) -> Object:
        """Server-side apply under the local cluster's name, taking over fields that others own."""
        query = {"fieldManager": "ergon-local", "force": "true"}
        return await self.request("PATCH", path, body, content_type=APPLY_PATCH, query=query)

    async def watch(self, path: str, version: str, query: dict[str, str]) -> AsyncIterator[Object]:
        """Events from `version` on, until the server ends the watch."""
        assert self._session is not None
        parameters = {
            **query,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_WATCH_SECONDS + 30)
        async with self._session.get(self.server + path, params=parameters, timeout=timeout) as response:
            if response.status >= 400:
                raise ApiError(response.status, _message(await response.text()))
            async for line in response.content:
                yield json.loads(line)


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return text.strip()[:300]


def _load_identity(tls: ssl.SSLContext, certificate: str, key: str) -> None:
    """ssl loads identities from files only; the file is gone before this returns."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(base64.b64decode(certificate) + b"\n" + base64.b64decode(key))
        file.flush()
        tls.load_cert_chain(file.name)


Changed = Callable[[Object | None, Object | None], None]
"""Told of (old, new): no old when added, no new when deleted."""


class Informer:
    """A live copy of one collection; `changed` is called in order for every difference, also after a lost watch."""

    def __init__(self, api: Api, path: str, changed: Changed, query: dict[str, str] | None = None) -> None:
        self._api = api
        self._path = path
        self._changed = changed
        self._query = query or {}
        self.objects: dict[str, Object] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Keep the copy until cancelled; failures are retried."""
        while True:
            try:
                await self._follow(await self._list())
            except ApiError as error:
                if error.status != 410:
                    _log.warning("watch of %s: %s", self._path, error)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                _log.warning("watch of %s: %s", self._path, error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _list(self) -> str:
        answer = await self._api.request("GET", self._path, query=self._query)
        found = {key_of(item): item for item in answer.get("items") or []}
        for key in [key for key in self.objects if key not in found]:
            self._emit(self.objects.pop(key), None)
        for key, item in found.items():
            self._put(key, item)
        self.synced.set()
        return str(answer["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        """Follow from `version` over ends of watches until the server says that it is too old (ApiError 410)."""
        while True:
            async for event in self._api.watch(self._path, version, self._query):
                item = event["object"]
                if event["type"] == "ERROR":
                    raise ApiError(int(item.get("code", 500)), str(item.get("message", "watch error")))
                version = item["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    old = self.objects.pop(key_of(item), None)
                    if old is not None:
                        self._emit(old, None)
                elif event["type"] != "BOOKMARK":
                    self._put(key_of(item), item)

    def _put(self, key: str, item: Object) -> None:
        old = self.objects.get(key)
        if old is not None and old["metadata"].get("uid") != item["metadata"].get("uid"):
            self._emit(old, None)
            old = None
        self.objects[key] = item
        if old is None or old["metadata"].get("resourceVersion") != item["metadata"].get("resourceVersion"):
            self._emit(old, item)

    def _emit(self, old: Object | None, new: Object | None) -> None:
        try:
            self._changed(old, new)
        except Exception:
            _log.exception("change of %s", self._path)


def key_of(item: Object) -> str:
    """`namespace/name` of an object, or its name alone."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])
