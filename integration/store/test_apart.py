"""Connections beside the application's pool."""

import asyncio
import gc
from contextlib import suppress

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from faststream_outbox._store.postgres.apart import close_apart, open_apart


async def test_a_connection_that_is_given_up_while_it_is_opened_is_closed(
    engine: AsyncEngine, database_url: str
) -> None:
    """SQLAlchemy asks the server this and that on a new connection, and leaves it open when it is cancelled there."""
    named = create_async_engine(database_url, connect_args={"server_settings": {"application_name": "given up"}})
    look = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'given up'")
    gc.disable()
    try:
        async with engine.connect() as observer:
            for step in range(60):
                opening = asyncio.create_task(open_apart(named))
                await asyncio.sleep(step * 0.0005)
                opening.cancel()
                with suppress(asyncio.CancelledError):
                    await close_apart(await opening)
            async with asyncio.timeout(10):
                while (await observer.execute(look)).scalar_one():
                    await observer.rollback()
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()
        await named.dispose()


async def test_first_connections_of_the_pool_and_beside_it_wait_for_one_another(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy asks the server what it is on the first of both, and needs the answer when either is given back."""
    engine = create_async_engine(database_url)
    initialize = engine.dialect.initialize

    def initialize_slowly(connection: Connection) -> None:
        await_only(asyncio.sleep(0.3))
        initialize(connection)

    monkeypatch.setattr(engine.dialect, "initialize", initialize_slowly)

    async def ask() -> object:
        await asyncio.sleep(0.2)
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            return (await connection.execute(text("SELECT 1"))).scalar_one()

    try:
        opened, answer = await asyncio.gather(open_apart(engine), ask())
        assert answer == 1
        await close_apart(opened)
    finally:
        await engine.dispose()
