"""Entries of inboxes in PostgreSQL, in the transaction of the handler whose messages they are of."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.entries import Entry
from faststream_outbox._store.postgres.driver import DriverStatement
from faststream_outbox._store.postgres.inspection import differences
from faststream_outbox._store.postgres.sessions import run_in_session, run_in_sync_session
from faststream_outbox._store.postgres.statements import load_for
from faststream_outbox._store.postgres.target import SessionTarget
from faststream_outbox._store.postgres.tenants import in_schema, schema_in, translated
from faststream_outbox.exceptions import NotWrittenError

IDENTITY = ("consumer", "queue", "idempotency_key")


class _InboxTarget(SessionTarget):
    sync_call = "accept_sync"
    async_call = "accept"
    harm = "the message would count as handled without the work, and be lost"


class _Statements:
    """The statements for one inbox table."""

    def __init__(self, table: Table) -> None:
        self.enter = DriverStatement(load_for(table, "inbox_enter"))
        self.find = DriverStatement(load_for(table, "inbox_find"))
        self.prune = DriverStatement(load_for(table, "inbox_prune"))


class PostgresEntries:
    """Writes entries in the caller's transaction, and never commits it.

    Args:
        table: Made by ``make_inbox_table``. A ``schema_translate_map`` of the session or its engine is followed.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._entered = _InboxTarget(table, is_undone=True)
        self._pruned = _InboxTarget(table, is_undone=False)
        self._statements: dict[str | None, _Statements] = {}

    async def enter(self, session: Any, entry: Entry, delivery: Any) -> bool:
        """Write an entry; return whether it was not there.

        Raises:
            InvalidSessionError: The session cannot carry an entry.
            NotWrittenError: No entry is there, and none was written.
            DBAPIError: PostgreSQL has refused it; above READ COMMITTED also where another one has just written it.
        """
        return await run_in_session(session, self._enter(entry), self._entered)

    def enter_sync(self, session: Any, entry: Entry, delivery: Any) -> bool:
        """Enter a message as ``enter`` does, in a plain ``Session`` or ``Connection``."""
        return run_in_sync_session(session, self._enter(entry), self._entered)

    async def prune(self, database: Any, consumer: str, *, older_than: timedelta, batch_size: int) -> int:
        """Delete a consumer's old entries: with an engine all, in batches; with a session one batch. Return how many.

        Between two batches it rests for as long as the last one took.
        """
        if not isinstance(database, AsyncEngine):
            run = self._prune(consumer, older_than, batch_size, None)
            count, _ = await run_in_session(database, run, self._pruned)
            return count
        # The engine's own level may be one in which two prunings that meet fail.
        engine = database.execution_options(isolation_level="READ COMMITTED")
        pruned, since = 0, None
        while True:
            began = time.monotonic()
            async with engine.begin() as connection:
                run = self._prune(consumer, older_than, batch_size, since)
                count, since = await connection.run_sync(run)
            pruned += count
            if count < batch_size:
                return pruned
            await asyncio.sleep(time.monotonic() - began)

    async def differences(self, engine: AsyncEngine) -> list[str]:
        """Return one sentence for each difference of the table from its declaration."""
        declared = translated(self._table, engine)
        async with engine.connect() as connection:
            found = await connection.run_sync(differences, declared)
            return found or await connection.run_sync(_identity_problems, declared)

    def _enter(self, entry: Entry) -> Callable[[Connection], bool]:
        parameters = entry._asdict()

        def run(connection: Connection) -> bool:
            statements = self._statements_on(connection)
            if statements.enter.execute(connection, parameters):
                return True
            if not statements.find.execute(connection, parameters):
                raise NotWrittenError(entry.queue, table="inbox table")
            return False

        return run

    def _prune(
        self, consumer: str, older_than: timedelta, limit: int, since: datetime | None
    ) -> Callable[[Connection], tuple[int, datetime | None]]:
        parameters = {"consumer": consumer, "older_than": older_than, "limit": limit, "since": since}

        def run(connection: Connection) -> tuple[int, datetime | None]:
            [(count, last)] = self._statements_on(connection).prune.execute(connection, parameters)
            return count, last

        return run

    def _statements_on(self, connection: Connection) -> _Statements:
        schema = schema_in(connection.get_execution_options(), self._table.schema)
        if (statements := self._statements.get(schema)) is None:
            statements = self._statements[schema] = _Statements(in_schema(self._table, schema))
        return statements


def _identity_problems(connection: Connection, declared: Table) -> list[str]:
    """Return what is wrong if no index keeps a second entry of the same message out."""
    inspector = inspect(connection)
    name, schema = declared.name, declared.schema
    keys: list[list[str | None]] = [[*inspector.get_pk_constraint(name, schema=schema)["constrained_columns"]]]
    keys += [
        index["column_names"]
        for index in inspector.get_indexes(name, schema=schema)
        if index["unique"] and not index.get("dialect_options", {}).get("postgresql_where")
    ]
    if any(set(columns) == set(IDENTITY) for columns in keys):
        return []
    return [f"the primary key is not ({', '.join(IDENTITY)}), so repeats cannot be known"]
