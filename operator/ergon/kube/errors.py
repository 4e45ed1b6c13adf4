"""What can go wrong when talking to the Kubernetes API, as one small hierarchy."""

from typing import Any


class KubeError(Exception):
    """A call that did not succeed. `str()` is one line that says which call, on what, and what the server said.

    `code` is the HTTP status, 0 where no answer came. `reason` is the server's CamelCase reason, empty where there is none.
    """

    def __init__(self, call: str, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(f"{call}: {message}")
        self.call = call
        self.message = message
        self.code = code
        self.reason = reason


class NotFound(KubeError):
    """The object, its namespace or its kind does not exist (404)."""


class Conflict(KubeError):
    """The object exists already, was changed meanwhile, or is another one than meant (409)."""


class Invalid(KubeError):
    """The server refuses what was sent and will go on refusing it (400, 413, 415, 422)."""


class Forbidden(KubeError):
    """The operator may not do this (401, 403): its credentials or its RBAC rules are wrong."""


class Expired(KubeError):
    """The continue token or resource version is too old (410)."""


class Unavailable(KubeError):
    """No usable answer within the time allowed (429, 5xx, connection errors). The outcome of a write is unknown."""


_BY_CODE: dict[int, type[KubeError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    429: Unavailable,
}
# What server-side apply says of a field, type or value that the schema does not take: HTTP 500 (seen with 1.36), though it
# never heals.
_MISTYPED = ("failed to create typed patch object", "failed to convert new object")
# What it says where `metadata.uid` was given and another object has the name (with HTTP 422).
_OTHER_UID = ("metadata.uid: Invalid value", "field is immutable")


def error_of(call: str, code: int, body: Any) -> KubeError:
    """The error an HTTP answer stands for; `body` is the decoded `Status` object, or text where a proxy answered."""
    status = body if isinstance(body, dict) else {}
    message = status.get("message") or (str(body)[:200] if body else "no message")
    if code == 500 and message.startswith(_MISTYPED):
        return Invalid(call, message.partition("): ")[2] or message, code=code, reason="Invalid")
    if code == 422 and all(part in message for part in _OTHER_UID):
        return Conflict(call, message, code=code, reason="Conflict")
    kind = _BY_CODE.get(code) or (Unavailable if code >= 500 else Invalid)
    return kind(call, f"{message} (HTTP {code})", code=code, reason=str(status.get("reason") or ""))
