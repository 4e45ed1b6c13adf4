"""Sources that refuse, disappear or hold no model: told as what they are."""

import pytest

from ergon.store import AccessDenied, DiskFull, FetchFailed, ModelDirectoryInvalid, ModelStore, SourceInvalid, SourceNotFound
from tests.store.conftest import Volume
from tests.store.rclone import SECRET_KEY, Rclone, Sources, secret_for
from tests.store.steps import fetched, finished, has_begun, raised, source_of, until
from tests.triton.server import free_ports

pytestmark = pytest.mark.cluster


async def test_wrong_keys(store: ModelStore, s3: Rclone) -> None:
    source = source_of("s3://models/ner", secret_for(s3, secret_access_key="not-the-right-one"))
    for error in (await raised(store.size(source)), (await fetched(store, source, "t.ner-1")).error):
        assert isinstance(error, AccessDenied)
        assert "s3://models/ner: access denied" in str(error)
        assert "correct the Secret models-reader" in str(error)
        assert "not-the-right-one" not in str(error)


async def test_an_unknown_user(store: ModelStore, s3: Rclone) -> None:
    source = source_of("s3://models/ner", secret_for(s3, access_key_id="nobody-we-know"))
    assert isinstance(await raised(store.size(source)), AccessDenied)


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/ner", "s3://models/no/such/path"])
async def test_nothing_there(uri: str, store: ModelStore, s3: Rclone) -> None:
    source = source_of(uri, secret_for(s3))
    for error in (await raised(store.size(source)), (await fetched(store, source, "t.ner-1")).error):
        assert isinstance(error, SourceNotFound)
        assert str(error).startswith(f"{uri}: nothing is there")


async def test_nobody_listens(store: ModelStore) -> None:
    (port,) = free_ports(1)
    secret = {"access_key_id": "a-key", "secret_access_key": SECRET_KEY, "endpoint": f"http://127.0.0.1:{port}"}
    error = (await fetched(store, source_of("s3://models/ner", secret), "t.ner-1")).error
    assert isinstance(error, FetchFailed)
    assert "connection refused" in str(error)
    assert f"127.0.0.1:{port}" in str(error)


async def test_a_source_that_disappears_during_the_fetch(store: ModelStore, sources: Sources) -> None:
    sources.add("vanishes", {"config.pbtxt": "", "1/weights": b"\1" * 4_000_000})
    s3 = sources.serve_s3("--bwlimit=1M")
    job = await store.fetch(source_of("s3://models/vanishes", secret_for(s3)), "t.vanishes-1")
    await until(lambda: has_begun(store, job))
    s3.stop()
    progress = await finished(store, job)
    assert isinstance(progress.error, FetchFailed)
    assert progress.bytes_done < 4_000_000
    assert (await store.incoming()).get("t.vanishes-1") is None


async def test_an_object_that_disappears_before_its_turn(store: ModelStore, sources: Sources) -> None:
    files: dict[str, str | bytes] = {f"1/part-{number:02}": b"\1" * 200_000 for number in range(20)}
    folder = sources.add("shrinks", files)
    s3 = sources.serve_s3("--bwlimit=1M")
    job = await store.fetch(source_of("s3://models/shrinks", secret_for(s3)), "t.shrinks-1")
    await until(lambda: has_begun(store, job))
    (folder / "1" / "part-19").unlink()
    assert isinstance((await finished(store, job)).error, SourceNotFound | FetchFailed)


async def test_a_full_disk(small_volume: Volume, sources: Sources, s3: Rclone) -> None:
    sources.add("huge", {"config.pbtxt": "", "1/weights": b"\1" * 4_000_000})
    store = small_volume.client()
    source = source_of("s3://models/huge", secret_for(s3))
    assert await store.free_bytes() < (await store.size(source)).total_bytes
    error = (await fetched(store, source, "t.huge-1")).error
    assert isinstance(error, DiskFull)
    assert "the server's model volume is full" in str(error)
    await store.clean(set())
    assert await store.incoming() == {}
    await store.close()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"1/model.py": ""}, "the source has no config.pbtxt"),
        ({"config.pbtxt": "", "README.md": ""}, "the source has no version directory"),
        ({"config.pbtxt": "", "v1/model.py": ""}, "the source has no version directory"),
        ({"config.pbtxt": "", "1/model.onnx": ""}, "the source's version directory 1 has no model.py"),
        ({"config.pbtxt": "", "1/model.py": "", "10/other.py": ""}, "the source's version directory 10 has no model.py"),
    ],
)
async def test_not_a_model_directory(files: dict[str, str | bytes], says: str, store: ModelStore, volume: Volume) -> None:
    for path, content in files.items():
        (volume.sources / "odd" / path).parent.mkdir(parents=True, exist_ok=True)
        (volume.sources / "odd" / path).write_text(str(content))
    assert (await fetched(store, source_of("file:///odd"), "t.odd-1")).error is None
    with pytest.raises(ModelDirectoryInvalid, match=says):
        await store.validate("t.odd-1", "python")


async def test_an_empty_version_directory(store: ModelStore, volume: Volume) -> None:
    (volume.sources / "odd" / "1").mkdir(parents=True)
    (volume.sources / "odd" / "config.pbtxt").write_text("")
    assert (await fetched(store, source_of("file:///odd"), "t.odd-1")).error is None
    with pytest.raises(ModelDirectoryInvalid, match="version directory 1 is empty"):
        await store.validate("t.odd-1", "onnxruntime")
    await store.validate("t.odd-1", "ensemble")


async def test_a_python_model_may_start_from_another_file(store: ModelStore, volume: Volume) -> None:
    (volume.sources / "odd" / "1").mkdir(parents=True)
    (volume.sources / "odd" / "config.pbtxt").write_text('backend: "python"\ndefault_model_filename: "start.py"\n')
    (volume.sources / "odd" / "1" / "start.py").write_text("")
    assert (await fetched(store, source_of("file:///odd"), "t.odd-1")).error is None
    await store.validate("t.odd-1", "python")


async def test_a_whole_file_as_a_source(store: ModelStore, volume: Volume) -> None:
    (volume.sources / "model.onnx").write_text("")
    with pytest.raises(SourceInvalid, match="name the model's directory"):
        await store.fetch(source_of("file:///model.onnx"), "t.file-1")
