"""A Kubernetes client that speaks plain dicts: paced, retried, bounded in time, with one error hierarchy.

Authentication, TLS and proxies come from `kubernetes.aio`; the bodies bypass its typed models, which cost several times the
call itself (3,500 against 1,000 applies a second), and `trust_env` is off because it reads the environment on every request.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from ergon.kube.configuration import load_configuration
from ergon.kube.errors import Conflict, Expired, KubeError, NotFound, Unavailable, error_of
from ergon.kube.pace import Pace, TokenBucket, retry_delay_seconds
from ergon.kube.resources import Resource, name_of, resource_of

Object = dict[str, Any]
Observer = Callable[[str, str, int, float], None]
"""Called after every attempt with verb, kind, HTTP status (0: no answer) and seconds."""

FIELD_MANAGER = "ergon"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_UNTIMED = aiohttp.ClientTimeout(total=None)
_WATCH_SECONDS = 300
_SILENCE_SECONDS = 150.0
"""The server sends a bookmark about every minute: a watch that is silent for longer has lost it."""


def _ignore(verb: str, kind: str, code: int, seconds: float) -> None:
    return None


class KubeClient:
    """One connection pool to one API server.

    Every method raises a `KubeError`: `NotFound`, `Conflict`, `Invalid`, `Forbidden`, `Expired` or `Unavailable`. Calls are
    retried on 429, 5xx and connection errors until `pace.total_seconds` are over, so what they send must be safe to send twice;
    after `Unavailable` a write may or may not have happened.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        pace: Pace | None = None,
        observer: Observer | None = None,
        reload: Callable[[], Awaitable[Configuration]] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._pace = pace or Pace()
        self._observer = observer or _ignore
        self._reload = reload
        self._chance = chance or random.Random()
        self._bucket = TokenBucket(self._pace.queries_per_second, self._pace.burst)
        self._connection = _Connection(configuration)

    @classmethod
    async def from_environment(
        cls,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        pace: Pace | None = None,
        observer: Observer | None = None,
    ) -> Self:
        """A client for the cluster this process is in, or that KUBECONFIG names. Raises KubeError where there is none."""

        async def load() -> Configuration:
            return await load_configuration(kubeconfig, context)

        return cls(await load(), pace=pace, observer=observer, reload=load)

    def within(self, total_seconds: float) -> "KubeClient":
        """The same connection, pace and observer, for calls that must be over, retries included, after so many seconds."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        attempt = min(self._pace.attempt_seconds, total_seconds)
        other._pace = replace(self._pace, total_seconds=total_seconds, attempt_seconds=attempt)
        return other

    async def close(self) -> None:
        """Closes the connections; shared by every client that `within` made."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Reading

    async def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """One object. Raises NotFound."""
        resource = resource_of(api_version, kind)
        return await self._send("GET", resource, namespace, name)

    async def find(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None where it does not exist."""
        try:
            return await self.get(api_version, kind, name, namespace)
        except NotFound:
            return None

    async def list_all(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        chunk: int = 500,
    ) -> list[Object]:
        """Every object of a kind, read in chunks, each with its apiVersion and kind. Without a namespace: of all namespaces."""
        resource = resource_of(api_version, kind)
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        try:
            pages = [page async for page in self._pages(resource, namespace, selectors, chunk)]
        except Expired:
            # The continue token outlived the server's history: one unchunked read is consistent again.
            pages = [page async for page in self._pages(resource, namespace, selectors, 0)]
        return [item for page in pages for item in page.get("items") or ()]

    async def _pages(
        self, resource: Resource, namespace: str | None, selectors: dict[str, str], chunk: int
    ) -> AsyncIterator[Object]:
        token = ""
        while True:
            query = {**selectors, "limit": str(chunk) if chunk else "", "continue": token}
            page = await self._send("GET", resource, namespace, None, query=query, verb="LIST")
            for item in page.get("items") or ():
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            yield page
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def follow(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        listed: Callable[[list[Object]], None],
    ) -> AsyncIterator[tuple[str, Object]]:
        """Gives all objects of a kind to `listed`, then every change: ADDED, MODIFIED or DELETED, and the object.

        Ends when the server's history no longer reaches back (then follow anew), and raises KubeError when it is not reached.
        """
        resource, selectors = resource_of(api_version, kind), {"labelSelector": label_selector}
        pages = [page async for page in self._pages(resource, namespace, selectors, 500)]
        version = pages[0]["metadata"]["resourceVersion"]
        listed([item for page in pages for item in page.get("items") or ()])
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
        while version:
            wanted = {**query, "resourceVersion": version, **{key: value for key, value in selectors.items() if value}}
            async for event in self._connection.events(f"{resource.path(namespace)}?{urlencode(wanted)}", f"WATCH {kind}"):
                what, obj = event.get("type"), event.get("object") or {}
                if what == "ERROR":
                    problem = error_of(f"WATCH {kind}", int(obj.get("code") or 500), obj)
                    if isinstance(problem, Expired):
                        return
                    raise problem
                version = (obj.get("metadata") or {}).get("resourceVersion") or version
                if what in ("ADDED", "MODIFIED", "DELETED"):
                    yield what, obj

    # Writing

    async def apply(
        self, obj: Object, *, field_manager: str = FIELD_MANAGER, force: bool = True, dry_run: bool = False
    ) -> Object:
        """Server-side apply: the object as the server now holds it. With `metadata.uid`, Conflict where another took its name."""
        return await self._apply(obj, None, field_manager, force, dry_run)

    async def apply_status(self, obj: Object, *, field_manager: str = FIELD_MANAGER, force: bool = True) -> Object:
        """Server-side apply of `status` alone; the object must carry apiVersion, kind, its name and `status`. Raises NotFound."""
        return await self._apply(obj, "status", field_manager, force, False)

    async def _apply(self, obj: Object, subresource: str | None, manager: str, force: bool, dry_run: bool) -> Object:
        query = {"fieldManager": manager, "force": str(force).lower(), "dryRun": "All" if dry_run else ""}
        resource, namespace, name = _address(obj)
        return await self._send(
            "PATCH", resource, namespace, name, subresource=subresource, body=obj, content_type=_APPLY, query=query, verb="APPLY"
        )

    async def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """A new object. Raises Conflict where it exists, which after a lost answer may be this very call's work."""
        resource = resource_of(obj["apiVersion"], obj["kind"])
        query = {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else ""}
        return await self._send(
            "POST", resource, obj["metadata"].get("namespace"), None, body=obj, query=query, what=name_of(obj)
        )

    async def replace(self, obj: Object) -> Object:
        """The object as given, in place of the one with the same `metadata.resourceVersion`. Raises Conflict where it changed."""
        resource, namespace, name = _address(obj)
        return await self._send("PUT", resource, namespace, name, body=obj, query={"fieldManager": FIELD_MANAGER})

    async def patch_merge(
        self, api_version: str, kind: str, name: str, namespace: str | None, patch: Object, *, subresource: str | None = None
    ) -> Object:
        """JSON merge patch: maps merge, lists are replaced, null removes."""
        resource, query = resource_of(api_version, kind), {"fieldManager": FIELD_MANAGER}
        return await self._send(
            "PATCH", resource, namespace, name, subresource=subresource, body=patch, content_type=_MERGE, query=query
        )

    async def patch_json(self, api_version: str, kind: str, name: str, namespace: str | None, operations: list[Object]) -> Object:
        """JSON patch. Operations on lists should begin with a `test`, since the call may be sent twice."""
        resource, query = resource_of(api_version, kind), {"fieldManager": FIELD_MANAGER}
        return await self._send("PATCH", resource, namespace, name, body=operations, content_type=_JSON_PATCH, query=query)

    async def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Deletes an object; with `uid`, only that very one. False where it is gone already (or another one has its name)."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._send("DELETE", resource_of(api_version, kind), namespace, name, body=options)
        except NotFound:
            return False
        except Conflict:
            if uid:
                return False
            raise
        return True

    # The wire

    async def _send(
        self,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str | None,
        *,
        subresource: str | None = None,
        body: Any = None,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
        verb: str = "",
        what: str = "",
    ) -> Object:
        verb = verb or method
        target = what or " ".join(filter(None, [resource.kind, "/".join(filter(None, [namespace, name]))]))
        call = f"{verb} {target}{'/' + subresource if subresource else ''}"
        path = resource.path(namespace, name, subresource)
        wanted = {key: value for key, value in (query or {}).items() if value}
        url = f"{path}?{urlencode(wanted)}" if wanted else path
        problem: KubeError = Unavailable(call, f"not sent within {self._pace.total_seconds:g} s: the client's own rate limit")
        try:
            async with asyncio.timeout(self._pace.total_seconds):
                for attempt in range(1_000_000):
                    await self._bucket.take()
                    if attempt == 0:
                        problem = Unavailable(call, f"no answer within {self._pace.total_seconds:.3g} s")
                    code, headers, answer = await self._attempt(method, url, body, content_type, verb, resource.kind)
                    if 200 <= code < 300:
                        return answer if isinstance(answer, dict) else {}
                    problem = error_of(call, code, answer) if code else Unavailable(call, str(answer))
                    if code == 401 and attempt == 0 and self._reload is not None:
                        self._connection.renew(await self._reload())
                    elif not isinstance(problem, Unavailable):
                        raise problem
                    else:
                        await asyncio.sleep(retry_delay_seconds(self._pace, attempt, headers, self._chance))
        except TimeoutError:
            pass
        raise problem

    async def _attempt(
        self, method: str, url: str, body: Any, content_type: str, verb: str, kind: str
    ) -> tuple[int, Mapping[str, str], Any]:
        """One exchange: status (0 where no answer came), headers, decoded body or the reason for having none."""
        clock = asyncio.get_running_loop().time
        started, code = clock(), 0
        try:
            # Not aiohttp's own time limit: where it and the one around all attempts run out at once, it swallows the other
            # (it takes back one cancellation for each of its nested timers), and the attempts would never end.
            async with asyncio.timeout(self._pace.attempt_seconds):
                code, headers, text = await self._connection.exchange(method, url, body, content_type)
        except TimeoutError:
            return 0, {}, f"no answer within {self._pace.attempt_seconds:.3g} s"
        except (aiohttp.ClientError, OSError) as error:
            return 0, {}, f"the API server cannot be reached: {error or type(error).__name__}"
        finally:
            self._observer(verb, kind, code, clock() - started)
        try:
            return code, headers, json.loads(text)
        except ValueError:
            return (code if code >= 300 else 0), headers, text.decode(errors="replace")[:200] or "an empty answer"


def _address(obj: Object) -> tuple[Resource, str | None, str]:
    metadata = obj["metadata"]
    return resource_of(obj["apiVersion"], obj["kind"]), metadata.get("namespace"), metadata["name"]


class _Connection:
    """The library's session and credentials, which can be renewed when they have expired."""

    def __init__(self, configuration: Configuration) -> None:
        self._api = ApiClient(configuration)

    def renew(self, configuration: Configuration) -> None:
        """Take over new credentials; open connections stay, since a token is sent with every request."""
        self._api.configuration.api_key = configuration.api_key
        self._api.configuration.refresh_api_key_hook = configuration.refresh_api_key_hook

    async def close(self) -> None:
        await self._api.close()

    async def exchange(self, method: str, url: str, body: Any, content_type: str) -> tuple[int, Mapping[str, str], bytes]:
        headers = {**await self._headers(), "Content-Type": content_type}
        response = await self._api.rest_client.request(
            method, self._api.configuration.host + url, headers=headers, body=body, _request_timeout=_UNTIMED
        )
        return response.status, response.headers, await response.read()  # not as a dict: proxies write retry-after small

    async def _headers(self) -> dict[str, str]:
        """What every call carries: who asks, with credentials as they are now."""
        settings = (await self._api.configuration.auth_settings()).values()
        return {"Accept": "application/json", "User-Agent": "ergon", **{each["key"]: each["value"] for each in settings}}

    async def events(self, url: str, call: str) -> AsyncIterator[Object]:
        """The events of one watch until the server ends it. Raises KubeError."""
        headers = await self._headers()
        try:
            async with asyncio.timeout(_SILENCE_SECONDS) as silence:
                answer = await self._api.rest_client.request(
                    "GET", self._api.configuration.host + url, headers=headers, _request_timeout=_UNTIMED
                )
                response = answer.response  # aiohttp's own: the library's wrapper reads whole bodies only
                try:
                    if response.status != 200:
                        raise error_of(call, response.status, (await response.read()).decode(errors="replace"))
                    rest = b""
                    async for part in response.content.iter_any():
                        silence.reschedule(asyncio.get_running_loop().time() + _SILENCE_SECONDS)
                        *lines, rest = (rest + part).split(b"\n")
                        for line in lines:
                            yield json.loads(line)
                finally:
                    response.close()
        except TimeoutError:
            raise Unavailable(call, f"nothing came for {_SILENCE_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(call, f"the API server cannot be reached: {error or type(error).__name__}") from None
