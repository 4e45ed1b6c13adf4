"""What a gateway process is told from outside. Values only."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """One gateway. Seconds are wall seconds."""

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose models and routes it serves; none: all."""
    host: str = "0.0.0.0"
    http_port: int = 8000
    grpc_port: int = 8001
    health_port: int = 8080
    wake_url: str = "http://ergon-leader.ergon-system:8082/wake"
    wake_token_file: Path | None = None
    """Holds the bearer token for the operator; read anew for each call. None: calls carry none."""
    server_http_port: int = 8000
    server_grpc_port: int = 8001
    hold_seconds: float = 30.0
    """Deadline of a request that brings none, where no route says one."""
    longest_seconds: float = 3600.0
    """No deadline is longer, whatever a client asks for."""
    held_requests: int = 10_000
    held_bytes: int = 256 << 20
    requests_at_once: int = 20_000
    body_bytes: int = 100 << 20
    bytes_at_once: int = 256 << 20
    """Of the bodies of all requests under way. Each may stand twice in memory while it is put together, answers come on top."""
    answer_bytes: int = 64 << 20
    """Largest answer of a model to a route, which is held whole: it may be judged, and another one asked."""
    answers_at_once: int = 128 << 20
    """Of all answers that are held; each may stand twice, too."""
    body_seconds: float = 30.0
    """For a client to send a whole body that is held, and to take an answer in."""
    drain_seconds: float = 5.0
    """After SIGTERM, requests are taken for so long: until then Services have forgotten this pod."""
    stop_seconds: float = 25.0
    """Then requests under way have so long to end."""
    connections: int = 1024
    """Connections at once to one server."""
