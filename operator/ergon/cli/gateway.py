"""`ergon gateway`: task routes, and requests that wait for sleeping models."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ergon.cli.logs import LogFormat, LogLevel, begin
from ergon.gateway.settings import Settings

if TYPE_CHECKING:
    from ergon.kube.pace import Pace

_DEFAULTS = Settings()


def gateway(
    namespace: Annotated[str, typer.Option(envvar="ERGON_NAMESPACE", help="The operator's namespace.")] = "ergon-system",
    watch_namespace: Annotated[
        list[str] | None,
        typer.Option(envvar="ERGON_WATCH_NAMESPACES", help="Serve routes of this namespace only; may be repeated. Default: all."),
    ] = None,
    wake_url: Annotated[
        str,
        typer.Option(envvar="ERGON_WAKE_URL", help="Where the operator is asked to wake a model. Default: its Service's /wake."),
    ] = "",
    wake_token_file: Annotated[
        Path | None,
        typer.Option(envvar="ERGON_WAKE_TOKEN_FILE", help="File with the token for the operator, read anew for each call."),
    ] = None,
    host: Annotated[str, typer.Option(envvar="ERGON_ADDRESS", help="Address to listen on.")] = _DEFAULTS.host,
    http_port: Annotated[int, typer.Option(help="Port of HTTP.")] = _DEFAULTS.http_port,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.")] = _DEFAULTS.grpc_port,
    health_port: Annotated[int, typer.Option(help="Port of /healthz, /readyz and /metrics.")] = _DEFAULTS.health_port,
    server_http_port: Annotated[int, typer.Option(help="HTTP port of the servers.")] = _DEFAULTS.server_http_port,
    server_grpc_port: Annotated[int, typer.Option(help="gRPC port of the servers.")] = _DEFAULTS.server_grpc_port,
    hold_seconds: Annotated[
        float, typer.Option(min=0.1, help="Deadline of a request to a model that brings none; routes have their own.")
    ] = _DEFAULTS.hold_seconds,
    max_held: Annotated[
        int, typer.Option(min=0, help="Requests that may wait for models at once; more are answered 429.")
    ] = _DEFAULTS.held_requests,
    max_held_bytes: Annotated[
        int, typer.Option(min=0, help="Bytes of bodies that may wait for models at once.")
    ] = _DEFAULTS.held_bytes,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests under way at once; more are answered 503.")
    ] = _DEFAULTS.requests_at_once,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = _DEFAULTS.body_bytes,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Bytes of bodies of all requests under way; more are answered 429.")
    ] = _DEFAULTS.bytes_at_once,
    max_answer_bytes: Annotated[
        int, typer.Option(min=1, help="Largest answer to a route; twice as much is held of all answers at once.")
    ] = _DEFAULTS.answer_bytes,
    body_seconds: Annotated[
        float, typer.Option(min=0.1, help="For a client to send a body, or to take a piece of an answer.")
    ] = _DEFAULTS.body_seconds,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="After SIGTERM requests are taken for so long, until Services have forgotten the pod.")
    ] = _DEFAULTS.drain_seconds,
    stop_seconds: Annotated[
        float, typer.Option(min=0, help="Then those under way have so long to end.")
    ] = _DEFAULTS.stop_seconds,
    log_format: LogFormat = "json",
    log_level: LogLevel = "info",
) -> None:
    """Run a gateway: serve task routes, and hold requests for sleeping models until they are awake."""
    begin(log_format, log_level)
    # Imported here, since every other command would else wait a second for what only the gateway needs.
    from ergon.kube.pace import Pace

    settings = Settings(
        watch_namespaces=tuple(watch_namespace or ()),
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        health_port=health_port,
        wake_url=wake_url or f"http://ergon-leader.{namespace}:8082/wake",
        wake_token_file=wake_token_file,
        server_http_port=server_http_port,
        server_grpc_port=server_grpc_port,
        hold_seconds=hold_seconds,
        held_requests=max_held,
        held_bytes=max_held_bytes,
        requests_at_once=max_requests,
        body_bytes=max_body_bytes,
        bytes_at_once=max_bytes,
        answer_bytes=max_answer_bytes,
        answers_at_once=2 * max_answer_bytes,
        body_seconds=body_seconds,
        drain_seconds=drain_seconds,
        stop_seconds=stop_seconds,
    )
    raise typer.Exit(asyncio.run(_run(settings, Pace())))


async def _run(settings: Settings, pace: "Pace") -> int:
    from ergon.gateway.process import Gateway
    from ergon.kube.client import KubeClient
    from ergon.kube.errors import KubeError

    try:
        client = await KubeClient.from_environment(pace=pace)
    except KubeError as error:
        typer.echo(f"ergon: {error}", err=True)
        return 1
    try:
        return await Gateway(settings, client).run()
    except OSError as error:
        typer.echo(f"ergon: a port cannot be bound: {error}", err=True)
        return 1
