"""A queue that nobody consumes is told of, and one that somebody consumes never, wherever that is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from faststream.redis import RedisBroker
from sqlalchemy import MetaData
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox import OutboxBroker, UnconsumedQueue, make_outbox_table
from faststream_outbox._engine.watching import consumed, unconsumed
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.protocol import Announcement

from .conftest import MakeBroker
from .observing import LogLines, Table, eventually

THEIRS = ("payments", "mails")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes are parts of a second."""
    monkeypatch.setattr(unconsumed, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(unconsumed, "UNCONSUMED_SECONDS", 0.5)
    monkeypatch.setattr(unconsumed, "ANNOUNCE_SECONDS", 0.2)
    monkeypatch.setattr(consumed, "HEARING_SECONDS", 1.0)


class Process:
    """Another process, as it were: a broker with an engine of its own, which consumes what does not get on.

    Args:
        table: As it calls it.
    """

    def __init__(self, url: str, table: SqlTable, **options: Any) -> None:
        self._engine = create_async_engine(url)
        self._is_over = asyncio.Event()
        self.broker = OutboxBroker(self._engine, outbox_table=table, logger=None, graceful_timeout=1.0, **options)

        # One row is in hand, and those behind it are ready all the while.
        @self.broker.subscriber(THEIRS, max_workers=1, fetch_batch_size=1)
        async def handle() -> None:
            await self._is_over.wait()

    async def stop(self) -> None:
        self._is_over.set()
        await self.broker.stop()
        await self._engine.dispose()


@pytest.fixture(params=["it listens", "it polls", "it calls the table differently"])
async def other(request: pytest.FixtureRequest, database_url: str, outbox_table: SqlTable) -> AsyncIterator[Process]:
    options = {"listen": False, "notify": False} if request.param == "it polls" else {}
    is_called_differently = request.param == "it calls the table differently"
    table = make_outbox_table(MetaData(), schema="public") if is_called_differently else outbox_table
    process = Process(database_url, table, **options)
    await process.broker.start()
    yield process
    await process.stop()


async def publish(broker: OutboxBroker, session: AsyncSession, *queues: str) -> None:
    for queue in queues:
        await broker.publish(b"", queue=queue, session=session)
    await session.commit()


async def test_a_typo_is_told_of_once_and_a_consumer_elsewhere_is_known(
    other: Process, make_broker: MakeBroker, session: AsyncSession
) -> None:
    log = LogLines()
    web = make_broker(logger=log)
    await web.start()
    await publish(web, session, *THEIRS * 4, "payment", "payment")
    [line] = await eventually(lambda: log.containing("nobody consumes"), within=10)
    assert line.startswith("nobody consumes queue 'payment': 2 rows wait, the first for ")
    assert line.endswith("; did you mean 'payments'?")
    [found] = await web.unconsumed_queues() or ()
    assert isinstance(found, UnconsumedQueue)
    assert (found.queue, found.rows, found.nearest) == ("payment", 2, "payments")
    assert found.seconds >= 0.5
    await asyncio.sleep(1.0)
    assert len(log.at_least(logging.WARNING)) == 1


async def test_a_consumer_that_was_taken_out_is_missed_after_a_while(
    other: Process, make_broker: MakeBroker, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumed, "KEPT_SECONDS", 1.5)
    log = LogLines()
    web = make_broker(logger=log)
    await web.start()
    await publish(web, session, "payments", "payments")
    await eventually(lambda: _is_known(web), within=10)
    await asyncio.sleep(1.0)
    assert not log.containing("nobody consumes")
    await other.stop()
    await eventually(lambda: log.containing("nobody consumes queue 'payments'"), within=15)


async def test_who_cannot_hear_others_says_nothing_of_them(make_broker: MakeBroker, session: AsyncSession) -> None:
    log = LogLines()
    broker = make_broker(logger=log, listen=False)
    assert await broker.unconsumed_queues() is None, "it is not started"
    await broker.start()
    await publish(broker, session, "payment")
    await asyncio.sleep(2.5)
    assert await broker.unconsumed_queues() is None
    assert not log.at_least(logging.WARNING)


async def test_copies_are_consumed_by_their_forwarder(make_broker: MakeBroker, session: AsyncSession) -> None:
    """It is down, so that its rows wait."""
    nowhere = RedisBroker("redis://127.0.0.1:1", logger=None)
    broker = make_broker()
    broker.forwarder("orders", to=nowhere.publisher(stream="orders"), name="audit", tee=True)

    @broker.subscriber("orders")
    async def handle() -> None: ...

    await broker.start()
    await publish(broker, session, "orders", "nobodys")
    await eventually(broker.unconsumed_queues, within=10)
    assert [each.queue for each in await broker.unconsumed_queues() or ()] == ["nobodys"]
    await broker.stop()
    # A release in which the forwarder is gone.
    log = LogLines()
    later = make_broker(logger=log)

    @later.subscriber("orders")
    async def handle_later() -> None: ...

    await later.start()
    await eventually(lambda: len(log.containing("nobody consumes")) == 2, within=10)
    assert log.containing("copies of 'orders' for a forwarder 'audit' with tee=True: 1 row waits for")


async def test_it_is_heard_whatever_the_table_is_called(database_url: str, engine: AsyncEngine, table: Table) -> None:
    """One names it with its schema, the other finds it there; what they call it has no part in common."""
    await table.query("CREATE SCHEMA tenant")
    await table.query("ALTER TABLE outbox SET SCHEMA tenant")
    elsewhere = create_async_engine(database_url, connect_args={"server_settings": {"search_path": "tenant"}})
    listening = PostgresStore(engine, make_outbox_table(MetaData(), schema="tenant"))
    announcing = PostgresStore(elsewhere, make_outbox_table(MetaData()))
    async with asyncio.timeout(20), listening.listen("presence:here") as line:
        assert line is not None
        await announcing.announce(["payments"])
        assert await anext(aiter(line)) == Announcement(frozenset({"payments"}))
    await elsewhere.dispose()


async def _is_known(broker: OutboxBroker) -> bool:
    return await broker.unconsumed_queues() is not None
