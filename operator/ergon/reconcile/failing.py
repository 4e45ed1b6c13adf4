"""What keeps failing on a server: when another server is tried, and when none would do any better."""

from collections.abc import Mapping, Set

from ergon.fleet.types import ModelKey, ServerKey
from ergon.reconcile.observed import Failure

TRIES, PASSING_TRIES = 3, 6
"""On one server before another is tried: over 15 s, and over half a minute where the reason is likely gone in a moment."""

ELSEWHERE_ENOUGH = 2
"""Servers on which a revision keeps failing that is loaded nowhere: the reason is its own, and no third is tried."""

_OF_THE_MODEL = {
    "SourceNotFound",
    "AccessDenied",
    "SecretInvalid",
    "SourceNotAllowed",
    "SourceInvalid",
    "ConfigurationInvalid",
    "ServerRefusesKey",
    "LoadHung",
}
"""What no other server would make better, or (a hang) is counted by itself."""

Revision = tuple[ModelKey, str]


def keeps_failing(failure: Failure, *, passing: bool) -> bool:
    """Whether it has failed often enough on one server, and for a reason that may be the server's."""
    return failure.reason not in _OF_THE_MODEL and failure.attempts >= (PASSING_TRIES if passing else TRIES)


def better_elsewhere(
    failing: Mapping[Revision, Set[ServerKey]], loaded: Set[Revision]
) -> frozenset[tuple[ModelKey, str, ServerKey]]:
    """What should be tried on another server.

    What fails on several and is `loaded` on none stays where it is, so that it does not wander for ever.
    """
    return frozenset(
        (*revision, server)
        for revision, servers in failing.items()
        if len(servers) < ELSEWHERE_ENOUGH or revision in loaded
        for server in servers
    )
