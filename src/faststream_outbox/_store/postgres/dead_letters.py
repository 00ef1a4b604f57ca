"""What people do with rows that failed for good, in a transaction of theirs or of its own."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Table, TextClause
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.controls import PostgresControls
from faststream_outbox._store.postgres.listener import channel_of
from faststream_outbox._store.postgres.people import PeopleStatements
from faststream_outbox._store.postgres.records import to_rows
from faststream_outbox._store.postgres.sessions import run_in_session
from faststream_outbox._store.postgres.target import Target
from faststream_outbox._store.postgres.tenants import translated
from faststream_outbox._values.control import Note
from faststream_outbox._values.dead_letter import DeadLetter, Selection
from faststream_outbox._values.figures import Count, DeadLetterGroup, DeadLetterGroups
from faststream_outbox.checks import MAX_COUNT

T = TypeVar("T")


class PostgresDeadLetters:
    """Dead letters, parked in the outbox table or moved to the dead-letter table, seen as one.

    Args:
        engine: Gives a transaction where the caller has none.
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``, or None.
        controls: Has the audit log; None where there is none.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox_table: Table,
        dlq_table: Table | None = None,
        *,
        controls: PostgresControls | None = None,
    ) -> None:
        self._engine = engine
        self._controls = controls
        self._target = Target(engine, outbox_table, is_undone=False)
        outbox_table = self._target.table
        dlq_table = None if dlq_table is None else translated(dlq_table, engine)
        self._statements = PeopleStatements(outbox_table, dlq_table)
        self._channel = channel_of(outbox_table)

    async def list(
        self, session: Any, selection: Selection, *, limit: int, max_bytes: int = MAX_COUNT
    ) -> Sequence[DeadLetter]:
        parameters = {**asdict(selection), "limit": limit, "max_bytes": max_bytes}
        return await self._run(
            session,
            lambda conn: _to_dead_letters(conn.execute(self._statements.dead_letters_list, parameters).all()),
        )

    async def count(self, session: Any, selection: Selection) -> int:
        parameters = asdict(selection)
        return await self._run(
            session, lambda conn: int(conn.execute(self._statements.dead_letters_count, parameters).scalar_one())
        )

    async def groups(self, session: Any, selection: Selection, *, limit: int, at_most: int) -> DeadLetterGroups:
        parameters = {**asdict(selection), "limit": limit, "at_most": at_most}
        records = await self._run(
            session, lambda conn: conn.execute(self._statements.dead_letters_groups, parameters).all()
        )
        looked_at = records[0].looked_at if records else 0
        return DeadLetterGroups(
            groups=[_to_group(record) for record in records], looked_at=Count(looked_at, looked_at < at_most)
        )

    async def replay(self, session: Any, selection: Selection, *, limit: int, note: Note | None = None) -> int:
        statements = [self._statements.dead_letters_free, *self._statements.dead_letters_replay]
        return await self._run(session, lambda conn: self._change(conn, statements, selection, limit, note))

    async def discard(self, session: Any, selection: Selection, *, limit: int, note: Note | None = None) -> int:
        statements = self._statements.dead_letters_discard
        return await self._run(session, lambda conn: self._change(conn, statements, selection, limit, note))

    async def now(self) -> datetime:
        return await self._run(None, lambda conn: conn.execute(self._statements.now).scalar_one())

    def _change(
        self,
        connection: Connection,
        statements: Sequence[TextClause],
        selection: Selection,
        limit: int,
        note: Note | None,
    ) -> int:
        changed = 0
        for statement in statements:
            parameters = {**asdict(selection), "limit": limit - changed, "channel": self._channel}
            changed += len(connection.execute(statement, parameters).all())
        if changed and note is not None and self._controls is not None:
            # What cannot be written down is not done.
            self._controls.note(connection, note, affected=changed)
        return changed

    async def _run(self, session: Any, work: Callable[[Connection], T]) -> T:
        if session is not None:
            return await run_in_session(session, work, self._target)
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)


def _to_group(record: Row[Any]) -> DeadLetterGroup:
    return DeadLetterGroup(
        queue=record.queue,
        reason=record.failure_reason,
        kind=record.kind,
        count=record.letters,
        held=record.held,
        first_failed_at=record.first_failed_at,
        last_failed_at=record.last_failed_at,
        example=record.example,
    )


def _to_dead_letters(records: Sequence[Row[Any]]) -> list[DeadLetter]:
    return [
        DeadLetter(
            row=row,
            failed_at=record.failed_at,
            reason=record.failure_reason,
            exception=record.last_exception,
            holds_key=record.holds_key,
            size=record.size,
        )
        for row, record in zip(to_rows(records), records, strict=True)
    ]
