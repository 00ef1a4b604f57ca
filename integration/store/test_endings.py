"""The commit of a session wakes consumers where no notification does; an end without a commit is told of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import Engine, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from faststream_outbox._store.postgres import endings
from faststream_outbox._store.postgres.writer import PostgresWriter
from tests.store.suite import draft, failing


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


async def test_a_released_savepoint_rings_nothing_of_what_was_before_it(
    writer: PostgresWriter, engine: AsyncEngine, bells: Bells
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await writer.insert(session, draft())
        async with session.begin_nested():
            await session.execute(text("SELECT 1"))
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


async def test_a_rollback_forgets_what_was_to_be_rung(
    writer: PostgresWriter, engine: AsyncEngine, bells: Bells
) -> None:
    async with AsyncSession(engine) as session:
        await writer.insert(session, draft())
        async with failing(session.begin_nested()):
            await writer.insert(session, draft("mails"))
        await session.commit()
        await writer.insert(session, draft("bills"))
        await session.rollback()
        await session.execute(text("SELECT 1"))
        await session.commit()
    assert bells.rung == [("q", 1)]


# --- a session that ends without a word


class Lost(Exception):
    """Ends a session early."""


class TestWarnings:
    @pytest.fixture
    def warnings(self) -> list[str]:
        return []

    @pytest.fixture
    def writer(self, engine: AsyncEngine, outbox_table: Table, warnings: list[str]) -> PostgresWriter:
        return PostgresWriter(engine, outbox_table, warn=warnings.append)

    async def test_one_that_names_the_queues(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        async with AsyncSession(engine) as session:
            await writer.insert(session, draft())
            await writer.insert(session, draft(key="k"))
            await writer.insert_many(session, [draft("mails", copies=lambda _queue: ["mails=>kafka"])] * 2)
            assert warnings == []
        [warning] = warnings
        assert warning.startswith(
            "a session was closed without commit after messages to 'mails', 'q' were published in it: they are lost"
        )

    async def test_once_for_each_time(self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]) -> None:
        """SQLAlchemy begins a new transaction with a session that was closed."""
        session = AsyncSession(engine)
        for number in (1, 2):
            await writer.insert(session, draft())
            await session.close()
            assert len(warnings) == number
        await session.execute(text("SELECT 1"))
        await session.close()
        assert len(warnings) == 2

    def test_plain_sessions(self, writer: PostgresWriter, sync_engine: Engine, warnings: list[str]) -> None:
        with Session(sync_engine) as session:
            writer.insert_sync(session, draft())
        assert len(warnings) == 1
        sessions = scoped_session(sessionmaker(sync_engine))
        writer.insert_sync(sessions, draft())
        sessions.remove()
        assert len(warnings) == 2

    async def test_released_savepoints_are_lost_too(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        async with AsyncSession(engine) as session:
            async with session.begin_nested(), session.begin_nested():
                await writer.insert(session, draft())
            assert warnings == []
        assert len(warnings) == 1

    async def test_open_savepoints_are_lost_too(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        async with AsyncSession(engine) as session:
            await session.begin_nested()
            await writer.insert(session, draft())
        assert len(warnings) == 1

    async def test_none_after_a_commit_or_a_rollback(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        for end in ("commit", "rollback"):
            async with AsyncSession(engine) as session:
                await writer.insert(session, draft())
                async with session.begin_nested():
                    await writer.insert(session, draft())
                await getattr(session, end)()
                await session.execute(text("SELECT 1"))
            async with AsyncSession(engine) as session, session.begin() as transaction:
                await writer.insert(session, draft())
                await getattr(transaction, end)()
        assert warnings == []

    async def test_none_where_a_savepoint_took_them_back(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        async with AsyncSession(engine) as session:
            async with failing(session.begin_nested()):
                await writer.insert(session, draft())
                async with session.begin_nested():
                    await writer.insert(session, draft(key="k"))
            await session.execute(text("SELECT 1"))
        assert warnings == []

    async def test_none_after_what_wrote_nothing(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        async with AsyncSession(engine) as session:
            await writer.fetch_unprocessed(session, queue="q", limit=1)
        assert warnings == []

    async def test_none_for_a_connection_that_others_end(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        async with engine.begin() as connection, AsyncSession(connection) as session:
            await writer.insert(session, draft())
        assert warnings == []
        async with AsyncSession(engine) as session:
            assert len(await writer.fetch_unprocessed(session, queue="q", limit=10)) == 1

    @staticmethod
    @asynccontextmanager
    async def in_a_block(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    @staticmethod
    @asynccontextmanager
    async def closed_at_last(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
        session = AsyncSession(engine)
        try:
            yield session
        finally:
            await session.close()

    @staticmethod
    @asynccontextmanager
    async def deep_in_a_stack(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
        async with AsyncExitStack() as stack:
            yield await stack.enter_async_context(TestWarnings.in_a_block(engine))

    @pytest.mark.parametrize("opened", ["in_a_block", "closed_at_last", "deep_in_a_stack"])
    async def test_none_where_an_exception_passes(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str], opened: str
    ) -> None:
        """As dependencies of FastAPI and of FastStream are closed."""
        open_session = getattr(self, opened)

        async def fail() -> None:
            async with open_session(engine) as session:
                await writer.insert(session, draft())
                raise Lost

        with pytest.raises(Lost):
            await fail()
        assert warnings == []
        async with open_session(engine) as session:
            await writer.insert(session, draft())
        assert len(warnings) == 1

    async def test_none_where_it_passes_the_session_itself(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        async def publish(session: AsyncSession) -> None:
            await writer.insert(session, draft())

        async def fail() -> None:
            async with AsyncSession(engine) as session:
                # The task that publishes need not be the one that ends the session.
                await asyncio.create_task(publish(session))
                raise Lost

        with pytest.raises(Lost):
            await fail()
        with pytest.raises(Lost):
            await asyncio.create_task(fail())
        assert warnings == []

    async def test_none_where_a_task_is_cancelled(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        published = asyncio.Event()

        async def publish() -> None:
            async with AsyncSession(engine) as session:
                await writer.insert(session, draft())
                published.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(publish())
        await published.wait()
        task.cancel()
        await asyncio.wait([task])
        assert warnings == []

    def test_none_where_it_passes_a_plain_session(
        self, writer: PostgresWriter, sync_engine: Engine, warnings: list[str]
    ) -> None:
        def fail() -> None:
            with Session(sync_engine) as session:
                writer.insert_sync(session, draft())
                raise Lost

        with pytest.raises(Lost):
            fail()
        assert warnings == []

    async def test_a_failure_elsewhere_is_no_excuse(
        self, writer: PostgresWriter, engine: AsyncEngine, warnings: list[str]
    ) -> None:
        """Two sessions end at the same time, one of them with an exception."""
        ready = asyncio.Barrier(2)

        async def publish(*, fails: bool) -> None:
            async with AsyncSession(engine) as session:
                await writer.insert(session, draft("lost" if not fails else "rolled back"))
                await ready.wait()
                if fails:
                    raise Lost

        outcomes = await asyncio.gather(publish(fails=True), publish(fails=False), return_exceptions=True)
        assert isinstance(outcomes[0], Lost)
        [warning] = warnings
        assert "'lost'" in warning

    async def test_transactions_leave_nothing_behind(
        self, writer: PostgresWriter, engine: AsyncEngine, sync_engine: Engine
    ) -> None:
        for end in ("commit", "rollback", "close"):
            async with AsyncSession(engine) as session:
                await writer.insert(session, draft())
                await getattr(session, end)()
        assert len(endings._open) == 0
