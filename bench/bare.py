"""Triton's own load times: the same loads on the same server, asked by gRPC with no operator between."""

import asyncio
import time

from bench.cluster import NAMESPACE, pool_keys, server_addresses
from bench.common import BenchFailed
from bench.model_files import CONFIG
from ergon.kube.client import KubeClient
from ergon.triton.client import TritonServer
from ergon.triton.configuration import InstanceKind, compose
from ergon.triton.observed import RepositoryState

_GONE = (RepositoryState.UNAVAILABLE, RepositoryState.ABSENT)


async def bare_loads(client: KubeClient, pool_name: str, ordinal: int, names: list[str]) -> list[float]:
    """Unload each model and load it again with the configuration it had; seconds of each load. The operator must be off."""
    keys = await pool_keys(client, pool_name)
    address = (await server_addresses(client, pool_name))[ordinal]
    triton = TritonServer(f"{address}:8001", keys.admin_key)
    try:
        return [await _load_anew(triton, f"{NAMESPACE}.{name}") for name in names]
    finally:
        await triton.close()


async def _load_anew(triton: TritonServer, name: str) -> float:
    revision = (await triton.loaded(name)).revision
    config = compose(CONFIG, {}, name=name, backend="python", revision=revision or "", default_kind=InstanceKind.CPU)
    await triton.unload(name)
    await unloaded(triton, {name}, 30)
    began = time.monotonic()
    await triton.load(name, config, 60)
    return time.monotonic() - began


async def unloaded(triton: TritonServer, names: set[str], seconds: float) -> None:
    """Until Triton has none of these loaded. Raises BenchFailed after so many seconds."""
    ends_at = time.monotonic() + seconds
    while True:
        index = await triton.index()
        left = [name for name in names if name in index and index[name].state not in _GONE]
        if not left:
            return
        if time.monotonic() > ends_at:
            raise BenchFailed(f"{len(left)} models are still loaded after {seconds:g} s, first {left[0]}")
        await asyncio.sleep(0.02)
