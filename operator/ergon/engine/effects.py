"""What work on replicas needs from outside, and the errors that are its own."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ergon.engine.server import ServerAgent
from ergon.fleet.types import ModelKey, Variant
from ergon.fleet.types import Source as SourceReference
from ergon.reconcile.observed import Job, JobKind, JobPhase
from ergon.store.sources import Source
from ergon.triton.configuration import InstanceKind

CALL_SECONDS = 8.0
"""Deadline of one call to Triton: shorter than the Lease, so that a leader that lost it has nothing in flight."""


class NotLeading(Exception):
    """The Lease does not outlive the next call, so the call is not made."""


class SecretInvalid(Exception):
    """The Secret a source names is not there, may not be read, or is not of type ergon.dev/source."""


class MemoryFull(Exception):
    """A server has room for what the variant declares, and not for what it was measured to take; or holds what does not end."""


class LoadHung(Exception):
    """A load took longer than the variant's loadTimeout; nothing frees it but a new pod."""


@dataclass(frozen=True)
class Effects:
    """What jobs need from outside: credentials, permission to act, and whom to tell.

    `tell(key, kind, reason, message)` writes an event on the model. `waited`: seconds for which it was planned and no
    replica answered. `started`: told how long a model took until it was loaded, that wait included.
    """

    resolve: Callable[[ModelKey, SourceReference], Awaitable[Source]]
    may_act: Callable[[float], bool]
    changed: Callable[[ModelKey], None]
    observe: Callable[[str, float], None]
    instance_kind: Callable[[str], InstanceKind]
    tell: Callable[[ModelKey, str, str, str], None]
    waited: Callable[[ModelKey], float] = lambda key: 0.0
    started: Callable[[ModelKey, float], None] = lambda key, seconds: None


def note_phase(agent: ServerAgent, key: ModelKey, variant: Variant, phase: JobPhase, message: str, effects: Effects) -> None:
    """Say how far a bring-up has come."""
    facts = agent.fact(key)
    job = Job(JobKind.BRING_UP, variant.load_revision, phase, message)
    if facts.job != job:
        facts.job = job
        effects.changed(key)


def guard(effects: Effects) -> None:
    """Raises NotLeading where a call to Triton or the store could outlive the Lease."""
    if not effects.may_act(CALL_SECONDS):
        raise NotLeading
