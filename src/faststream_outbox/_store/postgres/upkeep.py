"""The connection on which outcomes and leases are written."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from faststream_outbox._store.postgres.apart import close_apart, open_apart
from faststream_outbox._store.postgres.driver import DriverStatement, Record
from faststream_outbox._store.postgres.statement_runner import StatementRunner

T = TypeVar("T")

PATIENCE_SECONDS = 2.0
"""How long renewals and outcomes wait for a rescue that takes longer than it should."""

TOO_MANY_CONNECTIONS = ("53300", "08P01")
"""SQLSTATE too_many_connections; PgBouncer says protocol_violation instead."""


class _NoneLeftError(Exception):
    """The server, or a pooler, has no connection left for us."""


class Upkeep:
    """Runs statements on a connection of its own while that is reserved, and otherwise as all other calls.

    Handlers that hold a session each can hold the whole pool for longer than a lease. The statements that renew their
    leases, and write the outcomes of others, must not wait for them.

    No statement depends on the state of the session, so behind a pooler each may run in another session. A connection
    on which a statement failed is not used again. If the server has no connection left, the pool's are used.

    Args:
        calls: Say in which mode statements are run, and take connections from the pool.
    """

    def __init__(self, runner: StatementRunner) -> None:
        self._runner = runner
        self._is_reserved = False
        self._is_slow = False
        """Whether the last statement that had to be quick took long, on a connection of the pool."""
        self._has_failed = False
        """Whether such a statement failed on a connection of the pool, and none has succeeded since."""
        self._turn = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._engine: AsyncEngine | None = None
        """In whose mode the connection is."""

    def reserve(self) -> None:
        """Use a connection of its own from the next statement on."""
        self._is_reserved = True

    async def let_go(self) -> None:
        """Close the connection, until one is reserved again."""
        self._is_reserved = False
        async with self._turn:
            await self._close()

    async def fetch(self, statement: DriverStatement, parameters: dict[str, Any]) -> Sequence[Record]:
        """Run a statement and read its rows."""
        return await self.run(lambda connection: connection.run_sync(statement.execute, parameters))

    async def fetch_quickly(self, statement: DriverStatement, parameters: dict[str, Any]) -> Sequence[Record]:
        """Run a statement that takes milliseconds, and seconds after hours of an open snapshot, and read its rows.

        Renewals and outcomes wait for it for ``PATIENCE_SECONDS`` at most: then it is cut off, and run on a connection
        of the pool. The next ones run there too, until one is quick again or has failed.

        Handlers may hold the whole pool for hours. After a failure there, the next ones run on the own connection and
        are not cut off, until one succeeds.
        """
        if not self._is_slow:
            patience = asyncio.timeout(None if self._has_failed else PATIENCE_SECONDS)
            try:
                async with patience:
                    records = await self.fetch(statement, parameters)
                    self._has_failed = False
                    return records
            except TimeoutError:
                if not patience.expired():
                    raise
        self._is_slow = False
        began = time.monotonic()
        try:
            records = await self._runner.fetch(statement, parameters)
        except BaseException:
            # Its caller's limit, too, can end the wait for a connection.
            self._has_failed = True
            raise
        self._is_slow = time.monotonic() - began > PATIENCE_SECONDS
        return records

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` as ``StatementRunner.run`` does."""
        if self._is_reserved:
            try:
                async with self._turn:
                    return await self._runner.run_on(self._own, work)
            except _NoneLeftError:
                pass
        return await self._runner.run(work)

    @asynccontextmanager
    async def _own(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        connection = await self._open(engine)
        try:
            yield connection
            # Where each statement stands alone, nothing is sent.
            await connection.commit()
        except BaseException:
            await self._close(is_broken=True)
            raise

    async def _open(self, engine: AsyncEngine) -> AsyncConnection:
        if self._engine is not engine:
            await self._close()
        if self._connection is None:
            try:
                self._connection = await open_apart(engine)
            except Exception as error:
                # Some releases of SQLAlchemy let through what asyncpg says of a connection that did not come about.
                if getattr(getattr(error, "orig", error), "sqlstate", None) in TOO_MANY_CONNECTIONS:
                    raise _NoneLeftError from error
                raise
            self._engine = engine
        return self._connection

    async def _close(self, *, is_broken: bool = False) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await close_apart(connection, is_broken=is_broken)
