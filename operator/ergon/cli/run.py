"""`ergon run`: the operator itself."""

import asyncio
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from ergon.cli.logs import LogFormat, LogLevel, begin
from ergon.kube.builders.settings import GatewaySettings, Scraper, ServerSettings

if TYPE_CHECKING:
    from ergon.engine.settings import Settings, WakingSettings
    from ergon.kube.pace import Pace

_DEFAULTS = ServerSettings()


def run(
    namespace: Annotated[
        str, typer.Option(envvar="ERGON_NAMESPACE", help="The operator's namespace: its servers and its Lease are there.")
    ] = "ergon-system",
    watch_namespace: Annotated[
        list[str] | None,
        typer.Option(envvar="ERGON_WATCH_NAMESPACES", help="Serve models of this namespace only; may be repeated. Default: all."),
    ] = None,
    gateway: Annotated[
        str,
        typer.Option(
            envvar="ERGON_GATEWAY_REF", help="namespace/name of the Gateway that models are routed through; empty: none."
        ),
    ] = "",
    store_image: Annotated[
        str, typer.Option(envvar="ERGON_STORE_IMAGE", help="Image of the model store (rclone).")
    ] = _DEFAULTS.store_image,
    scraper_namespace: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ERGON_SCRAPER_NAMESPACES",
            help="Let pods of this namespace, such as Prometheus', read Triton's metrics on the servers (port 8002); may be "
            "repeated. Default: the operator alone.",
        ),
    ] = None,
    connection_age: Annotated[
        int,
        typer.Option(
            envvar="ERGON_CONNECTION_AGE",
            min=1,
            help="Seconds after which Triton has gRPC clients connect anew. A replica that leaves traffic is unloaded after so "
            "long and 10 s without a request.",
        ),
    ] = 60,
    improve_after: Annotated[
        float,
        typer.Option(
            envvar="ERGON_IMPROVE_AFTER",
            min=0,
            help="Seconds without a change before models that stand well are moved to where the fleet takes less. What is short "
            "is mended at once.",
        ),
    ] = 60,
    plan_every: Annotated[
        float,
        typer.Option(
            envvar="ERGON_PLAN_EVERY",
            min=5,
            help="Seconds between two plans for the demand as it is foreseen. What is short is planned for within ten.",
        ),
    ] = 60,
    stabilise: Annotated[
        float,
        typer.Option(
            envvar="ERGON_STABILISE", min=0, help="Seconds for which a lower demand must last before replicas are taken away."
        ),
    ] = 300,
    prometheus_url: Annotated[
        str,
        typer.Option(
            envvar="ERGON_PROMETHEUS_URL",
            help="Prometheus that answers the queries of pools for power and carbon intensity, such as http://prometheus:9090.",
        ),
    ] = "",
    gateway_service: Annotated[
        str,
        typer.Option(
            envvar="ERGON_GATEWAY_SERVICE",
            help="Service of `ergon gateway` in the operator's namespace, which serves TaskRoutes and wakes models; empty: none, "
            "and no model sleeps.",
        ),
    ] = "",
    gateway_account: Annotated[
        str, typer.Option(envvar="ERGON_GATEWAY_ACCOUNT", help="ServiceAccount of `ergon gateway`; default: its Service's name.")
    ] = "",
    leader_service: Annotated[
        str, typer.Option(envvar="ERGON_LEADER_SERVICE", help="Service without selector that the leader puts itself behind.")
    ] = "ergon-leader",
    wake_address: Annotated[
        str,
        typer.Option(envvar="ERGON_WAKE_ADDRESS", help="IP address at which gateways reach this operator; default: --address."),
    ] = "",
    wake_port: Annotated[int, typer.Option(envvar="ERGON_WAKE_PORT", help="Port at which gateways ask to wake a model.")] = 8082,
    hint_zones: Annotated[bool, typer.Option(envvar="ERGON_HINT_ZONES", help="Keep a model's traffic within its zone.")] = False,
    allow_private_addresses: Annotated[
        bool,
        typer.Option(
            envvar="ERGON_ALLOW_PRIVATE_ADDRESSES",
            help="Allow model sources at loopback, link-local and API-server addresses too; 10.0.0.0/8 and the like always are.",
        ),
    ] = False,
    identity: Annotated[
        str,
        typer.Option(
            envvar="ERGON_IDENTITY",
            help="Name in the Lease and in events, no two at once alike: one that starts anew under its name leads at once. "
            "Default: host and pid.",
        ),
    ] = "",
    lead: Annotated[
        bool,
        typer.Option("--lease/--no-lease", envvar="ERGON_LEASE", help="Lead by a Lease; without one, run only one operator."),
    ] = True,
    address: Annotated[str, typer.Option(envvar="ERGON_ADDRESS", help="Address of /livez, /readyz and /metrics.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(envvar="ERGON_PORT", help="Port of /livez, /readyz and /metrics.")] = 8080,
    qps: Annotated[float, typer.Option(envvar="ERGON_QPS", min=1, help="Calls a second to the API server, sustained.")] = 600,
    burst: Annotated[int, typer.Option(envvar="ERGON_BURST", min=1, help="Calls to the API server at once.")] = 1200,
    log_format: LogFormat = "json",
    log_level: LogLevel = "info",
) -> None:
    """Run the operator: watch pools and models, and bring the cluster to what they say."""
    begin(log_format, log_level)
    # Imported here, since every other command would else wait a second for what only the operator needs.
    from ergon.engine.settings import Settings
    from ergon.kube.pace import Pace

    settings = Settings(
        identity=identity or f"{socket.gethostname()}-{os.getpid()}",
        watch_namespaces=tuple(watch_namespace or ()),
        gateway=_gateway(gateway),
        hint_zones=hint_zones,
        improve_after_seconds=improve_after,
        plan_seconds=plan_every,
        stabilise_seconds=stabilise,
        prometheus_url=prometheus_url or None,
        waking=_waking(gateway_service, gateway_account, leader_service, wake_address or address, wake_port),
        allow_private_addresses=allow_private_addresses,
        api_server_addresses=tuple(a for a in (os.environ.get("KUBERNETES_SERVICE_HOST"),) if a),
        servers=ServerSettings(
            namespace=namespace,
            store_image=store_image,
            connection_age_seconds=connection_age,
            scrapers=tuple(Scraper({"kubernetes.io/metadata.name": name}) for name in scraper_namespace or ()),
        ),
    )
    raise typer.Exit(asyncio.run(_run(settings, address, port, Pace(queries_per_second=qps, burst=burst), lead)))


def _waking(service: str, account: str, leader_service: str, address: str, port: int) -> "WakingSettings | None":
    if not service:
        return None
    from ergon.engine.settings import WakingSettings

    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise typer.BadParameter(f"{address!r} is no IP address", param_hint="--wake-address") from None
    if parsed.is_unspecified or parsed.is_loopback:
        raise typer.BadParameter(
            f"gateways do not reach {address}: give this operator's own address, in a pod $(POD_IP)", param_hint="--wake-address"
        )
    return WakingSettings(service, account or service, leader_service, address, port)


def _gateway(reference: str) -> GatewaySettings | None:
    if not reference:
        return None
    namespace, slash, name = reference.partition("/")
    if not slash or not namespace or not name:
        raise typer.BadParameter(f"{reference!r} is not namespace/name", param_hint="--gateway")
    return GatewaySettings(name=name, namespace=namespace)


async def _run(settings: "Settings", address: str, port: int, pace: "Pace", lead: bool) -> int:
    from ergon.edge.process import Process
    from ergon.kube.client import KubeClient
    from ergon.kube.errors import KubeError
    from ergon.telemetry.metrics import Metrics

    metrics = Metrics()
    try:
        client = await KubeClient.from_environment(pace=pace, observer=metrics.observe_call)
    except KubeError as error:
        typer.echo(f"ergon: {error}", err=True)
        return 1
    return await Process(settings, address, port, client, metrics, lead).run()
