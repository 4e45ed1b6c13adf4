"""A model's directory appears, changes and goes by one rename each, whoever crashes when."""

import asyncio

import pytest

from ergon.store import CommandFailed, ModelStore, StoreError
from tests.store.conftest import Volume
from tests.store.steps import raised

pytestmark = pytest.mark.cluster


def place(volume: Volume, revision: str) -> None:
    folder = volume.models / ".incoming" / f"t.m-{revision}" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(revision)


async def test_a_new_revision_takes_the_old_ones_place(store: ModelStore, volume: Volume) -> None:
    for revision in ("1", "2"):
        place(volume, revision)
        await store.publish(f"t.m-{revision}", "t.m", revision)
        assert await store.list_models() == {"t.m": revision}
        assert await store.read_config("t.m") == revision
    assert list((volume.models / ".trash").iterdir()) == []


async def test_publishing_again_changes_nothing(store: ModelStore, volume: Volume) -> None:
    place(volume, "1")
    await store.publish("t.m-1", "t.m", "1")
    await store.publish("t.m-1", "t.m", "1")
    assert await store.list_models() == {"t.m": "1"}
    with pytest.raises(CommandFailed, match="fetch it again"):
        await store.publish("t.m-2", "t.m", "2")


@pytest.mark.parametrize("calls", range(8))
async def test_a_crash_between_any_two_calls_is_mended_by_publishing_again(calls: int, store: ModelStore, volume: Volume) -> None:
    place(volume, "1")
    await store.publish("t.m-1", "t.m", "1")
    place(volume, "2")
    crashing = volume.client()
    crash_after(crashing, calls)
    error = await raised(crashing.publish("t.m-2", "t.m", "2"))
    await crashing.close()
    assert isinstance(error, Crash | None)
    for name, revision in (await store.list_models()).items():
        assert (name, await store.read_config(name)) == ("t.m", revision)
    await store.publish("t.m-2", "t.m", "2")
    assert await store.list_models() == {"t.m": "2"}
    assert await store.incoming() == {}
    assert await store.read_config("t.m") == "2"
    assert list((volume.models / ".trash").iterdir()) == []


@pytest.mark.parametrize("calls", range(4))
async def test_a_crash_during_removal_is_mended_by_removing_again(calls: int, store: ModelStore, volume: Volume) -> None:
    place(volume, "1")
    await store.publish("t.m-1", "t.m", "1")
    crashing = volume.client()
    crash_after(crashing, calls)
    await raised(crashing.remove("t.m"))
    await crashing.close()
    assert (await store.list_models()).get("t.m", "1") == "1"
    await store.remove("t.m")
    assert await store.list_models() == {}
    assert list((volume.models / ".trash").iterdir()) == []


async def test_a_reader_never_sees_half_a_model(store: ModelStore, volume: Volume) -> None:
    place(volume, "0")
    await store.publish("t.m-0", "t.m", "0")
    done = asyncio.Event()
    seen: set[str | None] = set()

    async def watch() -> None:
        while not done.is_set():
            seen.update((await store.list_models()).values())
            if (volume.models / "t.m").exists():
                seen.update(path.name.removeprefix(".ergon-") for path in (volume.models / "t.m").glob(".ergon-*"))

    watching = asyncio.create_task(watch())
    for revision in "12345678":
        place(volume, revision)
        await store.publish(f"t.m-{revision}", "t.m", revision)
    done.set()
    await watching
    assert None not in seen
    assert seen <= set("012345678")


async def test_removing_what_is_not_there_is_no_error(store: ModelStore) -> None:
    await store.remove("t.never")


async def test_cleaning_keeps_what_is_wanted(store: ModelStore, volume: Volume) -> None:
    for revision in ("1", "2"):
        place(volume, revision)
    (volume.models / ".trash" / "t.old" / "1").mkdir(parents=True)
    await store.clean({"t.m-1"})
    assert await store.incoming() == {"t.m-1": None}
    assert list((volume.models / ".trash").iterdir()) == []


async def test_what_others_put_there_has_no_revision(store: ModelStore, volume: Volume) -> None:
    (volume.models / "by-hand" / "1").mkdir(parents=True)
    (volume.models / "lost+found").mkdir()
    assert await store.list_models() == {"by-hand": None, "lost+found": None}
    assert await store.read_config("by-hand") is None


class Crash(StoreError):
    """The operator is gone in the middle of its work."""


def crash_after(store: ModelStore, calls: int) -> None:
    """Let this many commands of a store reach rclone, then none."""
    call, left = store._control.call, calls

    async def counted(*arguments: object, **parameters: object) -> object:
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1
        return await call(*arguments, **parameters)

    store._control.call = counted
