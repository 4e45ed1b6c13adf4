"""When a probe's verdict flips, what a probe asks, and how long a container waits before it starts again."""

import asyncio

import pytest
from aiohttp import web

from ergon.local.node.backoff import Backoff
from ergon.local.node.probes import ProbeSpec, Verdict, attempt, port_number


def spec(**raw: object) -> ProbeSpec:
    return ProbeSpec.of(raw)


async def no_command(command: list[str], seconds: float) -> tuple[int, str]:
    raise AssertionError(f"{command} was not asked for within {seconds}")


def test_a_verdict_flips_at_its_thresholds_only() -> None:
    verdict = Verdict(spec(successThreshold=2, failureThreshold=3), initially=False)
    seen = []
    for success in (True, True, False, False, True, False, False, False, True, True):
        verdict.add(success)
        seen.append(verdict.passing)
    assert seen == [False, True, True, True, True, True, True, False, False, True]


def test_failure_is_reached_only_in_a_row() -> None:
    verdict = Verdict(spec(failureThreshold=2), initially=True)
    for success in (False, True, False):
        verdict.add(success)
    assert not verdict.reached_failure
    verdict.add(False)
    assert verdict.reached_failure


def test_defaults_are_the_apis() -> None:
    found = spec(httpGet={"port": 80})
    assert (found.period_seconds, found.timeout_seconds, found.success_threshold, found.failure_threshold) == (10, 1, 1, 3)


def test_restarts_wait_as_the_kubelet_does() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_life_forgets_the_failures() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.after(1.0)
    assert backoff.after(601.0) == 0
    assert backoff.after(1.0) == 10


def test_a_port_may_be_named() -> None:
    container = {"ports": [{"name": "http", "containerPort": 8000}]}
    assert port_number(container, "http") == 8000
    assert port_number(container, "8001") == 8001
    with pytest.raises(OSError, match="no port named 'grpc'"):
        port_number(container, "grpc")


@pytest.mark.parametrize(
    ("path", "success", "words"), [("/ok", True, ""), ("/moved", True, ""), ("/bad", False, "statuscode: 503")]
)
async def test_http_probes_take_2xx_and_3xx(path: str, success: bool, words: str) -> None:
    application = web.Application()

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["User-Agent"].startswith("kube-probe/")
        return web.Response(status={"/ok": 200, "/moved": 302, "/bad": 503}[request.path], headers={"Location": "/elsewhere"})

    application.router.add_get(path, answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    result = await attempt(spec(httpGet={"port": port, "path": path}), {}, "127.0.0.1", no_command)
    await runner.cleanup()
    assert result[0] is success
    assert words in result[1]


async def test_tcp_probes_need_a_listener() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await attempt(spec(tcpSocket={"port": port}), {}, "127.0.0.1", no_command))[0]
    server.close()
    await server.wait_closed()
    assert not (await attempt(spec(tcpSocket={"port": port}), {}, "127.0.0.1", no_command))[0]


async def test_a_command_says_why_it_failed() -> None:
    async def execute(command: list[str], seconds: float) -> tuple[int, str]:
        return 3, f"{command[0]} within {seconds:g}\n"

    assert await attempt(spec(exec={"command": ["check"]}, timeoutSeconds=2), {}, "", execute) == (False, "check within 2")


async def test_a_probe_that_hangs_fails_in_time() -> None:
    async def execute(command: list[str], seconds: float) -> tuple[int, str]:
        await asyncio.Event().wait()
        raise AssertionError

    assert await attempt(spec(exec={"command": ["x"]}, timeoutSeconds=0.05), {}, "", execute) == (
        False,
        "no answer within 0.05 s",
    )
