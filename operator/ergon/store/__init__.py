"""Adapter to the model store beside each Triton (rclone's remote control): fetch, progress, cancel, rename, list, remove.

In: a typed source and a target name. Out: plain values, or one documented error (`errors.StoreError`). No decisions.
"""

from ergon.store.client import ModelStore
from ergon.store.errors import (
    AccessDenied,
    CommandFailed,
    DiskFull,
    FetchFailed,
    JobLost,
    ModelDirectoryInvalid,
    SourceInvalid,
    SourceNotAllowed,
    SourceNotFound,
    StoreError,
    StoreUnavailable,
)
from ergon.store.observed import FetchJob, FetchProgress, Size
from ergon.store.sources import Source, parse_source

__all__ = [
    "AccessDenied",
    "CommandFailed",
    "DiskFull",
    "FetchFailed",
    "FetchJob",
    "FetchProgress",
    "JobLost",
    "ModelDirectoryInvalid",
    "ModelStore",
    "Size",
    "Source",
    "SourceInvalid",
    "SourceNotAllowed",
    "SourceNotFound",
    "StoreError",
    "StoreUnavailable",
    "parse_source",
]
