"""What publishers do with rows, in the caller's own transaction."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.hints import Hint
from faststream_outbox._store.postgres.listener import channel_of
from faststream_outbox._store.postgres.records import to_rows
from faststream_outbox._store.postgres.sessions import run_in_session, run_in_sync_session
from faststream_outbox._store.postgres.statements import Statements
from faststream_outbox._values.draft import Draft, headers_json, headers_json_of_each
from faststream_outbox._values.row import OutboxRow


class PostgresWriter:
    """Writes messages in the transaction of whoever publishes; it never commits that.

    Args:
        engine: The caller's engine, for messages without a transaction.
        outbox_table: Made by ``make_outbox_table``.
        notify: Whether publishing wakes consumers with NOTIFY.
        waker: Gives what wakes the consumers of a queue in this process, to be called when rows are committed; None
            where there are none, or a notification wakes them.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox_table: Table,
        *,
        notify: bool = True,
        waker: Callable[[], Callable[[str], None] | None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._waker = waker
        self._statements = Statements(outbox_table, None, notify=notify)
        self._channel = channel_of(outbox_table)

    async def insert(self, session: Any, draft: Draft) -> int | None:
        """Write one message; None where it is a live duplicate.

        Before a message with a key, the session's pending changes are flushed: then ids follow the order in which
        transactions locked their domain rows.
        """
        has_key = draft.key is not None
        return await run_in_session(
            session, lambda conn: self._insert(conn, draft), flush=has_key, hints=self._hints(draft)
        )

    def insert_sync(self, session: Any, draft: Draft) -> int | None:
        """The same for a plain ``Session`` or ``Connection``."""
        has_key = draft.key is not None
        return run_in_sync_session(
            session, lambda conn: self._insert(conn, draft), flush=has_key, hints=self._hints(draft)
        )

    async def insert_alone(self, draft: Draft) -> int | None:
        """Write one message in a transaction of its own."""
        hints = self._hints(draft)
        async with self._engine.begin() as connection:
            row_id = await connection.run_sync(self._insert, draft)
        for hint in hints:
            hint.give()
        return row_id

    async def insert_many(self, session: Any, drafts: Sequence[Draft]) -> list[int]:
        """Write messages of one queue in their order; live duplicates are left out."""
        has_keys = any(draft.key is not None for draft in drafts)
        return await run_in_session(
            session, lambda conn: self._insert_many(conn, drafts), flush=has_keys, hints=self._hints(drafts[0])
        )

    async def cancel_timer(self, session: Any, *, queue: str, timer_id: str, copies: Sequence[str] = ()) -> bool:
        """Delete a timer and its copies as far as no consumer has taken them; tell whether the timer was there."""
        parameters = {"queues": [queue, *copies], "timer_id": timer_id}

        def run(connection: Connection) -> bool:
            return queue in connection.execute(self._statements.cancel_timer, parameters).scalars().all()

        return await run_in_session(session, run)

    async def fetch_unprocessed(self, session: Any, *, queue: str | None, limit: int) -> list[OutboxRow]:
        """Read rows that no consumer has finished."""
        parameters = {"queue": queue, "limit": limit}

        def run(connection: Connection) -> list[OutboxRow]:
            return to_rows(connection.execute(self._statements.fetch_unprocessed, parameters).all())

        return await run_in_session(session, run)

    def _hints(self, draft: Draft) -> Sequence[Hint]:
        wake = self._waker()
        return () if wake is None else [Hint(wake, queue) for queue in (draft.queue, *draft.copies)]

    def _insert(self, connection: Connection, draft: Draft) -> int | None:
        if draft.copies:
            ids = self._insert_many(connection, [draft])
            return ids[0] if ids else None
        parameters: dict[str, Any] = {
            "queue": draft.queue,
            "key": draft.key,
            "idempotency_key": draft.idempotency_key,
            "payload": draft.payload,
            "headers": headers_json(draft.headers),
            "channel": self._channel,
        }
        may_collide = draft.deduplicate or draft.timer_id is not None
        if may_collide or draft.activate_in is not None or draft.activate_at is not None:
            statement = self._statements.insert_deduplicated if may_collide else self._statements.insert
            parameters |= {
                "deduplicate": draft.deduplicate,
                "timer_id": draft.timer_id,
                "activate_at": draft.activate_at,
                "activate_in": draft.activate_in,
            }
        else:
            statement = self._statements.insert_ready
        written = statement.execute(connection, parameters)
        return int(written[0][0]) if written else None

    def _insert_many(self, connection: Connection, drafts: Sequence[Draft]) -> list[int]:
        first = drafts[0]
        may_collide = first.timer_id is not None or any(draft.deduplicate for draft in drafts)
        plain, deduplicated = (
            (self._statements.insert_with_copies, self._statements.insert_with_copies_deduplicated)
            if first.copies
            else (self._statements.insert_many, self._statements.insert_many_deduplicated)
        )
        first_headers, headers = headers_json_of_each(drafts)
        parameters: dict[str, Any] = {
            "queue": first.queue,
            "timer_id": first.timer_id,
            "activate_at": first.activate_at,
            "activate_in": first.activate_in,
            "channel": self._channel,
            "keys": [draft.key for draft in drafts],
            "idempotency_keys": [draft.idempotency_key for draft in drafts],
            "deduplicates": [draft.deduplicate for draft in drafts],
            "payloads": [draft.payload for draft in drafts],
            "first_headers": first_headers,
            "headers": headers,
        }
        if first.copies:
            parameters["copies"] = list(first.copies)
        written = (deduplicated if may_collide else plain).execute(connection, parameters)
        return list(written[0][0]) if written else []
