"""What rclone reads for a source; `file` sources are first walked, so that no symbolic link leads out of the sources' volume."""

from typing import Any

from ergon.store.errors import SourceInvalid, SourceNotAllowed, SourceNotFound
from ergon.store.remote_control import CommandRefused, RemoteControl
from ergon.store.sources import Source

_SHOWN_LINKS = 3


async def remote_of(control: RemoteControl, source: Source, volume: str, seconds: float) -> dict[str, str]:
    """rclone's options for a source. Raises SourceNotAllowed, SourceNotFound and SourceInvalid, and CommandRefused."""
    if source.remote is not None:
        return dict(source.remote)
    await _refuse_links_on_the_way(control, source, volume, seconds)
    remote = {"type": "local", "_root": f"{volume}/{source.path}", "copy_links": "false"}
    await _refuse_links_below(control, source, remote, seconds)
    return remote


async def _require_volume(control: RemoteControl, source: Source, volume: str, seconds: float) -> None:
    try:
        await control.call("operations/list", seconds, fs=volume, remote="", _config={"MaxDepth": 1})
    except CommandRefused:
        raise SourceNotAllowed(
            f"{source.uri}: this pool takes no file sources; its template must mount a volume at {volume} into its store"
        ) from None


async def _refuse_links_on_the_way(control: RemoteControl, source: Source, volume: str, seconds: float) -> None:
    segments = source.path.split("/")
    for depth in range(1, len(segments) + 1):
        path = "/".join(segments[:depth])
        item = (await control.call("operations/stat", seconds, fs=volume, remote=path))["item"]
        if item is None:
            await _require_volume(control, source, volume, seconds)
            raise SourceNotFound(f"{source.uri}: {volume}/{path} is not there")
        if not item["IsDir"]:
            raise SourceInvalid(f"{source.uri}: {volume}/{path} is a file or a symbolic link; name the model's directory")


async def _refuse_links_below(control: RemoteControl, source: Source, remote: dict[str, str], seconds: float) -> None:
    """Links below would be left out by rclone without a word; a model that lacks them would fail later and elsewhere."""
    listing: dict[str, Any] = await control.call(
        "operations/list",
        seconds,
        fs=remote | {"links": "true"},  # shows each link as a file of this suffix
        remote="",
        opt={"recurse": True, "filesOnly": True, "noModTime": True, "noMimeType": True},
        _filter={"IncludeRule": ["*.rclonelink"]},
    )
    links = [str(entry["Path"]).removesuffix(".rclonelink") for entry in listing["list"] or ()]
    if links:
        more = f" and {len(links) - _SHOWN_LINKS} more" if len(links) > _SHOWN_LINKS else ""
        shown = ", ".join(links[:_SHOWN_LINKS])
        raise SourceInvalid(f"{source.uri}: symbolic links are not followed ({shown}{more}); copy the files there")
