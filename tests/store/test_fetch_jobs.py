"""Fetches that are cancelled, taken over, forgotten or left behind."""

from pathlib import Path

import pytest

from ergon.store import FetchJob, JobLost, ModelStore, StoreUnavailable
from tests.store.conftest import Volume
from tests.store.rclone import Rclone, Sources, secret_for, start_store
from tests.store.steps import fetched, finished, has_begun, source_of, until

pytestmark = pytest.mark.cluster


async def test_cancelling_stops_and_removes(store: ModelStore, sources: Sources, volume: Volume) -> None:
    sources.add("slow", {"config.pbtxt": "", "1/weights": b"\1" * 8_000_000})
    s3 = sources.serve_s3("--bwlimit=1M")
    job = await store.fetch(source_of("s3://models/slow", secret_for(s3)), "t.slow-1")
    await until(lambda: has_begun(store, job))
    await store.cancel(job)
    assert await store.incoming() == {}
    assert (await store.progress(job)).finished
    await store.cancel(job)


async def test_what_a_stopped_fetch_has_brought_wholly_is_not_brought_again(store: ModelStore, sources: Sources) -> None:
    sources.add("stopped", {"config.pbtxt": "", "1/first": b"\1" * 100_000, "1/weights": b"\1" * 8_000_000})
    slow = sources.serve_s3("--bwlimit=1M")
    job = await store.fetch(source_of("s3://models/stopped", secret_for(slow)), "t.stopped-1")

    async def first_is_there() -> bool:
        return (await store.progress(job)).files_done >= 2

    await until(first_is_there)
    await store.stop(job)
    assert (await store.progress(job)).finished
    again = await fetched(store, source_of("s3://models/stopped", secret_for(sources.serve_s3())), "t.stopped-1")
    assert again.error is None
    assert again.files_checked == 2
    assert again.bytes_done == 8_000_000


async def test_a_new_operator_takes_over_a_fetch_that_still_runs(store: ModelStore, sources: Sources) -> None:
    sources.add("handed", {"config.pbtxt": "", "1/weights": b"\1" * 3_000_000})
    slow = sources.serve_s3("--bwlimit=500k")
    first = await store.fetch(source_of("s3://models/handed", secret_for(slow)), "t.handed-1")
    await until(lambda: has_begun(store, first))
    fast = sources.serve_s3()
    second = await fetched(store, source_of("s3://models/handed", secret_for(fast)), "t.handed-1")
    assert (second.error, second.bytes_done) == (None, 3_000_000)
    assert (await store.progress(first)).finished


async def test_cleaning_stops_fetches_that_nobody_wants(store: ModelStore, sources: Sources) -> None:
    sources.add("orphan", {"config.pbtxt": "", "1/weights": b"\1" * 8_000_000})
    s3 = sources.serve_s3("--bwlimit=1M")
    job = await store.fetch(source_of("s3://models/orphan", secret_for(s3)), "t.orphan-1")
    await until(lambda: has_begun(store, job))
    await store.clean(set())
    assert (await finished(store, job)).error is not None


async def test_a_restarted_rclone_has_lost_its_fetches(
    volume: Volume, sources: Sources, s3: Rclone, rclone_program: Path, certificate: tuple[Path, Path], tmp_path: Path
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


async def test_a_part_of_a_fetch_is_counted_and_can_be_thrown_away(store: ModelStore, sources: Sources) -> None:
    assert await store.fetched_bytes("t.part-1") == 0
    await store.discard("t.part-1")
    sources.add("part", {"config.pbtxt": "four", "1/weights": b"\1" * 8_000_000})
    slow = sources.serve_s3("--bwlimit=1M")
    job = await store.fetch(source_of("s3://models/part", secret_for(slow)), "t.part-1")
    await until(lambda: has_begun(store, job))
    assert 0 < await store.fetched_bytes("t.part-1") < 8_000_004
    await store.discard("t.part-1")
    assert (await finished(store, job)).error is not None
    assert await store.fetched_bytes("t.part-1") == 0
    assert await store.incoming() == {}


async def test_no_call_makes_rclone_complain(store: ModelStore, volume: Volume) -> None:
    """Its log is read by people who look for a fault."""
    folder = volume.models / ".incoming" / "t.m-1"
    (folder / "1").mkdir(parents=True)
    await store.publish("t.m-1", "t.m", "1")
    await store.publish("t.m-1", "t.m", "1")
    await store.remove("t.m")
    await store.remove("t.m")
    await store.clean(set())
    assert "ERROR :" not in volume.rclone.log
