"""Connections beside the application's pool."""

import asyncio
import gc
from contextlib import suppress

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

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
