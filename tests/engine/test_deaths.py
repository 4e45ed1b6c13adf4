"""Models whose process died: told from models that merely fail, repaired, and no other model loses its server for them."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ergon.engine import jobs
from ergon.engine.effects import Effects
from ergon.engine.server import LAST_REPAIR_PAUSE_SECONDS, ServerAgent
from ergon.fleet.types import ModelKey
from ergon.reconcile.observed import IndexState
from ergon.triton.observed import ModelStatistics
from tests.engine.test_orphans import agent
from tests.planning.test_planner import variant

KEY, OTHER = ModelKey("team", "m"), ModelKey("team", "other")
NOTHING = ModelStatistics(KEY.served_name, 0, 0, 0, 0, 0, 0, 0, (), 0)
DEAD = replace(NOTHING, failure_count=3, failure_ns=3_000_000_000)
"""As measured: each request fails after 1.0 s, none counts as an execution."""


def page(backend: int, rejected: int = 0) -> str:
    """Triton's page, as far as failures are told there."""
    told = {"BACKEND": backend, "REJECTED": rejected, "CANCELED": 0, "OTHER": 0}
    line = f'nv_inference_request_failure{{model="{KEY.served_name}",reason="%s",version="1"}} %d\n'
    return "".join(line % said for said in told.items())


def standing(*more: ModelKey) -> ServerAgent:
    """A server on which those models are loaded and have been read once."""
    server = agent()
    for key in (KEY, *more):
        facts = server.fact(key)
        facts.index, facts.loaded_revision = IndexState.READY, "l-v"
    server._take_statistics({KEY.served_name: NOTHING}, page(0), 0.0)
    return server


@pytest.mark.parametrize(
    ("new", "backend", "rejected", "dead"),
    [
        (DEAD, 3, 0, True),
        (replace(DEAD, failure_ns=30_000_000_000), 3, 0, True),
        (replace(DEAD, failure_ns=3_000_000), 3, 0, False),
        (replace(DEAD, execution_count=3, failure_ns=6_000_000_000), 3, 0, False),
        (replace(DEAD, success_count=1), 3, 0, False),
        (replace(DEAD, failure_ns=6_000_000_000), 0, 3, False),
    ],
    ids=["dead", "dead, with a queue", "raises at once", "raises after 2 s", "answers", "its queue's timeouts"],
)
def test_a_dead_process_is_told_from_a_model_that_fails(new: ModelStatistics, backend: int, rejected: int, dead: bool) -> None:
    server = standing()
    server._take_statistics({KEY.served_name: new}, page(backend, rejected), 5.0)
    assert server.facts[KEY].healthy is not dead


def test_a_page_that_cannot_be_read_proves_nothing() -> None:
    server = standing()
    server._take_statistics({KEY.served_name: DEAD}, "", 5.0)
    assert server.facts[KEY].healthy


class Triton:
    """Takes unloads."""

    async def unload(self, name: str, seconds: float) -> None:
        """All is well."""


async def died_and_repaired(server: ServerAgent, monkeypatch: pytest.MonkeyPatch, answered: int = 0) -> float:
    """One death, after so many answers, and its repair, which ends as a load that succeeded; the pause before it."""
    unused: Any = None
    effects = Effects(unused, lambda seconds: True, unused, unused, unused, unused)
    server.triton = Triton()  # type: ignore[assignment]

    async def loaded(agent: ServerAgent, key: ModelKey, *_: object) -> None:
        agent.fact(key).healthy, agent.fact(key).failure, agent.fact(key).loaded_revision = True, None, "l-v"

    monkeypatch.setattr(jobs, "bring_up", loaded)
    facts, now = server.fact(KEY), asyncio.get_running_loop().time()
    before = replace(NOTHING, success_count=answered)
    server._take_statistics({KEY.served_name: before}, page(0), now)
    server._take_statistics({KEY.served_name: replace(DEAD, success_count=answered)}, page(3), now)
    assert not facts.healthy
    pause = (facts.failure.retry_at_seconds or 0.0) - now if facts.failure is not None else 0.0
    await asyncio.sleep(pause)
    await jobs.repair(server, KEY, variant(), effects)
    return pause


@pytest.mark.looptime
async def test_a_model_that_keeps_dying_is_repaired_after_growing_pauses_and_costs_no_other_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = standing(OTHER)
    pauses = [await died_and_repaired(server, monkeypatch) for _ in range(9)]
    assert pauses == [0, 5, 10, 20, 40, 80, 160, LAST_REPAIR_PAUSE_SECONDS, LAST_REPAIR_PAUSE_SECONDS]
    assert server.condemned == ""
    await asyncio.sleep(600)
    assert await died_and_repaired(server, monkeypatch) == 0


@pytest.mark.looptime
async def test_a_pod_on_which_repairs_are_in_vain_and_nothing_else_answers_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    server = standing(OTHER)
    server.fact(OTHER).healthy = False
    await died_and_repaired(server, monkeypatch)
    await died_and_repaired(server, monkeypatch, answered=7)
    assert server.condemned == "", "the repair has helped for a while"
    await died_and_repaired(server, monkeypatch)
    assert "team/m died again" in server.condemned
