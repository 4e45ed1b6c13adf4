"""Why a request gets no model's answer: one error, which each protocol tells in its own form. Pure."""

from enum import Enum


class Kind(Enum):
    """What went wrong: the HTTP status, the name of gRPC's code, and OpenAI's type of error."""

    BAD_REQUEST = (400, "INVALID_ARGUMENT", "invalid_request_error")
    NOT_FOUND = (404, "NOT_FOUND", "invalid_request_error")
    NOT_ALLOWED = (405, "UNIMPLEMENTED", "invalid_request_error")
    TOO_SLOW = (408, "DEADLINE_EXCEEDED", "invalid_request_error")
    TOO_LARGE = (413, "RESOURCE_EXHAUSTED", "invalid_request_error")
    TOO_MANY = (429, "RESOURCE_EXHAUSTED", "rate_limit_error")
    BROKEN = (502, "UNAVAILABLE", "server_error")
    UNAVAILABLE = (503, "UNAVAILABLE", "server_error")
    EXPIRED = (504, "DEADLINE_EXCEEDED", "server_error")

    @property
    def status(self) -> int:
        """As HTTP says it."""
        return self.value[0]

    @property
    def grpc_code(self) -> str:
        """As gRPC says it."""
        return self.value[1]

    @property
    def openai_type(self) -> str:
        """As OpenAI's API says it."""
        return self.value[2]

    @property
    def refused(self) -> bool:
        """Whether the fault is the request's, so that no other model is asked."""
        return self in _REFUSED


_REFUSED = frozenset((Kind.BAD_REQUEST, Kind.NOT_ALLOWED, Kind.TOO_SLOW, Kind.TOO_LARGE))


class Failure(Exception):
    """No answer; `str()` says why, for the caller. `retry_after_seconds`: when asking again may help."""

    def __init__(self, kind: Kind, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds
