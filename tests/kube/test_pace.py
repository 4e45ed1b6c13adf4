"""The rate limit, in virtual time."""

import asyncio

import pytest

from ergon.kube.pace import TokenBucket


@pytest.mark.looptime
async def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    bucket, clock = TokenBucket(rate=10, burst=5), asyncio.get_running_loop().time
    began, times = clock(), []
    for _ in range(15):
        await bucket.take()
        times.append(clock() - began)
    assert times[4] == pytest.approx(0)
    assert times[14] == pytest.approx(1.0, abs=0.01)


@pytest.mark.looptime
async def test_waiters_go_in_the_order_they_came() -> None:
    bucket, order = TokenBucket(rate=10, burst=1), []

    async def one(number: int) -> None:
        await bucket.take()
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(8)))
    assert order == list(range(8))


@pytest.mark.looptime
async def test_who_gives_up_waiting_takes_nothing() -> None:
    bucket, clock = TokenBucket(rate=1, burst=1), asyncio.get_running_loop().time
    await bucket.take()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bucket.take(), 0.1)
    began = clock()
    await bucket.take()
    assert clock() - began <= 1.01


@pytest.mark.looptime
async def test_rest_fills_the_bucket_no_further_than_its_size() -> None:
    bucket, clock = TokenBucket(rate=10, burst=3), asyncio.get_running_loop().time
    await bucket.take()
    await asyncio.sleep(100)
    began = clock()
    for _ in range(4):
        await bucket.take()
    assert clock() - began == pytest.approx(0.1, abs=0.01)
