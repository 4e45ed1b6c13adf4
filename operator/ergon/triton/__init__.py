"""Adapter to Triton Inference Server over gRPC: repository index, load and unload, statistics, configuration merging.

In: an address and a key. Out: plain values, or one documented error (`errors.TritonError`). No decisions.
"""

from ergon.triton.client import TritonServer
from ergon.triton.configuration import InstanceKind, compose
from ergon.triton.errors import (
    CallFailed,
    ConfigurationInvalid,
    LoadRefused,
    ModelNotServed,
    OutcomeUnknown,
    ServerUnavailable,
    TritonError,
    WrongKey,
)
from ergon.triton.observed import BatchStatistics, ModelState, ModelStatistics, RepositoryState, ServerMetadata

__all__ = [
    "BatchStatistics",
    "CallFailed",
    "ConfigurationInvalid",
    "InstanceKind",
    "LoadRefused",
    "ModelNotServed",
    "ModelState",
    "ModelStatistics",
    "OutcomeUnknown",
    "RepositoryState",
    "ServerMetadata",
    "ServerUnavailable",
    "TritonError",
    "TritonServer",
    "WrongKey",
    "compose",
]
