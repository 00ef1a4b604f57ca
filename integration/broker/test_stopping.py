"""G8: a clean stop loses nothing, repeats nothing, and ends in time."""

import asyncio
import gc
import time

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import OutboxBroker

from .conftest import MakeBroker
from .observing import Inbox, Table, Traffic, eventually


def add_handler(broker: OutboxBroker, inbox: Inbox) -> None:
    @broker.subscriber("orders", max_workers=4, fetch_batch_size=50)
    async def handle(body: int) -> None:
        await asyncio.sleep(0.005)
        inbox.add(body)


async def test_g8_a_stop_under_load_loses_and_repeats_nothing(
    make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    """Brokers come and go while 600 rows are handled; each is handled once, by one of them."""
    await make_broker().publish_batch(*range(600), queue="orders", session=session)
    await session.commit()

    stops = 0
    while len(inbox.bodies) < 400:
        broker = make_broker()
        add_handler(broker, inbox)
        await broker.start()
        await inbox.wait_for(len(inbox.bodies) + 60)
        began = time.monotonic()
        await broker.stop()
        stops += 1
        assert time.monotonic() - began < 4.0, "it does not use up its grace"
        settled = 600 - await table.count()
        assert settled == len(inbox.bodies), "all that was handled is settled when stop returns"
        assert await table.count("acquired_token IS NOT NULL OR attempts_count > 0") == 0, "the rest is free at once"
        assert await table.count("deliveries_count > 0") == 0, "and was never delivered"
    assert stops >= 4
    last = make_broker()
    add_handler(last, inbox)
    await last.start()
    await inbox.wait_for(600)
    assert inbox.counts == dict.fromkeys(range(600), 1)


async def test_g8_rows_that_nobody_has_begun_are_free_at_once(
    make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    first, second = make_broker(), make_broker()
    gate = asyncio.Event()

    @first.subscriber("orders", fetch_batch_size=100)
    async def slow(body: int) -> None:
        if body:
            await gate.wait()

    @second.subscriber("orders")
    async def quick(body: int) -> None:
        inbox.add(body)

    await first.start()
    # Quick ones first: claiming ahead is for handlers that are quick.
    await first.publish_batch(*[0] * 20, *range(1, 41), queue="orders", session=session)
    await session.commit()
    await eventually(lambda: table.count("acquired_token IS NOT NULL AND payload <> '0'"))
    held = await table.count("acquired_token IS NOT NULL")
    assert held > 1, "the test is about rows claimed ahead"
    await second.start()
    stopping = asyncio.create_task(first.stop())
    await inbox.wait_for(39)
    assert not stopping.done(), "one handler is still at work"
    gate.set()
    await stopping
    await eventually(table.is_empty)
    assert sorted(inbox.bodies) == list(range(2, 41))


@pytest.mark.parametrize("grace", [0.0, 0.5])
async def test_g8_a_hanging_handler_is_cut_off_and_its_row_given_back(
    make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox, grace: float
) -> None:
    broker = make_broker(graceful_timeout=grace)
    cancelled = asyncio.Event()

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    await broker.start()
    await inbox.wait_for(1)
    began = time.monotonic()
    await broker.stop()
    seconds = time.monotonic() - began
    print(f"G8: graceful_timeout {grace} s, stopped in {seconds:.2f} s")
    # What ignored its cancellation would be waited for 3 s longer.
    assert grace <= seconds < grace + 2.5
    assert cancelled.is_set()
    (row,) = await table.rows()
    assert (row.acquired_token, row.attempts_count, row.deliveries_count) == (None, 0, 1)
    assert row.next_attempt_at == row.created_at, "it can be taken"


async def test_g8_a_handler_that_ends_in_time_is_waited_for_and_settled(
    broker: OutboxBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add("began")
        await asyncio.sleep(0.3)
        inbox.add("ended")

    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    await broker.start()
    await inbox.wait_for(1)
    await broker.stop()
    assert inbox.bodies == ["began", "ended"]
    assert await table.is_empty()


async def test_g8_stops_and_starts_at_the_same_time_end_well(
    broker: OutboxBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)
        await asyncio.sleep(0.05)

    await broker.stop()
    for number in range(5):
        await broker.publish(number, queue="orders", session=session)
        await session.commit()
        await asyncio.gather(broker.start(), broker.start())
        await inbox.wait_for(number + 1)
        # The second stop must not close what the first one still needs to settle.
        await asyncio.gather(broker.stop(), broker.stop())
        assert not broker.running
        assert await table.is_empty()
    assert inbox.bodies == list(range(5))


async def test_g8_a_stop_right_after_the_start_leaves_no_connection_open(
    broker: OutboxBroker, engine: AsyncEngine, inbox: Inbox
) -> None:
    """A connection that is cancelled while it is taken, and not closed, warns when it is collected."""
    add_handler(broker, inbox)
    for _ in range(5):
        await broker.start()
        await broker.stop()
        await broker.start()
        # The pool has connections from now on: the next start takes one of them.
        await eventually(lambda: engine.pool.checkedin() > 0)
        await broker.stop()
    gc.collect()


async def test_a_handler_may_stop_its_own_broker(
    make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    broker = make_broker(graceful_timeout=0.3)

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)
        await broker.stop()

    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    await broker.start()
    await eventually(lambda: not broker.running)
    await broker.stop()
    assert inbox.bodies == [1]
    assert await table.count() == 1


async def test_the_engine_is_the_callers_and_is_never_disposed(
    broker: OutboxBroker, engine: AsyncEngine, traffic: Traffic
) -> None:
    @broker.subscriber("orders")
    async def handle(body: int) -> None: ...

    pool = engine.pool
    await broker.start()
    await eventually(lambda: engine.pool.checkedin() >= 1)
    await broker.stop()
    assert engine.pool is pool, "a disposed engine has a new pool"
    assert pool.checkedout() == 0, "every connection is given back"
    assert pool.checkedin() >= 1, "and stays open for its owner"
