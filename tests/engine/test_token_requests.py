"""Of a model whose work is tokens, requests are counted, too: what comes to it through routes is told in requests."""

from types import SimpleNamespace
from typing import Any

import pytest

from ergon.engine.cache import Cache
from ergon.engine.demand import DemandKeeper
from ergon.fleet.types import ModelKey, ServerKey
from ergon.reconcile.observed import IndexState
from ergon.triton.observed import ModelStatistics

POOL = {"accelerator": {"class": "cpu"}, "memory": "8Gi", "servers": {"min": 1, "max": 1}}
TALKS, TELLS = ModelKey("team", "talks"), ModelKey("team", "tells")


def model(key: ModelKey, **work: float) -> dict[str, Any]:
    point = {"accelerator": "cpu", "batch": 1, "latency": "10ms", **work}
    variant = {"name": "v", "accelerators": ["cpu"], "backend": "python", "source": {"uri": "file:///m"}, "memory": "1Mi"}
    metadata = {"namespace": key.namespace, "name": key.name, "uid": key.name, "generation": 1, "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"task": "echo", "variants": [{**variant, "profiles": [point]}]}}


def statistics(name: str, succeeded: int) -> ModelStatistics:
    return ModelStatistics(name, succeeded, succeeded, succeeded, 0, 0, succeeded * 10_000_000, 0, (), 0)


def test_requests_of_a_model_that_counts_tokens_are_those_of_the_last_seconds() -> None:
    cache, seconds = Cache(), [1000.0]
    cache.put("AcceleratorPool", {"metadata": {"name": "cpu", "uid": "p", "generation": 1}, "spec": POOL})
    cache.put("SpecializedModel", model(TALKS, tokensPerSecond=500))
    cache.put("SpecializedModel", model(TELLS, requestsPerSecond=50))
    facts = {}
    for key, record in cache.models.items():
        assert record.model is not None
        revision = record.model.variants[0].load_revision
        facts[key] = SimpleNamespace(index=IndexState.READY, loaded_revision=revision, instances=1)
    agent: Any = SimpleNamespace(key=ServerKey("cpu", 0), pod=SimpleNamespace(uid="u"), facts=facts)
    demand = DemandKeeper(cache, lambda: seconds[0], 1e9, plan_seconds=60, stabilise_seconds=300)
    succeeded = 0
    for _ in range(100):
        demand.counted(agent, {k.served_name: statistics(k.served_name, succeeded) for k in facts}, {})
        seconds[0] += 5.0
        succeeded += 20
    seconds[0] -= 5.0
    assert demand.token_requests(TALKS, 60.0) == pytest.approx(4.0)
    assert demand.token_requests(TALKS, 300.0) == pytest.approx(4.0)
    assert demand.token_requests(TELLS, 60.0) is None
    seconds[0] += 300.0
    assert demand.token_requests(TALKS, 300.0) == 0.0
    demand.forget(TALKS)
