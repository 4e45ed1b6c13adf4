"""Who reaches the store, and what is never shown."""

from pathlib import Path

import pytest

from ergon.store import ModelStore, StoreUnavailable
from tests.store.conftest import Volume, make_certificate
from tests.store.rclone import SECRET_KEY, Rclone, secret_for
from tests.store.steps import fetched, raised, source_of

pytestmark = pytest.mark.cluster


async def test_wrong_credentials(volume: Volume) -> None:
    stranger = volume.client(password="guessed")
    error = await raised(stranger.list_models())
    assert isinstance(error, StoreUnavailable)
    assert "refuses the operator's credentials" in str(error)
    assert "guessed" not in f"{error} {stranger!r}"
    await stranger.close()


async def test_another_certificate(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = volume.client(ca_pem=make_certificate(tmp_path / "other")[0].read_text())
    with pytest.raises(StoreUnavailable, match="a certificate that is not the pool's"):
        await stranger.list_models()
    await stranger.close()


async def test_secrets_show_nowhere(store: ModelStore, s3: Rclone, volume: Volume) -> None:
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
