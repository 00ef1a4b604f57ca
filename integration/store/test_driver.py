"""Statements that go to asyncpg directly: nobody can tell, except by the clock."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import Connection, Table, event, make_url, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from faststream_outbox._store.postgres.driver import DriverStatement, Record
from faststream_outbox._store.postgres.statement_runner import sqlstate
from integration.broker.observing import eventually

ECHO = DriverStatement(text("SELECT CAST(:second AS integer), CAST(:first AS text)"))
PID = DriverStatement(text("SELECT pg_backend_pid()"))
INSERT = DriverStatement(text("INSERT INTO things VALUES (:id, :name)"))
DIVIDE = DriverStatement(text("SELECT 1 / CAST(:by AS integer)"))
THINGS = DriverStatement(text("SELECT * FROM things"))


@pytest.fixture
async def things(engine: AsyncEngine, outbox_table: Table) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE things (id integer, name text)"))


async def execute(connection: AsyncConnection, statement: DriverStatement, **parameters: Any) -> list[Record]:
    return list(await connection.run_sync(statement.execute, parameters))


async def execute_alone(engine: AsyncEngine, statement: DriverStatement, **parameters: Any) -> list[Record]:
    async with engine.begin() as connection:
        return await execute(connection, statement, **parameters)


# --- which way


async def test_parameters_are_given_by_name_and_rows_read_by_position(engine: AsyncEngine) -> None:
    with mock.patch.object(Connection, "execute", side_effect=AssertionError("the long way")):
        async with engine.connect() as connection:
            [[second, first]] = await execute(connection, ECHO, first="a", second=2)
    assert (first, second) == ("a", 2)


async def test_what_returns_no_rows_gives_none(engine: AsyncEngine, things: None) -> None:
    async with engine.begin() as connection:
        assert await execute(connection, INSERT, id=1, name="a") == []


async def test_another_driver_gets_it_from_sqlalchemy(database_url: str) -> None:
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    assert [tuple(row) for row in await execute_alone(engine, ECHO, first="a", second=2)] == [(2, "a")]
    await engine.dispose()


async def test_an_engine_that_writes_a_log_writes_it(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_async_engine(database_url, echo=True)
    with caplog.at_level(logging.INFO, "sqlalchemy.engine.Engine"):
        await execute_alone(engine, ECHO, first="a", second=2)
    assert any("CAST($1" in line for line in caplog.messages)
    await engine.dispose()


@pytest.mark.parametrize("name", ["do_execute", "handle_error"])
async def test_what_listens_at_the_driver_hears_it(database_url: str, things: None, name: str) -> None:
    heard: list[str] = []
    engine = create_async_engine(database_url)
    # With its first connection SQLAlchemy executes something of its own.
    await execute_alone(engine, ECHO, first="a", second=2)
    event.listen(engine.sync_engine, name, lambda *_: heard.append(name))
    with pytest.raises(DBAPIError):
        await execute_alone(engine, INSERT, id=2**40, name="a")
    assert name in heard
    await engine.dispose()


# --- transactions


async def test_it_is_part_of_the_transaction(engine: AsyncEngine, things: None) -> None:
    async with engine.connect() as connection:
        for end, count in ((connection.rollback, 0), (connection.commit, 1)):
            await execute(connection, INSERT, id=1, name="a")
            await end()
            assert len(await execute(connection, THINGS)) == count


async def test_in_autocommit_it_is_final_at_once(engine: AsyncEngine, things: None) -> None:
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await execute(connection, INSERT, id=1, name="a")
        assert len(await execute_alone(engine, THINGS)) == 1


async def test_an_error_ends_no_more_than_the_savepoint(engine: AsyncEngine, things: None) -> None:
    async with engine.begin() as connection:
        await execute(connection, INSERT, id=1, name="a")
        with pytest.raises(DBAPIError):
            async with connection.begin_nested():
                await execute(connection, DIVIDE, by=0)
        await execute(connection, INSERT, id=2, name="c")
    assert sorted(row[0] for row in await execute_alone(engine, THINGS)) == [1, 2]


async def test_nothing_is_written_in_a_block_whose_transaction_is_over(engine: AsyncEngine, things: None) -> None:
    async with engine.connect() as connection, connection.begin() as transaction:
        await transaction.rollback()
        with pytest.raises(InvalidRequestError, match="closed transaction"):
            await execute(connection, INSERT, id=1, name="a")
    assert await execute_alone(engine, THINGS) == []


async def test_a_savepoint_that_failed_is_told_as_sqlalchemy_tells_it(engine: AsyncEngine, things: None) -> None:
    async with engine.connect() as connection:
        savepoint = await connection.begin_nested()
        with pytest.raises(DBAPIError):
            await execute(connection, DIVIDE, by=0)
        with pytest.raises(DBAPIError):
            await savepoint.commit()
        with pytest.raises(PendingRollbackError):
            await execute(connection, INSERT, id=1, name="a")


# --- errors


async def test_errors_are_of_sqlalchemys_kinds(engine: AsyncEngine) -> None:
    missing = DriverStatement(text("SELECT * FROM missing WHERE id = :id"))
    with pytest.raises(ProgrammingError, match="missing") as caught:
        await execute_alone(engine, missing, id=1)
    assert (sqlstate(caught.value), caught.value.params) == ("42P01", {"id": 1})
    assert not caught.value.connection_invalidated


async def test_values_are_hidden_where_the_engine_hides_them(database_url: str, things: None) -> None:
    engine = create_async_engine(database_url, hide_parameters=True)
    with pytest.raises(DBAPIError) as caught:
        await execute_alone(engine, INSERT, id=2**40, name="secret")
    assert "secret" not in str(caught.value)
    await engine.dispose()


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url, pool_size=2, max_overflow=0)
    yield engine
    await engine.dispose()


async def backends(engine: AsyncEngine) -> set[int]:
    async with engine.connect() as one, engine.connect() as other:
        return {(await execute(connection, PID))[0][0] for connection in (one, other)}


async def test_a_lost_connection_shows_that_all_of_its_pool_are(engine: AsyncEngine, two: AsyncEngine) -> None:
    lost = await backends(two)
    async with engine.connect() as connection:
        for pid in lost:
            await connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with pytest.raises(DBAPIError) as caught:
        await execute_alone(two, PID)
    assert caught.value.connection_invalidated
    assert not await backends(two) & lost


async def test_a_changed_table_is_no_trouble_for_long(engine: AsyncEngine, two: AsyncEngine, things: None) -> None:
    statement = DriverStatement(text("SELECT * FROM things"))
    async with two.connect() as one, two.connect() as other:
        assert [await execute(connection, statement) for connection in (one, other)] == [[], []]
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE things ALTER id TYPE bigint"))
    failures = 0
    for _ in range(6):
        try:
            async with two.connect() as one, two.connect() as other:
                assert [await execute(connection, statement) for connection in (one, other)] == [[], []]
        except DBAPIError:
            failures += 1
    assert 0 < failures <= 2


async def test_a_cancelled_statement_ends_its_connection(engine: AsyncEngine, two: AsyncEngine) -> None:
    sleep = DriverStatement(text("SELECT pg_sleep(60)"))
    asleep = DriverStatement(text("SELECT FROM pg_stat_activity WHERE pid = :pid AND wait_event = 'PgSleep'"))
    async with two.connect() as connection:
        [[pid]] = await execute(connection, PID)
        sleeping = asyncio.create_task(execute(connection, sleep))
        await eventually(lambda: execute_alone(engine, asleep, pid=pid))
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert connection.invalidated
    gone = DriverStatement(text("SELECT FROM pg_stat_activity WHERE pid = :pid"))

    async def is_gone() -> bool:
        return not await execute_alone(engine, gone, pid=pid)

    await eventually(is_gone, within=5)
