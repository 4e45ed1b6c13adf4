"""What the operator relies on when it fetches models through a real rclone."""

import pytest

from ergon.store import AccessDenied, ModelDirectoryInvalid, ModelStore, SourceNotFound
from tests.store.conftest import Volume
from tests.store.rclone import Rclone, Sources, secret_for
from tests.store.steps import fetched, source_of

pytestmark = pytest.mark.cluster


async def test_a_model_comes_from_s3_and_takes_its_place(store: ModelStore, sources: Sources, s3: Rclone, volume: Volume) -> None:
    sources.add("ner/3")
    source = source_of("s3://models/ner/3", secret_for(s3))
    size = await store.size(source)
    assert (size.files, size.total_bytes) == (2, 23)
    progress = await fetched(store, source, "t.ner-3")
    assert (progress.error, progress.bytes_done, progress.files_done) == (None, 23, 2)
    assert await store.incoming() == {"t.ner-3": None}
    await store.validate("t.ner-3", "python")
    assert await store.read_config("t.ner-3", incoming=True) == 'backend: "python"\n'
    await store.publish("t.ner-3", "t.ner", "3")
    assert await store.list_models() == {"t.ner": "3"}
    assert await store.incoming() == {}
    assert await store.read_config("t.ner") == 'backend: "python"\n'
    assert (volume.models / "t.ner" / ".ergon-3").is_dir()
    assert await store.used_bytes() == 23
    assert await store.free_bytes() > 0


async def test_a_path_may_hold_what_rclone_gives_a_meaning(store: ModelStore, sources: Sources, s3: Rclone) -> None:
    sources.add("a b/c'd,e=f:g{h}/ü")
    source = source_of("s3://models/a%20b/c'd,e=f:g%7Bh%7D/%C3%BC", secret_for(s3))
    assert (await fetched(store, source, "t.odd-1")).error is None
    await store.validate("t.odd-1", "python")


async def test_the_same_place_can_be_fetched_into_again_after_publishing(store: ModelStore, sources: Sources, s3: Rclone) -> None:
    sources.add("again")
    source = source_of("s3://models/again", secret_for(s3))
    for _ in range(2):
        assert (await fetched(store, source, "t.again-1")).files_done == 2
        await store.publish("t.again-1", "t.again", "1")
    assert await store.list_models() == {"t.again": "1"}


async def test_a_public_bucket_needs_no_keys(store: ModelStore, sources: Sources) -> None:
    sources.add("public")
    source = source_of("s3://models/public", {"endpoint": f"http://127.0.0.1:{sources.serve_s3(anonymous=True).port}"})
    assert (await fetched(store, source, "t.public-1")).error is None


async def test_a_model_comes_over_http(store: ModelStore, sources: Sources) -> None:
    sources.add("over http", {"config.pbtxt": "", "1/model.onnx": b"\0" * 4096, "1/deep/er/weights": "x"})
    web = sources.serve_http("--user=reader", "--pass=pass,word")
    uri = f"http://127.0.0.1:{web.port}/models/over%20http"
    progress = await fetched(store, source_of(uri, {"user": "reader", "pass": "pass,word"}), "t.web-1")
    assert (progress.error, progress.bytes_done) == (None, 4097)
    await store.validate("t.web-1", "onnxruntime")
    with pytest.raises(AccessDenied, match="correct the Secret models-reader") as denied:
        await store.size(source_of(uri, {"user": "reader", "pass": "no-such-word"}))
    assert "no-such-word" not in str(denied.value)
    with pytest.raises(AccessDenied, match="name a Secret with credentials in secretName"):
        await store.size(source_of(uri))
    with pytest.raises(SourceNotFound):
        await store.size(source_of(f"{uri}/none", {"user": "reader", "pass": "pass,word"}))


async def test_a_model_comes_from_the_pools_own_volume(store: ModelStore, volume: Volume) -> None:
    folder = volume.sources / "team a" / "ner"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("")
    (folder / "1" / "model.py").write_text("")
    assert (await fetched(store, source_of("file:///team%20a/ner"), "t.ner-1")).error is None
    await store.validate("t.ner-1", "python")


async def test_markers_of_a_source_are_not_believed(store: ModelStore, volume: Volume) -> None:
    folder = volume.sources / "copied"
    (folder / ".ergon-9").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("")
    assert (await fetched(store, source_of("file:///copied"), "t.copied-1")).error is None
    assert await store.incoming() == {"t.copied-1": None}


async def test_what_an_earlier_attempt_fetched_is_not_fetched_again(store: ModelStore, sources: Sources, s3: Rclone) -> None:
    sources.add("twice", {"config.pbtxt": "a", "1/model.py": "b" * 1000})
    source = source_of("s3://models/twice", secret_for(s3))
    assert (await fetched(store, source, "t.twice-1")).bytes_done == 1001
    assert (await fetched(store, source, "t.twice-1")).bytes_done == 0


async def test_what_an_earlier_attempt_left_there_goes(store: ModelStore, volume: Volume) -> None:
    """The owner of a source that was refused mends it in its place: what it held before must not stand in the way for ever."""
    folder = volume.sources / "mended"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt.txt").write_text("")
    (folder / "1" / "model.py").write_text("")
    assert (await fetched(store, source_of("file:///mended"), "t.mended-1")).error is None
    with pytest.raises(ModelDirectoryInvalid):
        await store.validate("t.mended-1", "python")
    (folder / "config.pbtxt.txt").rename(folder / "config.pbtxt")
    assert (await fetched(store, source_of("file:///mended"), "t.mended-1")).error is None
    await store.validate("t.mended-1", "python")
    assert {path.name for path in (volume.models / ".incoming" / "t.mended-1").iterdir()} == {"1", "config.pbtxt"}


async def test_rclone_knows_every_option_that_a_source_sets(store: ModelStore) -> None:
    """The others cannot be reached from here; a misspelt option would leave rclone at its default, the node's identity."""
    known = {
        backend["Name"]: {option["Name"] for option in backend["Options"]}
        for backend in (await store._control.call("config/providers", 10))["providers"]
    }
    secrets = {
        "s3": {"access_key_id": "a", "secret_access_key": "b", "session_token": "c", "endpoint": "https://e", "region": "r"},
        "gs": {"service_account_credentials": '{"type": "service_account"}'},
        "az": {"account": "acme", "key": "b", "sas_url": "https://e"},
        "https": {"user": "a", "pass": "b"},
    }
    for scheme, secret in secrets.items():
        for given in (secret, {"account": "acme"} if scheme == "az" else None):
            remote = dict(source_of(f"{scheme}://models/x", given).remote or {})
            remote.pop("_root")
            assert remote.keys() <= known[remote.pop("type")]
