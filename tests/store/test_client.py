"""What the operator relies on when it fetches models through a real rclone."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ergon.store import (
    AccessDenied,
    CommandFailed,
    DiskFull,
    FetchFailed,
    FetchJob,
    FetchProgress,
    JobLost,
    ModelDirectoryInvalid,
    ModelStore,
    Source,
    SourceInvalid,
    SourceNotAllowed,
    SourceNotFound,
    StoreError,
    StoreUnavailable,
    parse_source,
)
from tests.store.conftest import Volume, make_certificate
from tests.store.rclone import SECRET_KEY, Rclone, Sources, secret_for, start_store
from tests.triton.server import free_ports

pytestmark = pytest.mark.cluster


def source_of(uri: str, secret: dict[str, str] | None = None, revision: str = "1") -> Source:
    return parse_source(uri, revision, secret, "models-reader" if secret else None, allow_private_addresses=True)


async def finished(store: ModelStore, job: FetchJob) -> FetchProgress:
    async def has_finished() -> bool:
        return (await store.progress(job)).finished

    await until(has_finished, 60)
    return await store.progress(job)


async def fetched(store: ModelStore, source: Source, incoming_id: str) -> FetchProgress:
    return await finished(store, await store.fetch(source, incoming_id))


class TestFetching:
    async def test_a_model_comes_from_s3_and_takes_its_place(
        self, store: ModelStore, sources: Sources, s3: Rclone, volume: Volume
    ) -> None:
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

    async def test_a_path_may_hold_what_rclone_gives_a_meaning(self, store: ModelStore, sources: Sources, s3: Rclone) -> None:
        sources.add("a b/c'd,e=f:g{h}/ü")
        source = source_of("s3://models/a%20b/c'd,e=f:g%7Bh%7D/%C3%BC", secret_for(s3))
        assert (await fetched(store, source, "t.odd-1")).error is None
        await store.validate("t.odd-1", "python")

    async def test_the_same_place_can_be_fetched_into_again_after_publishing(
        self, store: ModelStore, sources: Sources, s3: Rclone
    ) -> None:
        sources.add("again")
        source = source_of("s3://models/again", secret_for(s3))
        for _ in range(2):
            assert (await fetched(store, source, "t.again-1")).files_done == 2
            await store.publish("t.again-1", "t.again", "1")
        assert await store.list_models() == {"t.again": "1"}

    async def test_a_public_bucket_needs_no_keys(self, store: ModelStore, sources: Sources) -> None:
        sources.add("public")
        source = source_of("s3://models/public", {"endpoint": f"http://127.0.0.1:{sources.serve_s3(anonymous=True).port}"})
        assert (await fetched(store, source, "t.public-1")).error is None

    async def test_a_model_comes_over_http(self, store: ModelStore, sources: Sources) -> None:
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

    async def test_a_model_comes_from_the_pools_own_volume(self, store: ModelStore, volume: Volume) -> None:
        folder = volume.sources / "team a" / "ner"
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text("")
        (folder / "1" / "model.py").write_text("")
        assert (await fetched(store, source_of("file:///team%20a/ner"), "t.ner-1")).error is None
        await store.validate("t.ner-1", "python")

    async def test_markers_of_a_source_are_not_believed(self, store: ModelStore, volume: Volume) -> None:
        folder = volume.sources / "copied"
        (folder / ".ergon-9").mkdir(parents=True)
        (folder / "config.pbtxt").write_text("")
        assert (await fetched(store, source_of("file:///copied"), "t.copied-1")).error is None
        assert await store.incoming() == {"t.copied-1": None}

    async def test_what_an_earlier_attempt_fetched_is_not_fetched_again(
        self, store: ModelStore, sources: Sources, s3: Rclone
    ) -> None:
        sources.add("twice", {"config.pbtxt": "a", "1/model.py": "b" * 1000})
        source = source_of("s3://models/twice", secret_for(s3))
        assert (await fetched(store, source, "t.twice-1")).bytes_done == 1001
        assert (await fetched(store, source, "t.twice-1")).bytes_done == 0

    async def test_what_does_not_belong_there_is_noticed(
        self, store: ModelStore, sources: Sources, s3: Rclone, volume: Volume
    ) -> None:
        sources.add("clean")
        (volume.models / ".incoming" / "t.clean-1" / "1").mkdir(parents=True)
        (volume.models / ".incoming" / "t.clean-1" / "1" / "left-over").write_text("of another life")
        error = (await fetched(store, source_of("s3://models/clean", secret_for(s3)), "t.clean-1")).error
        assert isinstance(error, FetchFailed)
        assert "1 files differ from the source after the fetch, first 1/left-over" in str(error)

    async def test_rclone_knows_every_option_that_a_source_sets(self, store: ModelStore) -> None:
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


class TestSourcesThatFail:
    async def test_wrong_keys(self, store: ModelStore, s3: Rclone) -> None:
        source = source_of("s3://models/ner", secret_for(s3, secret_access_key="not-the-right-one"))
        for error in (await raised(store.size(source)), (await fetched(store, source, "t.ner-1")).error):
            assert isinstance(error, AccessDenied)
            assert "s3://models/ner: access denied" in str(error)
            assert "correct the Secret models-reader" in str(error)
            assert "not-the-right-one" not in str(error)

    async def test_an_unknown_user(self, store: ModelStore, s3: Rclone) -> None:
        source = source_of("s3://models/ner", secret_for(s3, access_key_id="nobody-we-know"))
        assert isinstance(await raised(store.size(source)), AccessDenied)

    @pytest.mark.parametrize("uri", ["s3://no-such-bucket/ner", "s3://models/no/such/path"])
    async def test_nothing_there(self, uri: str, store: ModelStore, s3: Rclone) -> None:
        source = source_of(uri, secret_for(s3))
        for error in (await raised(store.size(source)), (await fetched(store, source, "t.ner-1")).error):
            assert isinstance(error, SourceNotFound)
            assert str(error).startswith(f"{uri}: nothing is there")

    async def test_nobody_listens(self, store: ModelStore) -> None:
        (port,) = free_ports(1)
        secret = {"access_key_id": "a-key", "secret_access_key": SECRET_KEY, "endpoint": f"http://127.0.0.1:{port}"}
        error = (await fetched(store, source_of("s3://models/ner", secret), "t.ner-1")).error
        assert isinstance(error, FetchFailed)
        assert "connection refused" in str(error)
        assert f"127.0.0.1:{port}" in str(error)

    async def test_a_source_that_disappears_during_the_fetch(self, store: ModelStore, sources: Sources) -> None:
        sources.add("vanishes", {"config.pbtxt": "", "1/weights": b"\1" * 4_000_000})
        s3 = sources.serve_s3("--bwlimit=1M")
        job = await store.fetch(source_of("s3://models/vanishes", secret_for(s3)), "t.vanishes-1")
        await until(lambda: has_begun(store, job))
        s3.stop()
        progress = await finished(store, job)
        assert isinstance(progress.error, FetchFailed)
        assert progress.bytes_done < 4_000_000
        assert (await store.incoming()).get("t.vanishes-1") is None

    async def test_an_object_that_disappears_before_its_turn(self, store: ModelStore, sources: Sources) -> None:
        files: dict[str, str | bytes] = {f"1/part-{number:02}": b"\1" * 200_000 for number in range(20)}
        folder = sources.add("shrinks", files)
        s3 = sources.serve_s3("--bwlimit=1M")
        job = await store.fetch(source_of("s3://models/shrinks", secret_for(s3)), "t.shrinks-1")
        await until(lambda: has_begun(store, job))
        (folder / "1" / "part-19").unlink()
        assert isinstance((await finished(store, job)).error, SourceNotFound | FetchFailed)

    async def test_a_full_disk(self, small_volume: Volume, sources: Sources, s3: Rclone) -> None:
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
    async def test_not_a_model_directory(
        self, files: dict[str, str | bytes], says: str, store: ModelStore, volume: Volume
    ) -> None:
        for path, content in files.items():
            (volume.sources / "odd" / path).parent.mkdir(parents=True, exist_ok=True)
            (volume.sources / "odd" / path).write_text(str(content))
        assert (await fetched(store, source_of("file:///odd"), "t.odd-1")).error is None
        with pytest.raises(ModelDirectoryInvalid, match=says):
            await store.validate("t.odd-1", "python")

    async def test_an_empty_version_directory(self, store: ModelStore, volume: Volume) -> None:
        (volume.sources / "odd" / "1").mkdir(parents=True)
        (volume.sources / "odd" / "config.pbtxt").write_text("")
        assert (await fetched(store, source_of("file:///odd"), "t.odd-1")).error is None
        with pytest.raises(ModelDirectoryInvalid, match="version directory 1 is empty"):
            await store.validate("t.odd-1", "onnxruntime")
        await store.validate("t.odd-1", "ensemble")

    async def test_a_python_model_may_start_from_another_file(self, store: ModelStore, volume: Volume) -> None:
        (volume.sources / "odd" / "1").mkdir(parents=True)
        (volume.sources / "odd" / "config.pbtxt").write_text('backend: "python"\ndefault_model_filename: "start.py"\n')
        (volume.sources / "odd" / "1" / "start.py").write_text("")
        assert (await fetched(store, source_of("file:///odd"), "t.odd-1")).error is None
        await store.validate("t.odd-1", "python")

    async def test_a_whole_file_as_a_source(self, store: ModelStore, volume: Volume) -> None:
        (volume.sources / "model.onnx").write_text("")
        with pytest.raises(SourceInvalid, match="name the model's directory"):
            await store.fetch(source_of("file:///model.onnx"), "t.file-1")


class TestStayingWithinTheVolumes:
    @pytest.mark.parametrize("way", ["ways-out", "inside/ways-out"])
    async def test_a_link_on_the_way_is_not_followed(self, way: str, store: ModelStore, volume: Volume, tmp_path: Path) -> None:
        (tmp_path / "secret" / "1").mkdir(parents=True)
        (volume.sources / "inside").mkdir()
        (volume.sources / way).symlink_to(tmp_path / "secret")
        for uri in (f"file:///{way}", f"file:///{way}/1"):
            with pytest.raises(SourceInvalid, match="symbolic link"):
                await store.fetch(source_of(uri), "t.link-1")
        assert await store.incoming() == {}

    async def test_links_below_are_named_not_dropped(self, store: ModelStore, volume: Volume) -> None:
        (volume.sources / "hub" / "1").mkdir(parents=True)
        (volume.sources / "hub" / "config.pbtxt").write_text("")
        (volume.sources / "hub" / "1" / "weights").symlink_to("/etc/hostname")
        with pytest.raises(SourceInvalid, match=r"symbolic links are not followed \(1/weights\); copy the files there"):
            await store.size(source_of("file:///hub"))

    async def test_a_pool_without_sources_takes_none(self, store: ModelStore, volume: Volume) -> None:
        volume.sources.rmdir()
        with pytest.raises(SourceNotAllowed, match="its template must mount a volume"):
            await store.size(source_of("file:///a"))

    @pytest.mark.parametrize("name", ["..", "../../etc", "a/b", ".hidden", "", "a..b", "a\nb", "-x", "A b"])
    async def test_no_name_becomes_another_path(self, name: str, store: ModelStore, volume: Volume) -> None:
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


class TestPublishing:
    async def place(self, store: ModelStore, volume: Volume, revision: str) -> None:
        folder = volume.models / ".incoming" / f"t.m-{revision}" / "1"
        folder.mkdir(parents=True)
        (folder.parent / "config.pbtxt").write_text(revision)

    async def test_a_new_revision_takes_the_old_ones_place(self, store: ModelStore, volume: Volume) -> None:
        for revision in ("1", "2"):
            await self.place(store, volume, revision)
            await store.publish(f"t.m-{revision}", "t.m", revision)
            assert await store.list_models() == {"t.m": revision}
            assert await store.read_config("t.m") == revision
        assert list((volume.models / ".trash").iterdir()) == []

    async def test_publishing_again_changes_nothing(self, store: ModelStore, volume: Volume) -> None:
        await self.place(store, volume, "1")
        await store.publish("t.m-1", "t.m", "1")
        await store.publish("t.m-1", "t.m", "1")
        assert await store.list_models() == {"t.m": "1"}
        with pytest.raises(CommandFailed, match="fetch it again"):
            await store.publish("t.m-2", "t.m", "2")

    @pytest.mark.parametrize("calls", range(8))
    async def test_a_crash_between_any_two_calls_is_mended_by_publishing_again(
        self, calls: int, store: ModelStore, volume: Volume
    ) -> None:
        await self.place(store, volume, "1")
        await store.publish("t.m-1", "t.m", "1")
        await self.place(store, volume, "2")
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
    async def test_a_crash_during_removal_is_mended_by_removing_again(
        self, calls: int, store: ModelStore, volume: Volume
    ) -> None:
        await self.place(store, volume, "1")
        await store.publish("t.m-1", "t.m", "1")
        crashing = volume.client()
        crash_after(crashing, calls)
        await raised(crashing.remove("t.m"))
        await crashing.close()
        assert (await store.list_models()).get("t.m", "1") == "1"
        await store.remove("t.m")
        assert await store.list_models() == {}
        assert list((volume.models / ".trash").iterdir()) == []

    async def test_a_reader_never_sees_half_a_model(self, store: ModelStore, volume: Volume) -> None:
        await self.place(store, volume, "0")
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
            await self.place(store, volume, revision)
            await store.publish(f"t.m-{revision}", "t.m", revision)
        done.set()
        await watching
        assert None not in seen
        assert seen <= set("012345678")

    async def test_removing_what_is_not_there_is_no_error(self, store: ModelStore) -> None:
        await store.remove("t.never")

    async def test_cleaning_keeps_what_is_wanted(self, store: ModelStore, volume: Volume) -> None:
        for revision in ("1", "2"):
            await self.place(store, volume, revision)
        (volume.models / ".trash" / "t.old" / "1").mkdir(parents=True)
        await store.clean({"t.m-1"})
        assert await store.incoming() == {"t.m-1": None}
        assert list((volume.models / ".trash").iterdir()) == []

    async def test_what_others_put_there_has_no_revision(self, store: ModelStore, volume: Volume) -> None:
        (volume.models / "by-hand" / "1").mkdir(parents=True)
        (volume.models / "lost+found").mkdir()
        assert await store.list_models() == {"by-hand": None, "lost+found": None}
        assert await store.read_config("by-hand") is None


class TestJobs:
    async def test_cancelling_stops_and_removes(self, store: ModelStore, sources: Sources, volume: Volume) -> None:
        sources.add("slow", {"config.pbtxt": "", "1/weights": b"\1" * 8_000_000})
        s3 = sources.serve_s3("--bwlimit=1M")
        job = await store.fetch(source_of("s3://models/slow", secret_for(s3)), "t.slow-1")
        await until(lambda: has_begun(store, job))
        await store.cancel(job)
        assert await store.incoming() == {}
        assert (await store.progress(job)).finished
        await store.cancel(job)

    async def test_a_new_operator_takes_over_a_fetch_that_still_runs(self, store: ModelStore, sources: Sources) -> None:
        sources.add("handed", {"config.pbtxt": "", "1/weights": b"\1" * 3_000_000})
        slow = sources.serve_s3("--bwlimit=500k")
        first = await store.fetch(source_of("s3://models/handed", secret_for(slow)), "t.handed-1")
        await until(lambda: has_begun(store, first))
        fast = sources.serve_s3()
        second = await fetched(store, source_of("s3://models/handed", secret_for(fast)), "t.handed-1")
        assert (second.error, second.bytes_done) == (None, 3_000_000)
        assert (await store.progress(first)).finished

    async def test_cleaning_stops_fetches_that_nobody_wants(self, store: ModelStore, sources: Sources) -> None:
        sources.add("orphan", {"config.pbtxt": "", "1/weights": b"\1" * 8_000_000})
        s3 = sources.serve_s3("--bwlimit=1M")
        job = await store.fetch(source_of("s3://models/orphan", secret_for(s3)), "t.orphan-1")
        await until(lambda: has_begun(store, job))
        await store.clean(set())
        assert (await finished(store, job)).error is not None

    async def test_a_restarted_rclone_has_lost_its_fetches(
        self, volume: Volume, sources: Sources, s3: Rclone, rclone_program: Path, certificate: tuple[Path, Path], tmp_path: Path
    ) -> None:
        sources.add("lost")
        store = volume.client()
        job = await store.fetch(source_of("s3://models/lost", secret_for(s3)), "t.lost-1")
        volume.rclone.stop()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await store.progress(job)
        volume.rclone = start_store(rclone_program, tmp_path, *certificate, port=volume.rclone.port)
        with pytest.raises(JobLost):
            await store.progress(job)
        again = await store.fetch(source_of("s3://models/lost", secret_for(s3)), "t.lost-1")
        stranger = FetchJob(again.number, job.process, job.incoming_id, job.source)
        with pytest.raises(JobLost, match="restarted"):
            await store.progress(stranger)
        await store.close()


class TestReachingTheStore:
    async def test_wrong_credentials(self, volume: Volume) -> None:
        stranger = volume.client(password="guessed")
        error = await raised(stranger.list_models())
        assert isinstance(error, StoreUnavailable)
        assert "refuses the operator's credentials" in str(error)
        assert "guessed" not in f"{error} {stranger!r}"
        await stranger.close()

    async def test_another_certificate(self, volume: Volume, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        stranger = volume.client(ca_pem=make_certificate(tmp_path / "other")[0].read_text())
        with pytest.raises(StoreUnavailable, match="a certificate that is not the pool's"):
            await stranger.list_models()
        await stranger.close()

    async def test_secrets_show_nowhere(self, store: ModelStore, s3: Rclone, volume: Volume) -> None:
        source = source_of("s3://models/nothing", secret_for(s3))
        progress = await fetched(store, source, "t.x-1")
        job = await store.fetch(source, "t.x-1")
        shown = f"{source!r} {job!r} {progress!r} {progress.error} {store!r} {volume.rclone.log}"
        assert SECRET_KEY not in shown
        assert (
            str(await raised(store.size(source_of("s3://models/x", secret_for(s3, session_token="a-session-token"))))).count(
                "a-session-token"
            )
            == 0
        )


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


async def raised(call: Awaitable[object]) -> StoreError | None:
    try:
        await call
    except StoreError as error:
        return error
    return None


async def has_begun(store: ModelStore, job: FetchJob) -> bool:
    progress = await store.progress(job)
    assert not progress.finished, progress
    return progress.bytes_done > 0


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15.0) -> None:
    """Wait for what only asking again can tell."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
