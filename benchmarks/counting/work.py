"""The work that is counted, per message."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from faststream.kafka import KafkaBroker
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from benchmarks.counting.counters import Counts, counted
from benchmarks.messages import HEADERS, QUEUE, body_of, key_of
from faststream_outbox import OutboxBroker, Outgoing, make_outbox_table

PUBLISHES = 200
BATCHES = 10
BATCH = 1000
RELAYED = 10_000
HANDLED = 2_000

PUBLISH = "publish, one for each transaction"
PUBLISH_BATCH = "publish_batch of 1,000"
HAND_OVER = "hand-over to Kafka"
HANDLER = "local subscriber"

Work = dict[str, dict[str, float]]


def broker_on(engine: AsyncEngine) -> OutboxBroker:
    """Make a broker at its defaults, apart from its log."""
    return OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)


def messages(numbers: Sequence[int]) -> list[Outgoing]:
    """Give the messages that all workloads publish."""
    return [Outgoing(body_of(number), key=key_of(number)) for number in numbers]


async def publish(database_url: str) -> dict[str, float]:
    """Publish messages, each in a transaction of its own."""
    async with counted(database_url) as (engine, counts):
        broker = broker_on(engine)

        async def once(number: int) -> None:
            async with AsyncSession(engine) as session, session.begin():
                await broker.publish(body_of(number), queue=QUEUE, session=session, headers=HEADERS, key=key_of(number))

        return await _each(counts, once, PUBLISHES, messages_each=1)


async def publish_batch(database_url: str) -> dict[str, float]:
    """Publish batches, each in a transaction of its own."""
    async with counted(database_url) as (engine, counts):
        broker = broker_on(engine)

        async def once(number: int) -> None:
            batch = messages(range(number * BATCH, (number + 1) * BATCH))
            async with AsyncSession(engine) as session, session.begin():
                await broker.publish_batch(*batch, queue=QUEUE, session=session, headers=HEADERS)

        return await _each(counts, once, BATCHES, messages_each=BATCH)


async def hand_over(database_url: str, bootstrap: str, topic: str) -> dict[str, float]:
    """Carry a backlog to Kafka with one lane, from its first connection to the last row's end."""
    await _fill(database_url, RELAYED)
    async with counted(database_url) as (engine, counts):
        broker = broker_on(engine)
        kafka = KafkaBroker(bootstrap, acks="all", logger=None)
        broker.forwarder(QUEUE, to=kafka.publisher(topic), lanes=1)
        return await _until_empty(counts, broker, database_url, RELAYED)


async def handle(database_url: str) -> dict[str, float]:
    """Handle a backlog with a subscriber at its defaults, from its first connection to the last row's end."""
    await _fill(database_url, HANDLED)
    async with counted(database_url) as (engine, counts):
        broker = broker_on(engine)

        @broker.subscriber(QUEUE)
        async def do_nothing(_body: dict[str, Any]) -> None: ...

        return await _until_empty(counts, broker, database_url, HANDLED)


async def _each(
    counts: Counts, once: Callable[[int], Awaitable[None]], times: int, messages_each: int
) -> dict[str, float]:
    # The connection is opened and its statements are prepared before anything counts.
    for number in range(2):
        await once(number)
    before = await counts.so_far()
    for number in range(times):
        await once(number)
    return _difference(before, await counts.so_far(), times * messages_each)


async def _until_empty(counts: Counts, broker: OutboxBroker, database_url: str, expected: int) -> dict[str, float]:
    observing = create_async_engine(database_url)
    before = await counts.so_far()
    await broker.start()
    try:
        async with observing.connect() as connection, asyncio.timeout(60):
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            while await connection.scalar(text("SELECT EXISTS (SELECT FROM outbox)")):
                await asyncio.sleep(0.005)
        return _difference(before, await counts.so_far(), expected)
    finally:
        await broker.stop()
        await observing.dispose()


async def _fill(database_url: str, count: int) -> None:
    engine = create_async_engine(database_url)
    broker = broker_on(engine)
    for first in range(0, count, BATCH):
        async with engine.begin() as connection:
            batch = messages(range(first, first + BATCH))
            await broker.publish_batch(*batch, queue=QUEUE, session=connection, headers=HEADERS)
    await engine.dispose()


def _difference(before: dict[str, float], after: dict[str, float], messages: int) -> dict[str, float]:
    return {name: (after[name] - number) / messages for name, number in before.items()}
