"""Connections beside the application's pool, otherwise like those in it, and how many that has."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import Pool, PoolProxiedConnection, QueuePool
from sqlalchemy.util import greenlet_spawn

PATIENCE_SECONDS = 2.0
"""How long an engine's first connection may go on after its caller has given it up: milliseconds are enough."""


@asynccontextmanager
async def connection_apart(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a connection that is closed at the end, and that no one can keep us waiting for by holding all of the pool.

    A second pool of the same kind makes it, with the engine's creator, ``connect_args`` and events. So whatever the
    application has arranged for its connections holds for this one.
    """
    connection = await open_apart(engine)
    try:
        yield connection
    except BaseException:
        await close_apart(connection, is_broken=True)
        raise
    await close_apart(connection)


async def open_apart(engine: AsyncEngine) -> AsyncConnection:
    """Open such a connection; the caller closes it with ``close_apart``."""
    await _initialize(engine)
    return AsyncConnection(engine, await greenlet_spawn(_open, engine.sync_engine))


async def _initialize(engine: AsyncEngine) -> None:
    """Wait until SQLAlchemy has asked the server what it asks on the first connection of an engine.

    It asks once for the engine and all pools that were made of its pool, but only connections of one pool wait for the
    answers. Else one of another pool, the application's too, would find a dialect that knows nothing yet, fail when it
    is given back (no ``default_isolation_level``), and stay open.
    """
    if hasattr(engine.dialect, "default_isolation_level"):
        return
    first = asyncio.create_task(_connect_once(engine))
    first.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await asyncio.shield(first)
    except asyncio.CancelledError:
        # Versions before 2.1 leave a connection open that is given up while they ask.
        await asyncio.wait([first], timeout=PATIENCE_SECONDS)
        raise
    finally:
        first.cancel()


async def _connect_once(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        # So that it is closed: an engine for LISTEN alone has no use for it.
        await connection.run_sync(Connection.detach)


async def close_apart(connection: AsyncConnection, *, is_broken: bool = False) -> None:
    """Close it within a few seconds.

    Args:
        connection: From ``open_apart``.
        is_broken: Nobody knows what is still to come on it, so nothing more is said on it.
    """
    # A cancellation of the caller must not leave it half closed.
    await asyncio.shield(asyncio.create_task(_close(connection, is_broken=is_broken)))


async def _close(connection: AsyncConnection, *, is_broken: bool) -> None:
    try:
        if is_broken:
            await connection.invalidate()
        elif not connection.invalidated:
            # Else the pool that made it would keep it.
            await connection.run_sync(Connection.detach)
    finally:
        await connection.close()


def most_connections(engine: AsyncEngine) -> int | None:
    """Return how many connections the engine's pool gives out at a time; None where it has no limit."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return None
    # SQLAlchemy does not say the second elsewhere.
    overflow: int = pool._max_overflow  # noqa: SLF001
    return None if overflow < 0 else pool.size() + overflow


def _connect(pool: Pool, begun: Sequence[DBAPIConnection], dialect: Dialect) -> PoolProxiedConnection:
    try:
        return pool.connect()
    except BaseException:
        # SQLAlchemy leaves it to the garbage collector.
        for connection in begun:
            dialect.do_terminate(connection)
        raise


def _open(engine: Engine) -> Connection:
    dialect = engine.dialect
    pool = engine.pool.recreate()
    begun: list[DBAPIConnection] = []
    # Before any other listener, which may ask the server something, and be cancelled over it.
    event.listen(pool, "first_connect", lambda connection, _record: begun.append(connection), insert=True)
    try:
        pooled = _connect(pool, begun, dialect)
    except dialect.loaded_dbapi.Error as error:
        # As the engine itself would raise it.
        raise DBAPIError.instance(
            None, None, error, dialect.loaded_dbapi.Error, hide_parameters=engine.hide_parameters, dialect=dialect
        ) from error
    try:
        return Connection(engine, connection=pooled)
    except BaseException:
        # An event of the engine's has raised.
        pooled.invalidate()
        raise
