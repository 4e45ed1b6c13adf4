"""The errors of this room, and Triton's own error texts cut down to what a person can act on."""

import re

_REASON_CHARACTERS = 300
_LOAD_PREFIX = re.compile(r"^load failed for model '[^']*':\s*(version \S+ is at \w+ state:\s*)?", re.IGNORECASE)
_STATUS_PREFIX = re.compile(r"^(Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown):\s*", re.IGNORECASE)
_TRACEBACK_PLACE = re.compile(r"^\s*\S*?([\w.-]+\.py)\((\d+)\):", re.MULTILINE)


class TritonError(Exception):
    """What every error of this room is. The text is one line for a person."""


class ServerUnavailable(TritonError):
    """The server does not answer: not started, gone, or too slow for a call that only reads. Try again later."""


class WrongKey(TritonError):
    """The server refuses the key of its pool. Trying again does not help until key or server changes."""


class OutcomeUnknown(TritonError):
    """A load or an unload did not answer in time. It goes on in the server: read the repository index for what became of it."""


class LoadRefused(TritonError):
    """Triton refused or failed to load this model as it is; the same revision and configuration will fail again.

    `reason` is Triton's reason in one line. A revision that was loaded before goes on serving.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ModelNotServed(TritonError):
    """The server does not serve this model, so it has no configuration to read."""


class CallFailed(TritonError):
    """Triton answered with an error that none of the others describes."""


class ConfigurationInvalid(TritonError):
    """A model's config.pbtxt, or the `config` laid over it, cannot be used. The text names the field and what to do."""


def one_line(text: str) -> str:
    """Triton's error text as one line: its first line without prefixes, and the place in model.py where it was raised."""
    lines = text.strip().splitlines() or [""]
    reason = _STATUS_PREFIX.sub("", _LOAD_PREFIX.sub("", lines[0])).strip(" ;")
    place = _TRACEBACK_PLACE.search(text)
    if place and place[1] not in reason:
        reason = f"{reason} ({place[1]} line {place[2]})"
    return reason if len(reason) <= _REASON_CHARACTERS else reason[: _REASON_CHARACTERS - 1] + "…"
