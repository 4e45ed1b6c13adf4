"""What of a request's and an answer's headers is passed on: all but what belongs to one connection, or to the gateway. Pure."""

from collections.abc import Iterable

from ergon.api.quantities import duration_seconds
from ergon.gateway.cascade import Wish
from ergon.gateway.failures import Failure, Kind

Headers = list[tuple[bytes, bytes]]
TIMEOUT, ESCALATION = "ergon-timeout", "ergon-escalation"
_OF_A_CONNECTION = frozenset(
    (
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_OF_THE_GATEWAY = b"ergon-"


def to_server(headers: Iterable[tuple[bytes, bytes]], *, plain: bool = False) -> Headers:
    """A request's headers as a server gets them. `plain`: its answer is to be read here, so it must not be compressed."""
    return [(name, value) for name, value in _passed(headers) if not (plain and name.lower() == b"accept-encoding")]


def to_client(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """An answer's headers as the client gets them."""
    return _passed(headers)


def _passed(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Without what belongs to one connection, by its name or because a Connection header names it, or to the gateway."""
    given = [(name.lower(), name, value) for name, value in headers]
    dropped = _OF_A_CONNECTION
    for low, _, value in given:
        if low == b"connection":
            dropped = dropped | {nominated.strip().lower() for nominated in value.split(b",")}
    return [(name, value) for low, name, value in given if low not in dropped and not low.startswith(_OF_THE_GATEWAY)]


def timeout_seconds(text: str | None, default_seconds: float, longest_seconds: float) -> float:
    """How long a request may take. Raises Failure where the header cannot be read."""
    if text is None:
        return default_seconds
    try:
        seconds = duration_seconds(text.strip())
    except ValueError as error:
        raise Failure(Kind.BAD_REQUEST, f"{TIMEOUT}: {error}") from None
    if seconds <= 0:
        raise Failure(Kind.BAD_REQUEST, f"{TIMEOUT}: must be above 0")
    return min(seconds, longest_seconds)


def wish(text: str | None) -> Wish:
    """What the client wants of escalation. Raises Failure for a word that is none."""
    if not text:
        return Wish.BY_RULES
    try:
        return Wish(text.strip().lower())
    except ValueError:
        raise Failure(Kind.BAD_REQUEST, f"{ESCALATION}: write forbid or force") from None
