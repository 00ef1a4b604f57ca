"""``broker.wait_until_drained`` on a real database."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import ConfigError, ConstantRetry, NoRetry, OutboxBroker

from .observing import Table


async def test_it_returns_when_every_outcome_is_written(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    handled = []

    @broker.subscriber("orders", retry_strategy=ConstantRetry(delay_seconds=0.2))
    async def handle(body: int) -> None:
        handled.append(body)
        if handled.count(body) == 1:
            raise RuntimeError

    for number in range(3):
        await broker.publish(number, queue="orders", key=str(number), session=session)
    await session.commit()
    await broker.start()
    await broker.wait_until_drained("orders", timeout=20)
    assert sorted(handled) == [0, 0, 1, 1, 2, 2], "a row that waits for its retry is not done with"
    assert await table.count() == 0


async def test_dead_letters_and_timers_are_not_waited_for(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: int) -> None:
        raise RuntimeError

    await broker.publish(1, queue="orders", session=session)
    await broker.publish(2, queue="orders", session=session, activate_in=timedelta(hours=1))
    await session.commit()
    await broker.start()
    await broker.wait_until_drained(timeout=20)
    assert await broker.dead_letters.count() == 1
    assert await table.count() == 2


async def test_a_message_with_a_handler_is_waited_for_and_named(broker: OutboxBroker, session: AsyncSession) -> None:
    entered, may_end = asyncio.Event(), asyncio.Event()

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        entered.set()
        await may_end.wait()

    await broker.publish(1, queue="orders", session=session)
    await broker.publish(1, queue="others", session=session)
    await session.commit()
    await broker.start()
    await entered.wait()
    with pytest.raises(TimeoutError, match=r"^not drained within 0\.1 s: 'orders' has 1 with handlers$"):
        await broker.wait_until_drained("orders", timeout=0.1)
    waiting = asyncio.create_task(broker.wait_until_drained("orders", timeout=20))
    may_end.set()
    await waiting
    with pytest.raises(TimeoutError, match="'others' has 1 ready"):
        await broker.wait_until_drained(timeout=0.2)


async def test_copies_belong_to_their_queue(broker: OutboxBroker, table: Table) -> None:
    await table.query("INSERT INTO outbox (queue, idempotency_key, payload) VALUES ('orders=>redis:x', 'i', '')")
    await broker.wait_until_drained("other", timeout=5)
    with pytest.raises(TimeoutError, match="'orders=>redis:x' has 1 ready"):
        await broker.wait_until_drained("orders", timeout=0.2)


async def test_a_time_that_cannot_be(broker: OutboxBroker) -> None:
    with pytest.raises(ConfigError, match="timeout: must be a number of seconds"):
        await broker.wait_until_drained(timeout=0)
