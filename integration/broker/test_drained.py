"""``broker.wait_until_drained`` on a real database."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import ConfigError, ConstantRetry, InvalidMessageError, NoRetry, OutboxBroker

from .observing import Inbox, Table, eventually

FAR = {"min_fetch_interval": 30.0, "max_fetch_interval": 30.0}


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


async def test_retries_are_driven_without_waiting(
    *, broker: OutboxBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    """Three attempts, an hour apart: in order, and counted as ever."""

    @broker.subscriber("orders", retry_strategy=ConstantRetry(delay_seconds=3600, max_attempts=3))
    async def handle(body: int) -> None:
        inbox.add(body)
        if body == 1 or inbox.counts[body] < 3:
            raise RuntimeError

    await broker.publish(1, queue="orders", key="k", session=session)
    await broker.publish(2, queue="orders", key="k", session=session)
    await broker.publish(3, queue="orders", session=session, activate_in=timedelta(hours=1))
    await session.commit()
    await broker.start()
    await broker.wait_until_drained("orders", timeout=20, retry_now=True)
    assert inbox.counts == {1: 3, 2: 3}
    [letter] = await broker.dead_letters.list()
    assert (letter.row.attempts_count, letter.reason) == (3, "retries_exhausted")
    assert await table.count("failed_at IS NULL") == 1, "the timer is not waited for, and does not come early"


async def test_a_retry_comes_when_it_is_asked_for(
    *, broker: OutboxBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    @broker.subscriber("orders", retry_strategy=ConstantRetry(delay_seconds=3600), **FAR)
    async def handle(body: int) -> None:
        inbox.add(body)
        if len(inbox.bodies) == 1:
            raise RuntimeError

    assert await broker.retry_now() == 0
    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    await broker.start()
    await eventually(lambda: table.count("attempts_count = 1 AND acquired_token IS NULL"))
    assert await broker.retry_now("others") == 0
    assert await broker.retry_now("orders") == 1
    await inbox.wait_for(2)
    with pytest.raises(InvalidMessageError, match=r"^queue: "):
        await broker.retry_now("")


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
