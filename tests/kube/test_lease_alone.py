"""A candidate for the Lease against a server that holds one: silence, and clocks that jump."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

import ergon.kube.lease
from ergon.kube.client import KubeClient
from ergon.kube.election import Timing
from ergon.kube.lease import LeaderElection
from tests.kube.server import Answer, Request, Script, serving, silence

QUICK = Timing(lease_seconds=1.5, renew_seconds=0.8, retry_seconds=0.1)


class LeaseHolder:
    """A server of one Lease, which can fall silent."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.writes = 0
        self.silent = False

    def __call__(self, request: Request) -> Answer:
        """Answers like an API server would."""
        if self.silent:
            return silence(request)
        if request.method == "GET":
            return web.json_response(self.lease or {"message": "none"}, status=200 if self.lease else 404)
        held = (self.lease or {}).get("metadata", {}).get("resourceVersion", "")
        if request.body["metadata"].get("resourceVersion", "") != held:
            return web.json_response({"message": "changed meanwhile"}, status=409)
        self.writes += 1
        metadata = {**request.body["metadata"], "resourceVersion": str(self.writes)}
        self.lease = {**request.body, "metadata": metadata}
        return web.json_response(self.lease)


class JumpingClock:
    """In the place of `datetime`: now, and so many hours away."""

    hours = 0.0

    @classmethod
    def now(cls, zone: Any) -> datetime:
        """The wall clock, as somebody has set it."""
        return datetime.now(zone) + timedelta(hours=cls.hours)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[JumpingClock]:
    """The wall clock that candidates write into the Lease."""
    monkeypatch.setattr(ergon.kube.lease, "datetime", JumpingClock)
    monkeypatch.setattr(JumpingClock, "hours", 0.0)
    return JumpingClock


def candidate(script: Script, identity: str) -> tuple[KubeClient, LeaderElection]:
    client = KubeClient(script.configuration())
    return client, LeaderElection(client, "default", "ergon", identity, timing=QUICK)


async def written(holder: LeaseHolder, times: int) -> None:
    """Wait until the Lease was written so many times more."""
    wanted = holder.writes + times
    while holder.writes < wanted:  # noqa: ASYNC110 - the server is no part of this event loop's waiting
        await asyncio.sleep(0.02)


async def test_a_leader_that_gets_no_answer_ends_its_term_in_time() -> None:
    holder = LeaseHolder()
    async with serving(holder) as script:
        client, election = candidate(script, "me")
        term = asyncio.create_task(election.run())
        await election.leading.wait()
        holder.silent = True
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(term, 3)
        assert asyncio.get_running_loop().time() - began < QUICK.lease_seconds
        assert not election.outlives(0)
        await client.close()


@pytest.mark.parametrize("hours", [1.0, -1.0, 24.0, -24.0])
async def test_a_step_of_the_leader_s_clock_changes_no_leadership(hours: float, clock: type[JumpingClock]) -> None:
    holder = LeaseHolder()
    async with serving(holder) as script:
        client, leader = candidate(script, "leader")
        term = asyncio.create_task(leader.run())
        await leader.leading.wait()
        other_client, other = candidate(script, "other")
        waiting = asyncio.create_task(other.run())
        await written(holder, 3)
        clock.hours = hours
        # For longer than a Lease lasts, so that one judged by the times in it would have run out, or never would.
        await written(holder, 20)
        assert leader.outlives(0.2)
        assert not term.done()
        assert not other.leading.is_set()
        assert holder.lease is not None
        written_at = datetime.fromisoformat(holder.lease["spec"]["renewTime"])
        assert abs(written_at - datetime.now(UTC) - timedelta(hours=hours)) < timedelta(minutes=1)
        for election, task in ((other, waiting), (leader, term)):
            await election.stop()
            await task
        await client.close()
        await other_client.close()


@pytest.mark.parametrize("hours", [1.0, -1.0])
async def test_a_lease_from_another_time_is_waited_for_and_then_taken(hours: float, clock: type[JumpingClock]) -> None:
    """Its holder died, and its clock stood wrong: what counts is how long it was seen unchanged here."""
    holder = LeaseHolder()
    async with serving(holder) as script:
        clock.hours = hours
        first_client, first = candidate(script, "first")
        term = asyncio.create_task(first.run())
        await first.leading.wait()
        term.cancel()
        await asyncio.gather(term, return_exceptions=True)
        clock.hours = 0.0
        client, second = candidate(script, "second")
        began = asyncio.get_running_loop().time()
        term = asyncio.create_task(second.run())
        await asyncio.wait_for(second.leading.wait(), 4)
        assert asyncio.get_running_loop().time() - began >= QUICK.lease_seconds
        await second.stop()
        await term
        await client.close()
        await first_client.close()
