"""Where no notification wakes this process's consumers, the commit of the publisher's session does."""

import pytest
from sqlalchemy import Engine, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session

from faststream_outbox._store.postgres.writer import PostgresWriter
from tests.store.suite import draft


class Bells:
    """What was rung, with how many rows were to be seen just then."""

    def __init__(self, observer: Engine) -> None:
        self.rung: list[tuple[str, int]] = []
        self._observer = observer

    def ring(self, queue: str) -> None:
        with self._observer.connect() as connection:
            rows = connection.execute(text("SELECT count(*) FROM outbox WHERE queue = :queue"), {"queue": queue})
            self.rung.append((queue, rows.scalar_one()))


@pytest.fixture
def bells(sync_engine: Engine) -> Bells:
    return Bells(sync_engine)


@pytest.fixture
def writer(engine: AsyncEngine, outbox_table: Table, bells: Bells) -> PostgresWriter:
    return PostgresWriter(engine, outbox_table, waker=lambda: bells.ring)


async def test_once_for_each_queue_when_the_rows_are_there(
    writer: PostgresWriter, engine: AsyncEngine, bells: Bells
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await writer.insert(session, draft())
        await writer.insert(session, draft())
        await writer.insert(session, draft(queue="mails", key="k"))
        await writer.insert_many(session, [draft(queue="bills") for _ in range(3)])
        assert bells.rung == []
    assert sorted(bells.rung) == [("bills", 3), ("mails", 1), ("q", 2)]


async def test_each_transaction_of_a_session_rings_for_itself(
    writer: PostgresWriter, engine: AsyncEngine, bells: Bells
) -> None:
    async with AsyncSession(engine) as session:
        for _ in range(2):
            await writer.insert(session, draft())
            await session.commit()
        await session.execute(text("SELECT 1"))
        await session.commit()
    assert bells.rung == [("q", 1), ("q", 2)]


async def test_a_released_savepoint_rings_nothing_before_the_transaction_ends(
    writer: PostgresWriter, engine: AsyncEngine, bells: Bells
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        async with session.begin_nested():
            async with session.begin_nested():
                await writer.insert(session, draft())
            assert bells.rung == []
        assert bells.rung == []
    assert bells.rung == [("q", 1)]


async def test_a_rollback_rings_nothing(writer: PostgresWriter, engine: AsyncEngine, bells: Bells) -> None:
    async with AsyncSession(engine) as session:
        await writer.insert(session, draft())
        await session.rollback()
    assert bells.rung == []


async def test_scoped_sessions(writer: PostgresWriter, engine: AsyncEngine, bells: Bells) -> None:
    sessions = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    await writer.insert(sessions, draft())
    await sessions.commit()
    await sessions.remove()
    assert bells.rung == [("q", 1)]


def test_plain_sessions(writer: PostgresWriter, sync_engine: Engine, bells: Bells) -> None:
    with Session(sync_engine) as session, session.begin():
        writer.insert_sync(session, draft())
    assert bells.rung == [("q", 1)]


async def test_a_message_without_a_session(writer: PostgresWriter, bells: Bells) -> None:
    await writer.insert_alone(draft())
    assert bells.rung == [("q", 1)]


async def test_copies_ring_too(writer: PostgresWriter, engine: AsyncEngine, bells: Bells) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await writer.insert(session, draft(copies=lambda _queue: ["q=>kafka"]))
    assert sorted(bells.rung) == [("q", 1), ("q=>kafka", 1)]


async def test_a_connection_does_not_say_when_it_commits(
    writer: PostgresWriter, engine: AsyncEngine, bells: Bells
) -> None:
    async with engine.begin() as connection:
        await writer.insert(connection, draft())
    assert bells.rung == []


async def test_where_nobody_is_to_be_woken_sessions_are_left_alone(engine: AsyncEngine, outbox_table: Table) -> None:
    writer = PostgresWriter(engine, outbox_table)
    async with AsyncSession(engine) as session, session.begin():
        await writer.insert(session, draft())
        assert session.info == {}
