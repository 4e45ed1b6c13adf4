"""A pool, a variant, models: what the tests of this room need of a fleet."""

from typing import Any

from ergon.fleet.types import Fleet, ModelKey, OperatingPoint, Pool, Source, Variant

A, B = ModelKey("team-a", "names"), ModelKey("team-b", "dates")


def pool(name: str = "l4", **fields: Any) -> Pool:
    """A pool of L4 servers."""
    said: dict[str, Any] = {
        "uid": "u",
        "generation": 1,
        "labels": {"kind": name},
        "accelerator_class": "gpu",
        "product": "NVIDIA-L4",
        "memory_bytes": 2**34,
        "max_models": None,
        "backends": frozenset(),
        "servers_min": 0,
        "servers_max": 8,
        "namespaces": None,
        "max_priority": 1000,
        "idle_watts": 16.0,
        "busy_watts": 72.0,
        "host_watts": 0.0,
        "drain_timeout_seconds": 600.0,
    }
    return Pool(name=name, **{**said, **fields})


def variant(*points: OperatingPoint) -> Variant:
    """A variant with these points."""
    return Variant("v", frozenset({"gpu"}), "onnxruntime", Source("file:///x", "1", None), 1, 0.9, 60.0, "{}", "c", "l", points)


def fleet(*pools: Pool) -> Fleet:
    """A fleet of these pools; each namespace has only its name label."""
    return Fleet(pools, (), {}, "ergon-system")
