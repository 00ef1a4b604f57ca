"""Bells: none is lost, none rings for another queue, none is kept for ever."""

import asyncio
import gc

import pytest

from faststream_outbox._engine.wakeups import Wakeup, Wakeups
from tests.engine.fakes import until


async def test_a_ring_before_the_wait_ends_the_wait() -> None:
    wakeup = Wakeup()
    wakeup.ring()
    async with asyncio.timeout(1):
        await wakeup.wait(None)


async def test_a_ring_during_the_wait_ends_the_wait() -> None:
    wakeup = Wakeup()
    waiting = asyncio.create_task(wakeup.wait(None))
    await asyncio.sleep(0)
    wakeup.ring()
    async with asyncio.timeout(1):
        await waiting


async def test_it_stays_rung_until_it_is_cleared() -> None:
    wakeup = Wakeup()
    wakeup.ring()
    await wakeup.wait(None)
    assert wakeup.is_rung
    wakeup.clear()
    assert not wakeup.is_rung


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.001])
async def test_a_wait_ends_by_itself(seconds: float) -> None:
    async with asyncio.timeout(1):
        await Wakeup().wait(seconds)


async def test_a_cancellation_is_not_taken_for_the_end_of_the_wait() -> None:
    waiting = asyncio.create_task(Wakeup().wait(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_only_sleepers_of_the_queue_are_woken() -> None:
    wakeups = Wakeups()
    orders, mails, both = (
        wakeups.register(["orders"]),
        wakeups.register(["mails"]),
        wakeups.register(["orders", "mails"]),
    )
    wakeups.wake("orders")
    wakeups.wake("unknown")
    assert (orders.is_rung, mails.is_rung, both.is_rung) == (True, False, True)


async def test_all_are_woken() -> None:
    wakeups = Wakeups()
    bells = [wakeups.register([queue]) for queue in ("a", "a", "b")]
    wakeups.wake_all()
    assert all(bell.is_rung for bell in bells)


async def test_sleepers_that_are_gone_are_forgotten() -> None:
    wakeups = Wakeups()
    kept = wakeups.register(["orders"])
    for _ in range(100):
        wakeups.register(["orders"])
    gc.collect()
    assert list(wakeups._sleepers["orders"]) == [kept]
    await until(lambda: True)
