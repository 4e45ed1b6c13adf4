"""Rules that one object can be judged by, each said once: in CEL for the API server, in Python for files read without one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """`cel` sees the value as `self`, `holds` sees the parsed one. `field` is where the message points, in YAML's spelling.

    Both must say the same; tests/api holds every rule to it against a real API server.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    field: str = ""

    def validation(self) -> dict[str, str]:
        """As an item of `x-kubernetes-validations`."""
        pointer = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.cel, "message": self.message, **pointer}


@dataclass(frozen=True)
class Transition:
    """A rule about a change, which only the API server can judge."""

    cel: str
    message: str

    def validation(self) -> dict[str, str]:
        """As an item of `x-kubernetes-validations`."""
        return {"rule": self.cel, "message": self.message}
