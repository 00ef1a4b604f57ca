"""A transaction that somebody has left open: while it holds its snapshot, no deleted row is cleaned away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


@asynccontextmanager
async def held_snapshot(engine: AsyncEngine) -> AsyncIterator[None]:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        # The first statement takes the snapshot.
        await connection.execute(text("SELECT count(*) FROM outbox"))
        yield
