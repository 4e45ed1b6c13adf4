"""The files of projected volumes, and paths inside volumes."""

from pathlib import Path

import pytest

from ergon.local.node.environment import ConfigurationError
from ergon.local.node.volumes import Content, PodVolumes, VolumeError, _inside, select_items, write_payload


def content(text: str, mode: int = 0o644) -> Content:
    return Content(text.encode(), mode)


def seen(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith("..")}


def test_files_change_all_at_once_behind_one_link(tmp_path: Path) -> None:
    write_payload(tmp_path, {"a": content("1"), "b": content("2", 0o400)})
    before = (tmp_path / "..data").readlink()
    assert seen(tmp_path) == {"a": "1", "b": "2"}
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o400
    write_payload(tmp_path, {"a": content("3"), "c": content("4")})
    assert seen(tmp_path) == {"a": "3", "c": "4"}
    assert (tmp_path / "..data").readlink() != before
    assert not (tmp_path / before).exists()


def test_the_same_content_writes_nothing(tmp_path: Path) -> None:
    write_payload(tmp_path, {"a": content("1")})
    before = (tmp_path / "..data").readlink()
    write_payload(tmp_path, {"a": content("1")})
    assert (tmp_path / "..data").readlink() == before


def test_paths_may_lie_in_folders(tmp_path: Path) -> None:
    write_payload(tmp_path, {"deep/er/a": content("1")})
    assert (tmp_path / "deep/er/a").read_text() == "1"


def test_items_choose_keys_paths_and_modes() -> None:
    found = select_items("s", {"k": b"v", "x": b"y"}, [{"key": "k", "path": "sub/k", "mode": 0o400}], 0o644, False)
    assert found == {"sub/k": Content(b"v", 0o400)}


def test_a_chosen_key_must_be_there_unless_optional() -> None:
    with pytest.raises(ConfigurationError, match="has no key 'gone'"):
        select_items("s", {}, [{"key": "gone", "path": "p"}], 0o644, False)
    assert select_items("s", {}, [{"key": "gone", "path": "p"}], 0o644, True) == {}


def test_a_sub_path_stays_inside(tmp_path: Path) -> None:
    assert _inside(tmp_path, "a/b") == tmp_path / "a/b"
    assert (tmp_path / "a/b").is_dir()
    (tmp_path / "out").symlink_to("/")
    for path in ("../x", "out/etc"):
        with pytest.raises(ConfigurationError, match="leaves its volume"):
            _inside(tmp_path, path)


def test_a_change_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    write_payload(tmp_path, {"a": Content(b"1", 0o644)})
    (tmp_path / "..data_tmp").symlink_to("of-a-node-that-ended")
    write_payload(tmp_path, {"a": Content(b"2", 0o644)})
    assert (tmp_path / "a").read_text() == "2"


class Tokens:
    """In the place of the TokenRequest API: a token that says for whom it is."""

    async def request(self, method: str, path: str, body: dict) -> dict:
        return {"status": {"token": f"for {body['spec']['audiences']}"}}


async def test_tokens_of_one_name_for_two_audiences_are_two(tmp_path: Path) -> None:
    def projected(name: str, **more: str) -> dict:
        return {"name": name, "projected": {"sources": [{"serviceAccountToken": {"path": "token", **more}}]}}

    pod = {
        "metadata": {"namespace": "n", "name": "p", "uid": "u"},
        "spec": {"volumes": [projected("api"), projected("vault", audience="vault")]},
    }
    volumes = PodVolumes(Tokens(), pod, tmp_path, tmp_path, {})  # type: ignore[arg-type]
    await volumes.set_up()
    shown = [(tmp_path / "volumes" / name / "token").read_text() for name in ("api", "vault")]
    assert shown == ["for []", "for ['vault']"]


async def test_a_volume_that_cannot_be_understood_is_told_as_such(tmp_path: Path) -> None:
    field = {"path": "cpu", "resourceFieldRef": {"resource": "limits.cpu"}}
    for volume in ({"downwardAPI": {"items": [field]}}, {"emptyDir": {"medium": "Memory", "sizeLimit": "lots"}}):
        pod = {"metadata": {"namespace": "n", "name": "p", "uid": "u"}, "spec": {"volumes": [{"name": "v", **volume}]}}
        with pytest.raises(VolumeError, match='volume "v"'):
            await PodVolumes(Tokens(), pod, tmp_path, tmp_path, {}).set_up()  # type: ignore[arg-type]
