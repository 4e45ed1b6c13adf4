"""What the operator is told at start."""

from dataclasses import dataclass, field

from ergon.kube.builders import GatewaySettings, ServerSettings

WAKE_PORT = 8082


@dataclass(frozen=True, slots=True)
class WakingSettings:
    """The gateway that holds requests to sleeping models, and how it reaches the leader.

    `service`: its Service, `account`: its ServiceAccount, both in the operator's namespace. `leader_service`: the Service whose
    only endpoint is the leader, at `address` (an IP address) and `port`.
    """

    service: str
    account: str
    leader_service: str
    address: str
    port: int = WAKE_PORT

    def username(self, namespace: str) -> str:
        """Of the gateway's account, as the API server knows it."""
        return f"system:serviceaccount:{namespace}:{self.account}"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one operator process.

    `watch_namespaces`: only models in these; empty: all. `improve_after_seconds`: without a change, before models that stand
    well are moved to where they take less. `plan_seconds`: between two looks at all demand. `stabilise_seconds`: how long a
    lower demand must last before replicas go. `prometheus_url`: what answers the queries of pools; None: nothing does.
    `gateway`: the Gateway (of the Gateway API) that models are published on. `waking`: Ergon's own gateway; None: nothing sleeps.
    """

    identity: str = "ergon"
    watch_namespaces: tuple[str, ...] = ()
    gateway: GatewaySettings | None = None
    hint_zones: bool = False
    allow_private_addresses: bool = False
    api_server_addresses: tuple[str, ...] = ()
    improve_after_seconds: float = 60.0
    plan_seconds: float = 60.0
    stabilise_seconds: float = 300.0
    prometheus_url: str | None = None
    waking: WakingSettings | None = None
    servers: ServerSettings = field(default_factory=ServerSettings)

    @property
    def operator_namespace(self) -> str:
        """The namespace of the operator and its servers."""
        return self.servers.namespace

    @property
    def quiet_seconds(self) -> float:
        """How long a replica that left traffic must be without a request before it is unloaded: one connection age and 10 s."""
        return self.servers.connection_age_seconds + 10.0
