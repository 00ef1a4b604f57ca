"""Looks at queues and rows, for people."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.driver import DriverStatement, Record
from faststream_outbox._store.postgres.people import PeopleStatements
from faststream_outbox._store.postgres.records import COLUMNS, to_rows
from faststream_outbox._store.postgres.tenants import translated
from faststream_outbox._values.figures import Count, QueueFigures, RowState, SeenRow
from faststream_outbox.schema import SHARDS


class PostgresOnlooker:
    """Counts rows, and returns some, each look in a transaction of its own that only reads.

    Args:
        engine: Gives the connection.
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``, or None.
    """

    def __init__(self, engine: AsyncEngine, outbox_table: Table, dlq_table: Table | None = None) -> None:
        self._engine = engine
        self._statements = PeopleStatements(
            translated(outbox_table, engine), None if dlq_table is None else translated(dlq_table, engine)
        )

    async def queues(self, *, limit: int, at_most: int, behind: str = "") -> Sequence[QueueFigures]:
        wanted = {"limit": limit, "at_most": at_most, "behind": behind}
        names = [name for (name,) in await self._fetch(self._statements.queue_names, wanted)]
        wanted = {"queues": names, "at_most": at_most, "shards": SHARDS}
        return [_to_figures(record, at_most) for record in await self._fetch(self._statements.queue_figures, wanted)]

    async def seen(self, queue: str, state: RowState, *, limit: int, max_bytes: int) -> Sequence[SeenRow]:
        parts = 1 if state in {RowState.LEASED, RowState.PARKED} else SHARDS
        wanted = {"queue": queue, "limit": limit, "bytes": max_bytes, "parts": parts}
        records = await self._fetch(self._statements.seen[state], wanted)
        return [
            SeenRow(row=row, state=state, size=size, next_attempt_at=next_attempt_at, exception=exception)
            for row, (size, next_attempt_at, exception) in zip(
                to_rows(records), (record[COLUMNS:] for record in records), strict=True
            )
        ]

    async def _fetch(self, statement: DriverStatement, wanted: dict[str, Any]) -> Sequence[Record]:
        async with self._engine.connect() as connection:
            return await connection.run_sync(statement.execute, wanted)


def _to_figures(record: Record, at_most: int) -> QueueFigures:
    queue, ready, ready_is_whole, due, due_is_whole, timers, retries, waiting_is_whole, *others = record
    leased, leased_is_whole, run_out, parked, held, moved, oldest_seconds, next_due_seconds = others
    return QueueFigures(
        queue=queue,
        ready=Count(ready, ready_is_whole),
        due=Count(due, due_is_whole),
        timers=Count(timers, waiting_is_whole),
        retries=Count(retries, waiting_is_whole),
        leased=Count(leased, leased_is_whole),
        leases_run_out=run_out,
        parked=Count(parked, parked < at_most),
        held=held,
        moved=Count(moved, moved < at_most),
        # A row that is published while the statement runs is younger than the statement.
        oldest_seconds=None if oldest_seconds is None else max(0.0, oldest_seconds),
        next_due_seconds=None if next_due_seconds is None else max(0.0, next_due_seconds),
    )
