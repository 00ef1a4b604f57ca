"""The session's PostgreSQL: each test alone in its database, and a server that can be broken and comes back."""

import asyncio

import pytest
from sqlalchemy import Table, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from .postgres import OwnPostgres, PostgresServer


@pytest.mark.parametrize("run", ["first", "second"])
async def test_every_test_starts_with_empty_tables(
    run: str, session_factory: async_sessionmaker[AsyncSession], outbox_table: Table, dlq_table: Table
) -> None:
    async with session_factory.begin() as session:
        for table in (outbox_table, dlq_table):
            assert await session.scalar(select(func.count()).select_from(table)) == 0
        await session.execute(outbox_table.insert().values(queue="orders", payload=b"{}", idempotency_key=run))


async def test_commits_are_synchronous_and_many_may_connect(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW synchronous_commit")) == "on"
        assert int(await connection.scalar(text("SHOW max_connections"))) >= 200


async def test_a_database_goes_though_somebody_is_connected(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        engine = create_async_engine(url)
        connection = await engine.connect()
    with pytest.raises(DBAPIError):
        await connection.execute(text("SELECT 1"))
    await connection.invalidate()
    await connection.close()
    await engine.dispose()


@pytest.mark.parametrize("crash", [False, True])
async def test_a_restart_keeps_port_and_data(postgres_server: PostgresServer, engine: AsyncEngine, crash: bool) -> None:
    if not isinstance(postgres_server, OwnPostgres):
        pytest.skip("a server named by the environment is not ours to stop")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE kept AS SELECT 1 AS number"))

    postgres_server.stop(crash=crash)
    with pytest.raises((OSError, DBAPIError)):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    postgres_server.start()
    await engine.dispose()
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT number FROM kept")) == 1


async def test_a_paused_server_answers_late(postgres_server: PostgresServer, engine: AsyncEngine) -> None:
    if not isinstance(postgres_server, OwnPostgres):
        pytest.skip("a server named by the environment is not ours to pause")
    postgres_server.process.pause()
    try:
        connecting = asyncio.create_task(engine.connect().start())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(connecting), 0.2)
    finally:
        postgres_server.process.resume()
    await (await connecting).close()
