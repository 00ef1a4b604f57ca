"""The PostgreSQL store as the suite sees it, and what tests of it look at."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Table, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from faststream_outbox._store.postgres.dead_letters import PostgresDeadLetters
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.postgres.writer import PostgresWriter
from faststream_outbox._values.row import OutboxRow
from tests.store.suite import Died, Stored


class PostgresSubject:
    """Args: the engine, the tables, and whether dead letters are moved (or else parked)."""

    keeps_exceptions = True

    def __init__(self, engine: AsyncEngine, outbox_table: Table, dlq_table: Table | None) -> None:
        self.engine = engine
        self.outbox_table = outbox_table
        self.dlq_table = dlq_table
        self.store = PostgresStore(engine, outbox_table, dlq_table)
        self.writer = PostgresWriter(engine, outbox_table)
        self.dead_letters = PostgresDeadLetters(engine, outbox_table, dlq_table)
        self.parks = dlq_table is None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine) as session, session.begin():
            yield session

    async def rows(self) -> dict[int, Stored]:
        alive = [record for record in await self._all(self.outbox_table) if record["failed_at"] is None]
        return {
            record["id"]: Stored(
                _row(record),
                record["shard"],
                record["acquired_token"],
                record["next_attempt_at"],
                record["last_exception"],
            )
            for record in alive
        }

    async def dead(self) -> dict[int, Died]:
        parked = [record for record in await self._all(self.outbox_table) if record["failed_at"] is not None]
        moved = [] if self.dlq_table is None else await self._all(self.dlq_table)
        assert {record["id"] for record in moved}.isdisjoint(record["id"] for record in await self._all())
        if self.dlq_table is not None:
            assert all(record["next_attempt_at"] is not None for record in parked), "only what holds its key"
        return {
            record["id"]: Died(_row(record), record["failure_reason"], record["last_exception"])
            for record in (*parked, *moved)
        }

    async def _all(self, table: Table | None = None) -> Sequence[Any]:
        async with self.engine.connect() as connection:
            chosen = self.outbox_table if table is None else table
            return (await connection.execute(select(chosen).order_by(chosen.c.id))).mappings().all()


def _row(record: Any) -> OutboxRow:
    names = (
        *("id", "queue", "key", "idempotency_key", "payload", "headers", "attempts_count", "deliveries_count"),
        *("created_at", "first_attempt_at", "last_attempt_at", "timer_id"),
    )
    return OutboxRow(**{name: record[name] for name in names}, acquired_at=record.get("acquired_at"))


async def backend_of(connection: AsyncConnection | AsyncSession) -> int:
    """The server's process behind a connection."""
    return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def kill(engine: AsyncEngine, backend: int) -> None:
    """End a connection from the server's side, and wait until it is gone."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": backend})


async def listening_backends(engine: AsyncEngine) -> list[int]:
    """The server's processes that hold a presence in this database."""
    statement = text(
        "SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database AND d.datname = current_database() "
        "WHERE locktype = 'advisory' AND granted ORDER BY pid"
    )
    async with engine.connect() as connection:
        return list((await connection.execute(statement)).scalars())
