"""Runs single statements, each on a connection of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from faststream_outbox._store.postgres.driver import DriverStatement, Record

T = TypeVar("T")

Connect: TypeAlias = Callable[[AsyncEngine], AbstractAsyncContextManager[AsyncConnection]]
"""Gives a connection in the mode of an engine; its transaction ends with the context."""

MOST_CALLS = 4
"""How many single statements (claims, looks at what is due) run at once; each takes a few milliseconds."""

UNKNOWN_PREPARED_STATEMENT = "26000"
"""SQLSTATE invalid_sql_statement_name; see "PostgreSQL Error Codes" in its manual."""


class StatementRunner:
    """Takes a connection from the pool for one statement and gives it back.

    There are never more than ``MOST_CALLS`` at once, since the pool is the application's, too. AUTOCOMMIT spares them
    the round trips of BEGIN and COMMIT, as long as that is safe.

    Args:
        engine: The caller's engine.
        transactional: The same, for transactions in READ COMMITTED.
    """

    def __init__(self, engine: AsyncEngine, transactional: AsyncEngine) -> None:
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._transactional = transactional
        self._chosen: AsyncEngine | None = None
        self._at_once = asyncio.Semaphore(MOST_CALLS)
        self._choosing = asyncio.Lock()

    async def fetch(self, statement: DriverStatement, parameters: dict[str, Any]) -> Sequence[Record]:
        """Run a statement and read its rows."""
        return await self.run(lambda connection: connection.run_sync(statement.execute, parameters))

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` on a connection, in a transaction where it needs one.

        It may run twice: behind a pooler, where the first time has done nothing.
        """
        async with self._at_once:
            return await self.run_on(self._from_pool, work)

    async def run_on(self, connect: Connect, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` as ``run`` does, on a connection that ``connect`` gives for an engine, and however many run."""
        engine = await self._engine()
        try:
            async with connect(engine) as connection:
                return await work(connection)
        except DBAPIError as error:
            # Asked of this call's engine: another call may have changed over meanwhile.
            if engine is self._transactional or sqlstate(error) != UNKNOWN_PREPARED_STATEMENT:
                raise
        # A pooler in transaction mode gave what was prepared to one connection of the server, and its execution to
        # another, where it did not happen. Within a transaction the connection stays the same.
        self._chosen = self._transactional
        async with connect(self._chosen) as connection:
            return await work(connection)

    def _from_pool(self, engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        # To begin and to commit costs a fifth of a statement's processor time, even if the server hears nothing of it.
        return engine.connect() if engine is self._autocommit else engine.begin()

    async def _engine(self) -> AsyncEngine:
        if self._chosen is None:
            # One alone: loops that start together would ask the same, on an engine's first connections.
            async with self._choosing:
                return await self._choose()
        return self._chosen

    async def _choose(self) -> AsyncEngine:
        if self._chosen is not None:
            return self._chosen
        # A default of the role or the database counts under AUTOCOMMIT too, and one above READ COMMITTED lets claims
        # that meet fail.
        async with self._transactional.connect() as connection:
            default = (await connection.exec_driver_sql("SHOW default_transaction_isolation")).scalar_one()
        self._chosen = self._autocommit if default == "read committed" else self._transactional
        return self._chosen


def sqlstate(error: DBAPIError) -> str | None:
    """Return PostgreSQL's code of an error, or None if the error is not the server's."""
    code: str | None = getattr(error.orig, "sqlstate", None)
    return code
