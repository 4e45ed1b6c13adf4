"""The client against a server that fails in every way: what is retried, for how long, and what is said in the end."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ergon.kube.client import KubeClient
from ergon.kube.configuration import load_configuration
from ergon.kube.errors import Conflict, Expired, Forbidden, Invalid, KubeError, NotFound, Unavailable
from ergon.kube.pace import Pace, retry_delay_seconds
from tests.kube.server import Request, Script, hang_up, say, serving, silence, status

FAST = Pace(attempt_seconds=0.5, total_seconds=1.5, first_delay_seconds=0.01, longest_delay_seconds=0.05)
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}}


def client_of(script: Script, pace: Pace = FAST, **more: Any) -> KubeClient:
    return KubeClient(script.configuration(), pace=pace, **more)


@pytest.mark.parametrize(
    "trouble", [status(500, "etcd"), status(503, "later"), status(504, "slow"), status(429, "busy"), hang_up]
)
async def test_what_passes_is_tried_again(trouble: Any) -> None:
    async with serving(trouble, trouble, say(200, CONFIG_MAP)) as script, client_of(script) as client:
        assert await client.apply(CONFIG_MAP) == CONFIG_MAP
        assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(400, "bad"), Invalid),
        (status(401, "who"), Forbidden),
        (status(403, "no"), Forbidden),
        (status(404, "gone"), NotFound),
        (status(409, "changed"), Conflict),
        (status(410, "old"), Expired),
        (status(422, "spec.memory: Invalid value"), Invalid),
        (status(500, "failed to convert new object (default/x) to proper version: quantities must match"), Invalid),
        (status(422, 'metadata.uid: Invalid value: "b": field is immutable'), Conflict),
        (status(500, "failed to create typed patch object (default/x): .spec.foo: field not declared in schema"), Invalid),
    ],
)
async def test_what_will_not_pass_is_said_at_once(answer: Any, error: type[KubeError]) -> None:
    async with serving(answer) as script, client_of(script) as client:
        with pytest.raises(error, match="APPLY ConfigMap default/x: "):
            await client.apply(CONFIG_MAP)
        assert len(script.requests) == 1


async def test_trying_again_ends_in_time() -> None:
    async with serving(status(503, "down for good")) as script, client_of(script) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match="down for good"):
            await client.get("v1", "ConfigMap", "x", "default")
        assert asyncio.get_running_loop().time() - began < 10
        assert len(script.requests) > 5


async def test_a_call_can_be_bounded_more_tightly() -> None:
    async with serving(status(503, "down")) as script, client_of(script, Pace()) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable):
            await client.within(0.3).get("v1", "ConfigMap", "x", "default")
        assert asyncio.get_running_loop().time() - began < 5


async def test_a_server_that_hangs_is_unavailable() -> None:
    async with serving(silence) as script, client_of(script, Pace(attempt_seconds=0.1, total_seconds=0.35)) as client:
        with pytest.raises(Unavailable, match=r"no answer within 0\.1 s"):
            await client.get("v1", "ConfigMap", "x", "default")


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.15, 0.2])
async def test_limits_that_run_out_at_once_both_hold(seconds: float) -> None:
    async with serving(silence) as script, client_of(script) as client:
        async with asyncio.timeout(2):
            with pytest.raises(Unavailable, match=rf"no answer within {seconds:g} s"):
                await client.within(seconds).get("v1", "ConfigMap", "x", "default")


async def test_nobody_there_is_unavailable(unused_tcp_port: int) -> None:
    async with client_of(Script([], url=f"http://127.0.0.1:{unused_tcp_port}")) as client:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await client.get("v1", "ConfigMap", "x", "default")


async def test_a_server_that_answers_nonsense_is_unavailable() -> None:
    async with serving(lambda _: web.Response(text="<html>hello")) as script, client_of(script) as client:
        with pytest.raises(Unavailable, match="<html>hello"):
            await client.get("v1", "ConfigMap", "x", "default")


@pytest.mark.parametrize("header", ["Retry-After", "retry-after"])  # as the API server writes it, and as proxies do
async def test_the_server_s_wish_to_wait_is_honoured(header: str) -> None:
    async with serving(say(429, **{header: "1"}), say(200, CONFIG_MAP)) as script, client_of(script, Pace()) as client:
        began = asyncio.get_running_loop().time()
        await client.get("v1", "ConfigMap", "x", "default")
        assert asyncio.get_running_loop().time() - began >= 1.0


@pytest.mark.parametrize("attempt", range(12))
def test_delays_grow_to_a_limit_with_jitter(attempt: int) -> None:
    pace = Pace(first_delay_seconds=0.1, longest_delay_seconds=8.0)
    delays = [retry_delay_seconds(pace, attempt, {}, random.Random(seed)) for seed in range(50)]
    full = min(8.0, 0.1 * 2**attempt)
    assert all(full / 2 <= delay <= full for delay in delays)
    assert len(set(delays)) > 40


async def test_credentials_that_expired_are_read_anew() -> None:
    def guarded(request: Request) -> web.Response:
        good = request.headers.get("authorization") == "Bearer new"
        return web.json_response(CONFIG_MAP if good else {"message": "Unauthorized"}, status=200 if good else 401)

    async with serving(guarded) as script:

        async def reload() -> Any:
            return script.configuration(BearerToken="Bearer new")

        async with KubeClient(script.configuration(BearerToken="Bearer old"), pace=FAST, reload=reload) as client:
            assert await client.get("v1", "ConfigMap", "x", "default") == CONFIG_MAP
        assert len(script.requests) == 2


async def test_the_observer_sees_every_attempt() -> None:
    seen: list[tuple[str, str, int]] = []

    def observe(verb: str, kind: str, code: int, seconds: float) -> None:
        assert seconds >= 0
        seen.append((verb, kind, code))

    async with serving(hang_up, status(500, "x"), say(200)) as script, client_of(script, observer=observe) as client:
        await client.patch_merge("v1", "ConfigMap", "x", "default", {"data": {"a": "b"}})
    assert seen == [("PATCH", "ConfigMap", 0), ("PATCH", "ConfigMap", 500), ("PATCH", "ConfigMap", 200)]


async def test_apply_says_who_and_what_in_one_json_body() -> None:
    async with serving(say(200)) as script, client_of(script) as client:
        await client.apply(CONFIG_MAP, field_manager="ergon", force=False, dry_run=True)
        await client.apply_status({**CONFIG_MAP, "kind": "SpecializedModel", "apiVersion": "ergon.dev/v1alpha1", "status": {}})
    first, second = script.requests
    assert (first.method, first.path, first.body) == ("PATCH", "/api/v1/namespaces/default/configmaps/x", CONFIG_MAP)
    assert first.query == {"fieldManager": "ergon", "force": "false", "dryRun": "All"}
    assert first.headers["content-type"] == "application/apply-patch+yaml"
    assert second.path == "/apis/ergon.dev/v1alpha1/namespaces/default/specializedmodels/x/status"
    assert second.query == {"fieldManager": "ergon", "force": "true"}


async def test_delete_names_the_very_object_and_is_content_when_it_is_gone() -> None:
    answers = [say(200), status(404, "gone"), status(409, "the UID in the precondition does not match")]
    async with serving(*answers) as script, client_of(script) as client:
        results = [await client.delete("v1", "Pod", "p", "ns", uid="u", grace_seconds=5) for _ in answers]
    assert results == [True, False, False]
    assert script.requests[0].body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u"},
        "gracePeriodSeconds": 5,
    }


async def test_lists_are_read_page_by_page_and_from_the_start_where_the_token_expired() -> None:
    def page(request: Request) -> web.Response:
        token = request.query.get("continue")
        if token == "second" and len(script.requests) == 2:
            return web.json_response({"message": "too old"}, status=410)
        names = ["a", "b", "c"] if "limit" not in request.query else ["c"] if token else ["a", "b"]
        more = {} if token or "limit" not in request.query else {"continue": "second"}
        return web.json_response({"metadata": more, "items": [{"metadata": {"name": name}} for name in names]})

    async with serving(page) as script, client_of(script) as client:
        first = await client.list_all("v1", "Node", label_selector="a=b", chunk=2)
        second = await client.list_all("v1", "Node", chunk=2)
    assert [item["metadata"]["name"] for item in first] == [item["metadata"]["name"] for item in second] == ["a", "b", "c"]
    assert {(item["apiVersion"], item["kind"]) for item in second} == {("v1", "Node")}
    assert script.requests[0].query == {"labelSelector": "a=b", "limit": "2"}
    assert len(script.requests) == 5


def test_an_unknown_kind_is_a_bug_of_the_caller() -> None:
    from ergon.kube.resources import resource_of

    with pytest.raises(ValueError, match="does not know the kind Gizmo"):
        resource_of("v1", "Gizmo")


async def test_no_configuration_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(KubeError, match="set KUBECONFIG or pass --context") as error:
        await load_configuration()
    assert "\n" not in str(error.value)


async def test_a_context_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("{apiVersion: v1, kind: Config, clusters: [], users: [], contexts: []}")
    with pytest.raises(KubeError, match="no usable Kubernetes configuration"):
        await load_configuration(config, "elsewhere")


@pytest.mark.parametrize("text", ["", "3", "[1]", "a: [1", "{clusters: [{}]}", "contexts: 7", "current-context: [x]", "\x00"])
async def test_a_file_that_is_no_kubeconfig_is_said_in_one_line(text: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(text)
    with pytest.raises(KubeError, match=r"no usable Kubernetes configuration: .*; set KUBECONFIG or pass --context$") as error:
        await load_configuration(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        (["not-there-at-all"], "No such file or directory: 'not-there-at-all'"),
        (["false"], "process returned 1"),
        (["echo", '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {}}'], "missing token"),
    ],
)
async def test_a_plugin_that_gives_no_credentials_is_said_in_one_line(plugin: list[str], told: str, tmp_path: Path) -> None:
    runs = {"apiVersion": "client.authentication.k8s.io/v1", "command": plugin[0], "args": plugin[1:]}
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"exec": runs}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    with pytest.raises(KubeError, match=f"gives no credentials, .*{told}.*; set KUBECONFIG or pass --context$"):
        await load_configuration(tmp_path / "config")


LIST = {"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "x", "namespace": "default"}}]}


def _events(*events: Any) -> Any:
    """A watch that tells these events and ends."""
    text = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    return lambda _: web.Response(body=text)


def _changed(what: str, name: str, version: str) -> Any:
    return {"type": what, "object": {"metadata": {"name": name, "resourceVersion": version}}}


async def test_what_is_followed_is_listed_and_then_every_change_told() -> None:
    over = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
    first = _events(_changed("ADDED", "y", "6"), _changed("BOOKMARK", "", "9"))
    then = _events(_changed("DELETED", "y", "10"), over)
    async with serving(say(200, LIST), first, then) as script, client_of(script) as client:
        listed: list[Any] = []
        told = [(what, obj["metadata"]["name"]) async for what, obj in client.follow("v1", "ConfigMap", listed=listed.extend)]
        assert [obj["metadata"]["name"] for obj in listed] == ["x"]
        assert told == [("ADDED", "y"), ("DELETED", "y")]
        assert script.requests[2].query["resourceVersion"] == "9"


@pytest.mark.parametrize(("trouble", "error"), [(status(403, "no"), Forbidden), (hang_up, Unavailable)])
async def test_a_watch_that_fails_says_why(trouble: Any, error: type[KubeError]) -> None:
    async with serving(say(200, LIST), trouble) as script, client_of(script) as client:
        following = client.follow("v1", "ConfigMap", listed=lambda _: None)
        with pytest.raises(error):
            await anext(following)
