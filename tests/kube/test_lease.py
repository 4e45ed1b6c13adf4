"""The Lease in a real API server: one leads, another takes over, and who was paused does not act."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ergon.kube.client import KubeClient
from ergon.kube.election import Timing
from ergon.kube.lease import LeaderElection
from tests.kube.cluster import Cluster

pytestmark = pytest.mark.cluster
QUICK = Timing(lease_seconds=3, renew_seconds=2, retry_seconds=0.3)

CANDIDATE = """
import asyncio, sys
from pathlib import Path
from ergon.kube.client import KubeClient
from ergon.kube.election import Timing
from ergon.kube.lease import LeaderElection

async def main():
    kubeconfig, namespace, identity = sys.argv[1:]
    async with await KubeClient.from_environment(kubeconfig=Path(kubeconfig)) as client:
        election = LeaderElection(client, namespace, "ergon", identity, timing=Timing(3, 2, 0.3))
        term = asyncio.create_task(election.run())
        await election.leading.wait()
        print("leads", election.outlives(0.1), flush=True)
        await term
        print("over", election.outlives(0.0), flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def candidate(cluster: Cluster, namespace: str, identity: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A candidate in a process of its own, which can be paused."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", CANDIDATE, str(cluster.kubeconfig), namespace, identity),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process, seconds: float) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), seconds)).decode().strip()


async def holder(kube: KubeClient, namespace: str) -> str:
    lease = await kube.get("coordination.k8s.io/v1", "Lease", "ergon", namespace)
    return str(lease["spec"]["holderIdentity"])


async def test_a_paused_leader_is_followed_and_does_not_act_when_it_wakes(
    cluster: Cluster, kube: KubeClient, namespace: str
) -> None:
    async with candidate(cluster, namespace, "first") as first:
        assert await line(first, 20) == "leads True"
        async with candidate(cluster, namespace, "second") as second:
            os.kill(first.pid, signal.SIGSTOP)
            try:
                assert await line(second, 20) == "leads True"
                assert await holder(kube, namespace) == "second"
            finally:
                os.kill(first.pid, signal.SIGCONT)
            assert await line(first, 10) == "over False"
            assert await holder(kube, namespace) == "second"


async def test_a_lease_that_is_given_back_is_taken_at_once(kube: KubeClient, namespace: str) -> None:
    elections = [LeaderElection(kube, namespace, "ergon", name, timing=QUICK) for name in ("first", "second")]
    terms = [asyncio.create_task(elections[0].run())]
    await asyncio.wait_for(elections[0].leading.wait(), 10)
    terms.append(asyncio.create_task(elections[1].run()))
    await asyncio.sleep(QUICK.retry_seconds * 2)
    assert not elections[1].leading.is_set()
    clock = asyncio.get_running_loop().time
    began = clock()
    await elections[0].stop()
    assert not elections[0].outlives(0)
    await asyncio.wait_for(elections[1].leading.wait(), 10)
    assert clock() - began < QUICK.lease_seconds
    lease = await kube.get("coordination.k8s.io/v1", "Lease", "ergon", namespace)
    assert lease["spec"]["leaseTransitions"] == 1
    await elections[1].stop()
    assert await holder(kube, namespace) == ""
    await asyncio.gather(*terms)


async def test_another_hand_in_the_lease_does_not_end_a_term(kube: KubeClient, namespace: str) -> None:
    election = LeaderElection(kube, namespace, "ergon", "first", timing=QUICK)
    term = asyncio.create_task(election.run())
    await asyncio.wait_for(election.leading.wait(), 10)
    for number in range(5):
        patch = {"metadata": {"annotations": {"touched": str(number)}}}
        await kube.patch_merge("coordination.k8s.io/v1", "Lease", "ergon", namespace, patch)
        await asyncio.sleep(QUICK.retry_seconds)
    assert not term.done()
    assert election.outlives(0.1)
    await election.stop()
    await term


async def test_a_leader_whose_lease_was_taken_ends(kube: KubeClient, namespace: str) -> None:
    election = LeaderElection(kube, namespace, "ergon", "first", timing=QUICK)
    term = asyncio.create_task(election.run())
    await asyncio.wait_for(election.leading.wait(), 10)
    await kube.patch_merge("coordination.k8s.io/v1", "Lease", "ergon", namespace, {"spec": {"holderIdentity": "thief"}})
    await asyncio.wait_for(term, 10)
    assert not election.leading.is_set()
    assert not election.outlives(0)
    assert await holder(kube, namespace) == "thief"
    await election.stop()


async def test_a_candidate_can_stop_before_it_leads(kube: KubeClient, namespace: str) -> None:
    leader, waiting = (LeaderElection(kube, namespace, "ergon", name, timing=QUICK) for name in ("first", "second"))
    terms = [asyncio.create_task(leader.run())]
    await asyncio.wait_for(leader.leading.wait(), 10)
    terms.append(asyncio.create_task(waiting.run()))
    await asyncio.sleep(0)  # it has begun
    await asyncio.wait_for(waiting.stop(), 5)
    assert await holder(kube, namespace) == "first"
    await leader.stop()
    await asyncio.gather(*terms)
