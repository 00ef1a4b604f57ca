"""A message is accepted once, in the transaction of the work: in any session, at any isolation, however many copies."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace
from typing import Any

import pytest
from faststream.message import StreamMessage
from sqlalchemy import Engine, MetaData, Table, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from faststream_outbox import Inbox, InvalidSessionError, NotWrittenError, make_inbox_table
from integration.broker.observing import Table as Observer
from integration.broker.observing import eventually

LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
SERIALIZATION_FAILURE = "40001"
WAITING = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def copy_of(key: str = "k", queue: str = "orders") -> StreamMessage[Any]:
    return StreamMessage(SimpleNamespace(), b"", headers={"idempotency-key": key, "outbox-queue": queue})


@pytest.fixture(params=["asyncpg", "psycopg"])
async def any_engine(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(make_url(database_url).set(drivername=f"postgresql+{request.param}"))
    yield engine
    await engine.dispose()


@pytest.fixture
def sync_engine(database_url: str) -> Any:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield engine
    engine.dispose()


# --- once


async def test_once_for_each_consumer_queue_and_key(any_engine: AsyncEngine, inbox: Inbox, inbox_table: Table) -> None:
    other = Inbox(inbox_table, consumer="shipping")
    async with AsyncSession(any_engine) as session, session.begin():
        assert await inbox.accept(session, copy_of())
        assert not await inbox.accept(session, copy_of())
        assert await inbox.accept(session, copy_of("other"))
        assert await inbox.accept(session, copy_of(queue="emails"))
        assert await other.accept(session, copy_of())
    async with AsyncSession(any_engine) as session, session.begin():
        assert not await inbox.accept(session, copy_of())
        assert not await other.accept(session, copy_of())
    assert (inbox.accepted, inbox.repeated) == (3, 2)


async def test_a_rollback_takes_the_acceptance_back(engine: AsyncEngine, inbox: Inbox) -> None:
    async with AsyncSession(engine) as session:
        assert await inbox.accept(session, copy_of())
        await session.rollback()
        async with session.begin_nested() as savepoint:
            assert await inbox.accept(session, copy_of())
            await savepoint.rollback()
        assert await inbox.accept(session, copy_of())
        await session.commit()
        assert not await inbox.accept(session, copy_of())


async def test_it_commits_nothing(engine: AsyncEngine, inbox: Inbox, table: Observer) -> None:
    async with engine.connect() as connection:
        assert await inbox.accept(connection, copy_of())
        assert await table.count(name="inbox") == 0
        await connection.commit()
    assert await table.count(name="inbox") == 1


async def test_any_asynchronous_session(engine: AsyncEngine, inbox: Inbox) -> None:
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    kinds: list[Callable[[], AbstractAsyncContextManager[Any]]] = [async_sessionmaker(engine).begin, engine.begin]
    for number, kind in enumerate(kinds):
        for first in (True, False):
            async with kind() as session:
                assert await inbox.accept(session, copy_of(f"{number}")) is first
    assert await inbox.accept(scoped, copy_of("scoped"))
    await scoped.commit()
    assert not await inbox.accept(scoped, copy_of("scoped"))
    await scoped.remove()


async def test_any_plain_session(sync_engine: Engine, inbox: Inbox) -> None:
    def work() -> None:
        for number, kind in enumerate((sessionmaker(sync_engine).begin, sync_engine.begin)):
            for first in (True, False):
                with kind() as session:
                    assert inbox.accept_sync(session, copy_of(f"{number}")) is first
        scoped = scoped_session(sessionmaker(sync_engine))
        assert inbox.accept_sync(scoped, copy_of("scoped"))
        scoped.rollback()
        assert inbox.accept_sync(scoped, copy_of("scoped"))
        scoped.remove()

    await asyncio.to_thread(work)


# --- copies at the same time


async def begin(engine: AsyncEngine, level: str) -> AsyncSession:
    session = AsyncSession(engine)
    await session.connection(execution_options={"isolation_level": level})
    # Its snapshot is from now on, where it keeps one.
    await session.execute(text("SELECT 1"))
    return session


async def race(engine: AsyncEngine, inbox: Inbox, table: Observer, level: str) -> tuple[Any, Any, asyncio.Task[bool]]:
    """Two copies, of which the first is accepted and the second waits."""
    winner, loser = await begin(engine, level), await begin(engine, level)
    assert await inbox.accept(winner, copy_of())
    waiting = asyncio.create_task(inbox.accept(loser, copy_of()))
    await eventually(lambda: _is_waiting(table))
    return winner, loser, waiting


async def _is_waiting(table: Observer) -> bool:
    return (await table.query(WAITING))[0].n == 1


@pytest.mark.parametrize("level", LEVELS)
async def test_the_loser_goes_on_where_the_winner_rolled_back(
    engine: AsyncEngine, inbox: Inbox, table: Observer, level: str
) -> None:
    winner, loser, waiting = await race(engine, inbox, table, level)
    await winner.close()
    assert await waiting
    await loser.commit()
    await loser.close()
    assert await table.count(name="inbox") == 1


async def test_the_loser_is_a_repeat_where_the_winner_committed(
    engine: AsyncEngine, inbox: Inbox, table: Observer
) -> None:
    winner, loser, waiting = await race(engine, inbox, table, "READ COMMITTED")
    await winner.commit()
    assert not await waiting
    await loser.commit()
    await asyncio.gather(winner.close(), loser.close())
    assert await table.count(name="inbox") == 1
    assert (inbox.accepted, inbox.repeated) == (1, 1)


@pytest.mark.parametrize("level", LEVELS[1:])
async def test_above_read_committed_the_loser_is_to_be_delivered_again(
    engine: AsyncEngine, inbox: Inbox, table: Observer, level: str
) -> None:
    winner, loser, waiting = await race(engine, inbox, table, level)
    await winner.commit()
    with pytest.raises(DBAPIError) as raised:
        await waiting
    assert raised.value.orig.sqlstate == SERIALIZATION_FAILURE
    await asyncio.gather(winner.close(), loser.close())
    again = await begin(engine, level)
    assert not await inbox.accept(again, copy_of())
    await again.close()
    assert (inbox.accepted, inbox.repeated) == (1, 1)


@pytest.mark.parametrize("level", LEVELS)
async def test_of_many_copies_at_once_one_does_the_work(
    engine: AsyncEngine, inbox: Inbox, table: Observer, level: str
) -> None:
    """Each handler is retried as its broker would, and some of those that were accepted fail."""

    async def deliver(key: str, number: int) -> None:
        for attempt in range(50):
            async with AsyncSession(engine) as session:
                try:
                    await session.connection(execution_options={"isolation_level": level})
                    if await inbox.accept(session, copy_of(key)):
                        await session.execute(text("INSERT INTO effects (key) VALUES (:key)"), {"key": key})
                        if (number + attempt) % 3 == 0:
                            continue
                        await session.commit()
                except DBAPIError as error:
                    if error.orig.sqlstate != SERIALIZATION_FAILURE:
                        raise
                else:
                    return
        pytest.fail("was never accepted and never a repeat")

    keys = [f"k{number}" for number in range(10)]
    await asyncio.gather(*(deliver(key, number) for number in range(5) for key in keys))
    done = await table.query("SELECT key, count(*) AS n FROM effects GROUP BY key ORDER BY key")
    assert [(row.key, row.n) for row in done] == [(key, 1) for key in sorted(keys)]
    assert inbox.repeated == 4 * len(keys)


async def test_two_consumers_do_not_wait_for_one_another(engine: AsyncEngine, inbox: Inbox, inbox_table: Table) -> None:
    other = Inbox(inbox_table, consumer="shipping")
    async with AsyncSession(engine) as first, AsyncSession(engine) as second, asyncio.timeout(10):
        assert await inbox.accept(first, copy_of())
        assert await other.accept(second, copy_of())


# --- what is no repeat


async def test_an_entry_that_a_trigger_suppresses_is_no_repeat(engine: AsyncEngine, inbox: Inbox) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        await connection.execute(
            text("CREATE TRIGGER nothing BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION nothing()")
        )
    async with AsyncSession(engine) as session:
        with pytest.raises(NotWrittenError, match=r"of 'orders' and wrote no row.*on the inbox table"):
            await inbox.accept(session, copy_of())
    assert (inbox.accepted, inbox.repeated) == (0, 0)


async def test_another_unique_index_in_the_way_is_an_error_and_no_repeat(engine: AsyncEngine, inbox: Inbox) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE UNIQUE INDEX mine ON inbox (idempotency_key)"))
    async with AsyncSession(engine) as session, session.begin():
        assert await inbox.accept(session, copy_of())
    async with AsyncSession(engine) as session:
        with pytest.raises(IntegrityError, match="mine"):
            await inbox.accept(session, copy_of(queue="emails"))


@pytest.mark.parametrize("key", ["ü" * 200, "a\x00b", "x" * 10_000, "\ud800", "'; DROP TABLE inbox; --", "%s", ":key"])
async def test_any_text_names_a_message(engine: AsyncEngine, inbox: Inbox, key: str) -> None:
    for first in (True, False):
        async with AsyncSession(engine) as session, session.begin():
            assert await inbox.accept(session, copy_of(key, queue=key)) is first


# --- sessions that are refused


async def test_autocommit_is_refused_since_it_would_lose_the_message(engine: AsyncEngine, inbox: Inbox) -> None:
    async with AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        with pytest.raises(
            InvalidSessionError, match=r"AUTOCOMMIT.*would count as handled without the work, and be lost"
        ):
            await inbox.accept(session, copy_of())


async def test_plain_autocommit_is_refused_too(sync_engine: Engine, inbox: Inbox) -> None:
    with (
        Session(sync_engine.execution_options(isolation_level="AUTOCOMMIT")) as session,
        pytest.raises(InvalidSessionError, match="AUTOCOMMIT"),
    ):
        inbox.accept_sync(session, copy_of())


async def test_closed_and_failed_sessions_are_refused(engine: AsyncEngine, inbox: Inbox) -> None:
    closed = AsyncSession(engine, close_resets_only=False)
    await closed.close()
    with pytest.raises(InvalidSessionError, match="cannot be used"):
        await inbox.accept(closed, copy_of())
    connection = engine.connect()
    with pytest.raises(InvalidSessionError, match="closed, or was never opened"):
        await inbox.accept(connection, copy_of())


async def test_wrong_types_are_refused_with_the_word_to_write(
    engine: AsyncEngine, sync_engine: Engine, inbox: Inbox
) -> None:
    with Session(sync_engine) as plain, pytest.raises(InvalidSessionError, match="use accept_sync with it"):
        await inbox.accept(plain, copy_of())  # type: ignore[arg-type]
    async with AsyncSession(engine) as session:
        with pytest.raises(InvalidSessionError, match="use accept with it"):
            inbox.accept_sync(session, copy_of())  # type: ignore[arg-type]
    for nothing in (None, engine, "session"):
        with pytest.raises(InvalidSessionError, match=f"got {type(nothing).__name__}"):
            await inbox.accept(nothing, copy_of())  # type: ignore[arg-type]


async def test_another_database_is_refused(inbox: Inbox) -> None:
    engine = create_engine("sqlite://")
    with (
        Session(engine) as session,
        pytest.raises(InvalidSessionError, match="must be bound to PostgreSQL, got sqlite"),
    ):
        inbox.accept_sync(session, copy_of())
    engine.dispose()


async def test_a_session_that_does_not_say_where_the_inbox_is(
    engine: AsyncEngine, inbox: Inbox, inbox_table: Table
) -> None:
    async with AsyncSession() as session:
        with pytest.raises(InvalidSessionError, match=r"do not say in which database 'inbox' is.*binds="):
            await inbox.accept(session, copy_of())
    async with AsyncSession(binds={inbox_table: engine}) as session:
        assert await inbox.accept(session, copy_of())


# --- tenants and names


async def test_a_translate_map_is_followed_for_each_session(engine: AsyncEngine, table: Observer) -> None:
    metadata = MetaData()
    inbox = Inbox(make_inbox_table(metadata, schema="tenant"), consumer="billing")
    for schema in ("a", "b"):
        async with engine.execution_options(schema_translate_map={"tenant": schema}).begin() as connection:
            await connection.execute(text(f"CREATE SCHEMA {schema}"))
            await connection.run_sync(metadata.create_all)
    for schema in ("a", "b", "a"):
        of_tenant = engine.execution_options(schema_translate_map={"tenant": schema})
        async with AsyncSession(of_tenant) as session, session.begin():
            await inbox.accept(session, copy_of())
    assert [await table.count(name=f"{schema}.inbox") for schema in ("a", "b")] == [1, 1]
    assert (inbox.accepted, inbox.repeated) == (2, 1)
    await inbox.validate_schema(engine.execution_options(schema_translate_map={"tenant": "a"}))


@pytest.mark.parametrize("name", ["In box", 'a"b', "x:y", "{table}", "ü" * 31])
async def test_a_table_of_any_name(engine: AsyncEngine, name: str) -> None:
    metadata = MetaData()
    inbox = Inbox(make_inbox_table(metadata, name), consumer="billing")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        assert await inbox.accept(connection, copy_of())
        assert not await inbox.accept(connection, copy_of())
    await inbox.validate_schema(engine)
