"""Kopf at the edge: how it ends, and what that leaves alone."""

import asyncio
import gc
from pathlib import Path

import pytest
import yaml

from ergon.edge import process as process_module
from ergon.edge.process import Process
from ergon.edge.watch import EVERYWHERE, settings, watch
from ergon.engine.cache import Cache
from ergon.engine.settings import Settings
from ergon.kube.client import KubeClient
from ergon.kube.pace import Pace
from ergon.telemetry.metrics import Metrics
from tests.kube.server import Script, say, serving, status


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kopf looks for the API server."""
    file = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


def lead_to(script: Script, file: Path) -> None:
    cluster = {"name": "c", "cluster": {"server": script.url}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}], "current-context": "c"}
    file.write_text(yaml.safe_dump(config))


async def test_a_watch_that_fails_says_so_at_once_and_cancels_nobody_else_s_work(kubeconfig: Path) -> None:
    async with serving(status(400, "what is that?")) as script:
        lead_to(script, kubeconfig)
        others: list[asyncio.Task[bool]] = []

        def started() -> None:
            others.append(asyncio.create_task(asyncio.Event().wait()))

        began = asyncio.get_running_loop().time()
        with pytest.raises(Exception, match="what is that"):
            await watch(Cache(), EVERYWHERE, (), lambda kind, anew: None, asyncio.Event(), started)
        assert asyncio.get_running_loop().time() - began < 15
        (other,) = others
        assert not other.done()
        other.cancel()
    gc.collect()  # kopf leaves failed tasks of its own behind; asyncio tells of them when they are collected


async def test_a_watch_that_is_stopped_ends_without_an_error(kubeconfig: Path) -> None:
    async with serving(say(200)) as script:
        lead_to(script, kubeconfig)
        stop = asyncio.Event()
        await asyncio.wait_for(watch(Cache(), EVERYWHERE, (), lambda kind, anew: None, stop, stop.set), 10)


@pytest.mark.parametrize(
    ("answer", "there"),
    [(say(200, {"items": []}), True), (status(404, "no such kind"), False), (status(503, "later"), None)],
)
async def test_only_the_api_server_s_word_tells_whether_there_is_a_gateway(answer: object, there: bool | None) -> None:
    async with serving(answer) as script:  # type: ignore[arg-type]
        client = KubeClient(script.configuration(), pace=Pace(attempt_seconds=3.0, total_seconds=3.0))
        process = Process(Settings(), "127.0.0.1", 0, client, Metrics())
        assert await process._gateway_is_there() is there
        await client.close()


async def test_a_kind_that_is_missing_is_named_with_what_installs_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "MISSING_SECONDS", 0.01)
    routes = tuple(watched for watched in EVERYWHERE if watched.kind == "TaskRoute")
    missing = status(404, "the server could not find the requested resource")
    async with serving(missing, missing, say(200, {"items": []})) as script:
        client = KubeClient(script.configuration(), pace=Pace(attempt_seconds=3.0, total_seconds=3.0))
        process = Process(Settings(), "127.0.0.1", 0, client, Metrics())
        await process._prime(routes)
        await client.close()
    (said,) = caplog.messages
    assert "taskroutes.ergon.dev" in said
    assert "kubectl apply --server-side -k manifests/crds" in said
    assert process._ready() == said  # what /readyz says meanwhile


def test_kopf_writes_nothing_and_notices_a_silent_watch() -> None:
    chosen = settings(EVERYWHERE)
    assert not chosen.posting.enabled
    assert chosen.peering.standalone
    assert chosen.watching.inactivity_timeout <= 75
