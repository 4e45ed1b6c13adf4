"""No link and no name leads out of the store's volumes."""

from pathlib import Path

import pytest

from ergon.store import CommandFailed, ModelStore, SourceInvalid, SourceNotAllowed
from tests.store.conftest import Volume
from tests.store.steps import raised, source_of

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("way", ["ways-out", "inside/ways-out"])
async def test_a_link_on_the_way_is_not_followed(way: str, store: ModelStore, volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "secret" / "1").mkdir(parents=True)
    (volume.sources / "inside").mkdir()
    (volume.sources / way).symlink_to(tmp_path / "secret")
    for uri in (f"file:///{way}", f"file:///{way}/1"):
        with pytest.raises(SourceInvalid, match="symbolic link"):
            await store.fetch(source_of(uri), "t.link-1")
    assert await store.incoming() == {}


async def test_links_below_are_named_not_dropped(store: ModelStore, volume: Volume) -> None:
    (volume.sources / "hub" / "1").mkdir(parents=True)
    (volume.sources / "hub" / "config.pbtxt").write_text("")
    (volume.sources / "hub" / "1" / "weights").symlink_to("/etc/hostname")
    with pytest.raises(SourceInvalid, match=r"symbolic links are not followed \(1/weights\); copy the files there"):
        await store.size(source_of("file:///hub"))


async def test_a_pool_without_sources_takes_none(store: ModelStore, volume: Volume) -> None:
    volume.sources.rmdir()
    with pytest.raises(SourceNotAllowed, match="its template must mount a volume"):
        await store.size(source_of("file:///a"))


@pytest.mark.parametrize("name", ["..", "../../etc", "a/b", ".hidden", "", "a..b", "a\nb", "-x", "A b"])
async def test_no_name_becomes_another_path(name: str, store: ModelStore, volume: Volume) -> None:
    (volume.models / ".incoming" / "t.ok-1").mkdir(parents=True)
    source = source_of("file:///a")
    for call in (
        store.fetch(source, name),
        store.validate(name, "python"),
        store.read_config(name),
        store.publish("t.ok-1", name, "1"),
        store.publish("t.ok-1", "t.ok", name),
        store.publish(name, "t.ok", "1"),
        store.remove(name),
    ):
        assert isinstance(await raised(call), CommandFailed)
    assert await store.list_models() == {}
