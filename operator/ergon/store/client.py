"""The model volume of one server, through rclone beside it: what lies there, fetches into it, publishing and removal.

A model directory appears and disappears by one rename each, and carries its revision as an empty directory `.ergon-<revision>`
that was made before the rename. So whatever is there under a model's name is complete, whoever crashed when.
"""

import asyncio
import contextlib
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ergon.store.errors import (
    CommandFailed,
    JobLost,
    SourceNotFound,
    StoreError,
    is_missing,
    source_error,
    volume_error,
)
from ergon.store.layout import INCOMING, MARKER, TRASH, Listing, read_listing, require_model_directory
from ergon.store.local_sources import remote_of
from ergon.store.observed import FetchJob, FetchProgress, Size
from ergon.store.remote_control import CommandRefused, RemoteControl
from ergon.store.sources import Source

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,199}")
_LOOKS = 3
_STOP_LOOKS = 40
# One listing of a bucket tells times and hashes; without this rclone asks once more for each object. A hash decides, not a time.
_READING = {"UseServerModTime": True, "CheckSum": True, "LowLevelRetries": 3, "ConnectTimeout": "10s", "Timeout": "60s"}
# A source's own markers would lie about what was fetched.
_NO_MARKERS = {"ExcludeRule": [f"{MARKER}*/**", f"{MARKER}*"]}


class ModelStore:
    """A client of one server's `rclone rcd`. Raises nothing but `StoreError`. Calls may run at the same time.

    `address` is "ip:port"; `ca_pem` the certificate(s) to trust; `models` and `sources` are directories as rclone sees them.
    Created inside a running event loop; `close` it there too.
    """

    def __init__(
        self,
        address: str,
        user: str,
        password: str,
        ca_pem: str,
        *,
        models: str = "/models",
        sources: str = "/sources",
        seconds: float = 30.0,
    ) -> None:
        self.address = address
        self._control = RemoteControl(address, user, password, ca_pem)
        self._models = models
        self._sources = sources
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"ModelStore({self.address!r})"

    async def close(self) -> None:
        """Close the connections. Fetches under way go on in rclone."""
        await self._control.close()

    async def list_models(self) -> dict[str, str | None]:
        """The revision of each model directory, by name; None for a directory that Ergon did not put there."""
        return (await self._listing()).models

    async def incoming(self) -> dict[str, str | None]:
        """What lies in `.incoming`, by id: its revision where it is complete and only waits for its rename, else None."""
        return (await self._listing()).incoming

    async def free_bytes(self) -> int:
        """Bytes that the volume's file system has left (an emptyDir's sizeLimit is not in it, see `used_bytes`)."""
        answer = await self._volume("operations/about", fs=self._models)
        return int(answer["free"])

    async def used_bytes(self) -> int:
        """Bytes of all files on the volume, those being fetched included."""
        return _size(await self._volume("operations/size", fs=self._models)).total_bytes

    async def locate(self, source: Source) -> Source:
        """The source as this store reads it. A `file` source is walked, once for all that is done with the result.

        Raises SourceNotAllowed, SourceNotFound and SourceInvalid.
        """
        return source if source.remote is not None else replace(source, remote=await self._remote(source))

    async def size(self, source: Source) -> Size:
        """Files and bytes to fetch, as told by the source. Raises SourceNotFound, SourceInvalid, AccessDenied and others."""
        remote = await self._remote(source)
        size = _size(await self._source(source, "operations/size", fs=remote, _config=_READING, _filter=_NO_MARKERS))
        if size.files == 0:
            raise SourceNotFound(f"{source.uri}: nothing is there; check the bucket and the path")
        return size

    async def fetch(self, source: Source, incoming_id: str) -> FetchJob:
        """Begin to bring a source to `.incoming/<incoming_id>`; a fetch into it that still runs is stopped, its files are used.

        Returns at once; follow it by `progress`. Raises what `size` raises for a `file` source; others fail in the job.
        """
        _check(_ID, incoming_id, "an incoming id")
        remote = await self._remote(source)
        group = await self._fresh_group(incoming_id)
        answer = await self._source(
            source,
            "sync/sync",  # not a copy: what an earlier attempt left, and the source no longer has, goes
            srcFs=remote,
            dstFs=self._path(INCOMING, incoming_id),
            createEmptySrcDirs=True,
            _async=True,
            _group=group,
            _config=_READING,
            _filter=_NO_MARKERS,
        )
        return FetchJob(int(answer["jobid"]), str(answer["executeId"]), incoming_id, source)

    async def progress(self, job: FetchJob) -> FetchProgress:
        """How far a fetch is; two short calls. Raises JobLost when rclone no longer knows it.

        Finished without an error means complete: rclone compared each file's size and, where the source has one, hash while
        it came, and at the end the two listings are compared once more, by name and size.
        """
        status = await self._status(job)
        stats = await self._volume("core/stats", group=_group(job.incoming_id))
        finished = bool(status["finished"])
        error = None
        if finished:
            error = await self._difference(job) if status["success"] else self._source_error(job.source, str(status["error"]))
        return FetchProgress(
            bytes_done=int(stats["bytes"]),
            bytes_total=int(stats["totalBytes"]),
            files_done=int(stats["transfers"]),
            files_total=int(stats["totalTransfers"]),
            files_checked=int(stats["checks"]),
            finished=finished,
            error=error,
        )

    async def cancel(self, job: FetchJob) -> None:
        """Stop a fetch and remove what it has fetched. No error when it has ended or is lost."""
        await self.stop(job)
        await self._purge(INCOMING, job.incoming_id)

    async def stop(self, job: FetchJob) -> None:
        """Stop a fetch; the files that it has fetched wholly stay for the next one. No error when it has ended or is lost."""
        with contextlib.suppress(JobLost):
            if not (await self._status(job))["finished"]:
                await self._volume("job/stop", jobid=job.number)
                await self._ended(job)

    async def fetched_bytes(self, incoming_id: str) -> int:
        """Bytes of what a fetch, ended or not, has left in `.incoming/<incoming_id>`."""
        _check(_ID, incoming_id, "an incoming id")
        try:
            answer = await self._control.call("operations/size", self._seconds, fs=self._path(INCOMING, incoming_id))
        except CommandRefused as error:
            if is_missing(error.text):
                return 0
            raise volume_error(error.text) from None
        return _size(answer).total_bytes

    async def discard(self, incoming_id: str) -> None:
        """Stop a fetch that still runs, and remove what it has fetched. No error when there is nothing."""
        _check(_ID, incoming_id, "an incoming id")
        await self._fresh_group(incoming_id)
        await self._purge(INCOMING, incoming_id)

    async def validate(self, incoming_id: str, backend: str) -> None:
        """Check that what was fetched is a Triton model directory. Raises ModelDirectoryInvalid, which says what is missing.

        It holds config.pbtxt and a version directory that is not empty, for Python with its model.py: without that file
        Triton's load would hang for good.
        """
        config = await self.read_config(incoming_id, incoming=True)
        entries = await self._fetched(incoming_id)
        require_model_directory(entries, backend, config or "")

    async def read_config(self, name: str, *, incoming: bool = False) -> str | None:
        """The text of a model's config.pbtxt, or of a fetched one's when `incoming`; None when it has none."""
        _check(_ID if incoming else _NAME, name, "an incoming id" if incoming else "a model name")
        path = f"{INCOMING}/{name}/config.pbtxt" if incoming else f"{name}/config.pbtxt"
        try:
            return await self._control.read_text(self._models, path, self._seconds)
        except CommandRefused as error:
            if is_missing(error.text):
                return None
            raise volume_error(error.text) from None

    async def publish(self, incoming_id: str, model: str, revision: str) -> None:
        """Make what was fetched the content of a model, in place of what is there.

        Each step may be the last before a crash: run again, it goes on from there. Between two renames of a replacement the
        model has no directory for a moment; what Triton has loaded goes on serving. Raises CommandFailed when nothing was
        fetched under this id.
        """
        _check(_ID, incoming_id, "an incoming id")
        _check(_NAME, model, "a model name")
        _check(_ID, revision, "a revision")
        listing = await self._listing()
        in_trash = model in listing.trash
        if incoming_id in listing.incoming:
            await self._volume("operations/mkdir", fs=self._models, remote=f"{INCOMING}/{incoming_id}/{MARKER}{revision}")
            if model in listing.models:
                await self._move_to_trash(model, listing)
                in_trash = True
            await self._rename(f"{INCOMING}/{incoming_id}", model)
        elif listing.models.get(model) != revision:
            raise CommandFailed(f"nothing to publish as {model}: {incoming_id} is not among what was fetched; fetch it again")
        if in_trash:
            await self._purge(TRASH, model)

    async def remove(self, model: str) -> None:
        """Remove a model's directory: out of sight by one rename, then file by file. No error when there is none."""
        _check(_NAME, model, "a model name")
        listing = await self._listing()
        if model in listing.models:
            await self._move_to_trash(model, listing)
        if model in listing.models or model in listing.trash:
            await self._purge(TRASH, model)

    async def clean(self, keep: Collection[str]) -> None:
        """Remove what crashes have left: `.incoming` but for the ids in `keep` (fetches into it are stopped), and `.trash`."""
        listing = await self._listing()
        for incoming_id in listing.incoming:
            if incoming_id not in keep:
                await self.discard(incoming_id)
        for name in listing.trash:
            await self._purge(TRASH, name)

    async def _listing(self) -> Listing:
        """rclone reads directory by directory: a rename in between shows as one that is gone or lacks its marker. Look again."""
        for _ in range(_LOOKS - 1):
            try:
                listing = await self._listed()
            except CommandRefused as error:
                if not is_missing(error.text):
                    raise volume_error(error.text) from None
            else:
                if None not in listing.models.values():
                    return listing
        try:
            return await self._listed()
        except CommandRefused as error:
            raise volume_error(error.text) from None

    async def _listed(self) -> Listing:
        answer = await self._control.call(
            "operations/list",
            self._seconds,
            fs=self._models,
            remote="",
            opt={"recurse": True, "dirsOnly": True, "noModTime": True},
            _config={"MaxDepth": 3},
        )
        return read_listing(str(entry["Path"]) for entry in answer["list"] or ())

    async def _move_to_trash(self, model: str, listing: Listing) -> None:
        if model in listing.trash:
            await self._purge(TRASH, model)
        await self._rename(model, f"{TRASH}/{model}")

    async def _rename(self, old: str, new: str) -> None:
        """One rename: rclone moves a local directory so where nothing lies at the target, which every caller has seen to."""
        await self._volume("sync/move", srcFs=self._path(old), dstFs=self._path(new))

    async def _purge(self, parent: str, name: str) -> None:
        try:
            await self._control.call("operations/purge", self._seconds, fs=self._models, remote=f"{parent}/{name}")
        except CommandRefused as error:
            if not is_missing(error.text):
                raise volume_error(error.text) from None

    async def _status(self, job: FetchJob) -> dict[str, Any]:
        try:
            status = await self._control.call("job/status", self._seconds, jobid=job.number)
        except CommandRefused as error:
            if "job not found" in error.text:
                raise JobLost(f"{job.source.uri}: rclone no longer knows this fetch; fetch it again") from None
            raise volume_error(error.text) from None
        if status.get("executeId") != job.process:
            raise JobLost(f"{job.source.uri}: rclone was restarted during this fetch; fetch it again")
        return status

    async def _fresh_group(self, incoming_id: str) -> str:
        """Stop what an earlier operator fetched into the same place, forget its counts, and return the name to count under."""
        group = _group(incoming_id)
        await self._volume("job/stopgroup", group=group)
        for _ in range(_STOP_LOOKS):  # what is stopped removes its partial files, and a new fetch would trip over them
            if not (await self._volume("core/stats", group=group)).get("transferring"):
                break
            await asyncio.sleep(0.05)
        await self._volume("core/stats-delete", group=group)
        return group

    async def _ended(self, job: FetchJob) -> None:
        deadline = asyncio.get_running_loop().time() + self._seconds
        while not (await self._status(job))["finished"]:
            if asyncio.get_running_loop().time() > deadline:
                raise CommandFailed(f"{job.source.uri}: the fetch does not stop within {self._seconds:g} s")
            await asyncio.sleep(0.05)

    async def _remote(self, source: Source) -> dict[str, str]:
        try:
            return await remote_of(self._control, source, self._sources, self._seconds)
        except CommandRefused as error:
            raise self._source_error(source, error.text) from None

    async def _fetched(self, incoming_id: str) -> dict[str, bool]:
        """What was fetched, two levels deep: True for directories."""
        answer = await self._volume(
            "operations/list",
            fs=self._path(INCOMING, incoming_id),
            remote="",
            opt={"recurse": True, "noModTime": True, "noMimeType": True},
            _config={"MaxDepth": 2},
        )
        return {str(entry["Path"]): bool(entry["IsDir"]) for entry in answer["list"] or ()}

    async def _difference(self, job: FetchJob) -> StoreError | None:
        """What is wrong with a fetch that rclone calls a success; None when the same files lie on both sides."""
        try:
            answer = await self._source(
                job.source,
                "operations/check",
                srcFs=await self._remote(job.source),
                dstFs=self._path(INCOMING, job.incoming_id),
                match=True,
                missingOnDst=True,
                missingOnSrc=True,
                differ=True,
                _config=_READING | {"SizeOnly": True},
                _filter=_NO_MARKERS,
            )
        except StoreError as error:
            return error
        wrong = [path for kind in ("missingOnDst", "missingOnSrc", "differ") for path in answer.get(kind) or ()]
        if wrong:
            return self._source_error(job.source, f"{len(wrong)} files differ from the source after the fetch, first {wrong[0]}")
        if not answer.get("match"):
            return SourceNotFound(f"{job.source.uri}: nothing is there; check the bucket and the path")
        return None

    async def _volume(self, command: str, **parameters: Any) -> dict[str, Any]:
        try:
            return await self._control.call(command, self._seconds, **parameters)
        except CommandRefused as error:
            raise volume_error(error.text) from None

    async def _source(self, source: Source, command: str, **parameters: Any) -> dict[str, Any]:
        try:
            return await self._control.call(command, self._seconds, **parameters)
        except CommandRefused as error:
            raise self._source_error(source, error.text) from None

    def _source_error(self, source: Source, text: str) -> StoreError:
        return source_error(text, uri=source.uri, secret_name=source.secret_name, secrets=source.secrets)

    def _path(self, *parts: str) -> str:
        return "/".join((self._models, *parts))


def _check(pattern: re.Pattern[str], value: str, what: str) -> None:
    if not pattern.fullmatch(value) or ".." in value:
        raise CommandFailed(f"{value!r} is not {what} that Ergon makes paths of")


def _group(incoming_id: str) -> str:
    return f"fetch/{incoming_id}"


def _size(answer: dict[str, Any]) -> Size:
    return Size(int(answer["count"]), int(answer["bytes"]))
