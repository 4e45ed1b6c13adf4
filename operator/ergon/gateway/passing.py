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
_OF_A_CONNECTION_OR_ENCODING = _OF_A_CONNECTION | {b"accept-encoding"}
_OF_THE_GATEWAY = b"ergon-"


def to_server(headers: Iterable[tuple[bytes, bytes]], *, plain: bool = False) -> Headers:
    """A request's headers as a server gets them. `plain`: its answer is to be read here, so it must not be compressed."""
    return _passed(headers, _OF_A_CONNECTION_OR_ENCODING if plain else _OF_A_CONNECTION)


def to_client(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """An answer's headers as the client gets them."""
    return _passed(headers, _OF_A_CONNECTION)


def _passed(headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> Headers:
    """Without what belongs to one connection, by its name or because a Connection header names it, or to the gateway."""
    kept, nominated = [], b""
    for header in headers:
        low = header[0].lower()
        if low in dropped:
            if low == b"connection":
                nominated += header[1].lower() + b","
        elif not low.startswith(_OF_THE_GATEWAY):
            kept.append(header)
    if nominated:
        named = {name.strip() for name in nominated.split(b",")}
        kept = [header for header in kept if header[0].lower() not in named]
    return kept


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
