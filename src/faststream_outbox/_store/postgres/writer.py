"""What publishers do with rows, in the caller's own transaction."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.conflicts import Conflicts
from faststream_outbox._store.postgres.endings import Ending, Warn
from faststream_outbox._store.postgres.listener import channel_of
from faststream_outbox._store.postgres.records import to_rows
from faststream_outbox._store.postgres.sessions import run_in_session, run_in_sync_session
from faststream_outbox._store.postgres.staging import Stager
from faststream_outbox._store.postgres.statements import Statements
from faststream_outbox._store.postgres.target import Target
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.staged import Noted, StagedMessage
from faststream_outbox.exceptions import NotWrittenError

_COMPACT_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class PostgresWriter:
    """Writes messages in the publisher's transaction; it never commits that.

    Args:
        engine: The caller's engine, for messages without a transaction.
        outbox_table: Made by ``make_outbox_table``.
        notify: Whether publishing wakes consumers with NOTIFY.
        waker: Gives what wakes the consumers of a queue in this process, to be called when rows are committed; None
            where there are none, or a notification wakes them.
        warn: Gets a warning for messages that are lost because a session ended without commit.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox_table: Table,
        *,
        notify: bool = True,
        waker: Callable[[], Callable[[str], None] | None] = lambda: None,
        warn: Warn | None = None,
    ) -> None:
        # The engine's own level may be AUTOCOMMIT, where a message and its copies would not be written together.
        self._transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self._waker = waker
        self._warn = warn
        self._target = Target(engine, outbox_table, is_undone=True, notifies=notify)
        self._taken_back = Target(engine, outbox_table, is_undone=True)
        self._looked_at = Target(engine, outbox_table, is_undone=False)
        table = self._target.table
        self._statements = Statements(table, None, notify=notify)
        self._channel = channel_of(table)
        self._conflicts = Conflicts(self._statements, self._parameters)
        self._stager = Stager(self._target, self._insert_staged, self._endings, warn)

    async def insert(self, session: Any, draft: Draft) -> int | None:
        """Write one message; None where it is a live duplicate.

        Before a message with a key, the session's pending changes are flushed: then ids follow the order in which
        transactions locked their domain rows.
        """
        return await run_in_session(
            session,
            lambda conn: self._insert(conn, draft),
            self._target,
            flush=draft.key is not None,
            endings=self._endings(draft),
        )

    def insert_sync(self, session: Any, draft: Draft) -> int | None:
        """Write one message as ``insert`` does, in a plain ``Session`` or ``Connection``."""
        return run_in_sync_session(
            session,
            lambda conn: self._insert(conn, draft),
            self._target,
            flush=draft.key is not None,
            endings=self._endings(draft),
        )

    async def insert_alone(self, draft: Draft) -> int | None:
        """Write one message in a transaction of its own."""
        wake = self._waker()
        async with self._transactional.begin() as connection:
            row_id = await connection.run_sync(self._insert, draft)
        if wake is not None:
            for queue in (draft.queue, *draft.copies):
                wake(queue)
        return row_id

    async def insert_many(self, session: Any, drafts: Sequence[Draft]) -> list[int]:
        """Write messages of one queue in their order; live duplicates are left out."""
        return await run_in_session(
            session,
            lambda conn: self._insert_many(conn, drafts),
            self._target,
            flush=any(draft.key is not None for draft in drafts),
            endings=self._endings(drafts[0]),
        )

    def stage(self, session: Any, draft: Draft, message: StagedMessage, noted: Noted) -> None:
        """Have one message written with the session's flush or before its commit."""
        self._stager.stage(session, draft, message, noted)

    async def cancel_timer(self, session: Any, *, queue: str, timer_id: str, copies: Sequence[str] = ()) -> bool:
        """Delete a timer and its copies as far as no consumer has taken them; tell whether the timer was there."""
        parameters = {"queues": [queue, *copies], "timer_id": timer_id}

        def run(connection: Connection) -> bool:
            return queue in connection.execute(self._statements.cancel_timer, parameters).scalars().all()

        return await run_in_session(session, run, self._taken_back)

    async def fetch_unprocessed(self, session: Any, *, queue: str | None, limit: int) -> list[OutboxRow]:
        """Read rows that no consumer has finished."""
        parameters = {"queue": queue, "limit": limit}

        def run(connection: Connection) -> list[OutboxRow]:
            return to_rows(connection.execute(self._statements.fetch_unprocessed, parameters).all())

        return await run_in_session(session, run, self._looked_at)

    def _endings(self, draft: Draft) -> Sequence[Ending]:
        wake = self._waker()
        own = Ending(draft.queue, wake, self._warn)
        return [own] if wake is None else [own, *(Ending(queue, wake) for queue in draft.copies)]

    def _insert(self, connection: Connection, draft: Draft) -> int | None:
        if draft.moves_timer:
            return self._conflicts.move_timer(connection, draft)
        if draft.copies:
            ids = self._insert_many(connection, [draft])
            return ids[0] if ids else None
        may_collide = draft.deduplicate or draft.timer_id is not None
        if may_collide:
            return self._conflicts.write(connection, draft)
        waits = draft.activate_in is not None or draft.activate_at is not None
        if waits:
            written = self._statements.insert.execute(connection, self._parameters(draft))
        else:
            written = self._statements.insert_ready.execute(connection, self._ready_parameters(draft))
        if not written:
            raise NotWrittenError(draft.queue)
        return int(written[0][0])

    def _insert_many(self, connection: Connection, drafts: Sequence[Draft]) -> list[int]:
        first = drafts[0]
        may_collide = first.timer_id is not None or any(draft.deduplicate for draft in drafts)
        plain, deduplicated = (
            (self._statements.insert_with_copies, self._statements.insert_with_copies_deduplicated)
            if first.copies
            else (self._statements.insert_many, self._statements.insert_many_deduplicated)
        )
        written = (deduplicated if may_collide else plain).execute(connection, self._parameters_of_many(drafts))
        ids = list(written[0][0]) if written else []
        copies = list(written[0][1] or ()) if written and first.copies else []
        if len(ids) == len(drafts) and len(copies) == len(ids) * len(first.copies):
            return ids
        if may_collide:
            anew = self._conflicts.write_anew(connection, drafts, [*ids, *copies])
            return ids if anew is None else [row_id for row_id in anew if row_id is not None]
        self._statements.take_back.execute(connection, {"ids": [*ids, *copies]})
        raise NotWrittenError(first.queue)

    def _insert_staged(self, connection: Connection, drafts: Sequence[Draft]) -> list[int | None]:
        """Write messages of any queues in their order, and return the id of each; None where it is a live duplicate."""
        if len(drafts) == 1 or any(draft.moves_timer for draft in drafts):
            return [self._insert(connection, draft) for draft in drafts]
        copies = {draft.queue: draft.copies for draft in drafts if draft.copies}
        may_collide = any(draft.deduplicate or draft.timer_id is not None for draft in drafts)
        statements = self._statements.insert_staged
        plain, deduplicated = (
            (statements.with_copies, statements.with_copies_deduplicated)
            if copies
            else (statements.plain, statements.deduplicated)
        )
        written = (deduplicated if may_collide else plain).execute(
            connection, self._parameters_of_staged(drafts, copies)
        )
        ids, queues, keys = written[0][:3] if written else ((), (), ())
        copied = list(written[0][3] or ()) if written and copies else []
        # Of two messages with one key, the first is the row.
        found = dict(zip(zip(queues, keys, strict=True), ids, strict=True))
        row_ids = [found.pop((draft.queue, draft.idempotency_key), None) for draft in drafts]
        if len(ids) == len(drafts) and len(copied) == sum(len(copies.get(queue, ())) for queue in queues):
            return row_ids
        if may_collide:
            anew = self._conflicts.write_anew(connection, drafts, [*ids, *copied])
            return row_ids if anew is None else anew
        self._statements.take_back.execute(connection, {"ids": [*ids, *copied]})
        missing = [draft for draft, row_id in zip(drafts, row_ids, strict=True) if row_id is None]
        raise NotWrittenError((missing or drafts)[0].queue)

    def _ready_parameters(self, draft: Draft) -> dict[str, Any]:
        return {
            "queue": draft.queue,
            "key": draft.key,
            "idempotency_key": draft.idempotency_key,
            "payload": draft.payload,
            "headers": headers_json(draft.headers),
            "channel": self._channel,
        }

    def _parameters(self, draft: Draft) -> dict[str, Any]:
        return {
            **self._ready_parameters(draft),
            "deduplicate": draft.deduplicate,
            "timer_id": draft.timer_id,
            "activate_at": draft.activate_at,
            "activate_in": draft.activate_in,
        }

    def _parameters_of_many(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        first = drafts[0]
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
        return parameters

    def _parameters_of_staged(self, drafts: Sequence[Draft], copies: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "channel": self._channel,
            "queues": [draft.queue for draft in drafts],
            "keys": [draft.key for draft in drafts],
            "idempotency_keys": [draft.idempotency_key for draft in drafts],
            "deduplicates": [draft.deduplicate for draft in drafts],
            "payloads": [draft.payload for draft in drafts],
            "headers": [headers_json(draft.headers) for draft in drafts],
            "timer_ids": [draft.timer_id for draft in drafts],
            "activate_ats": [draft.activate_at for draft in drafts],
            "activate_ins": [draft.activate_in for draft in drafts],
        }
        if copies:
            pairs = [(queue, copy) for queue, names in copies.items() for copy in names]
            parameters |= {"origins": [queue for queue, _ in pairs], "copies": [copy for _, copy in pairs]}
        return parameters


def headers_json(headers: Mapping[str, str]) -> str:
    """Write headers as the JSON text that the table keeps."""
    return _COMPACT_JSON.encode(headers)


def headers_json_of_each(drafts: Sequence[Draft]) -> tuple[str, list[str | None]]:
    """Write the headers of the first draft, and of each draft: None where it has the mapping of the first."""
    first = drafts[0].headers
    written: dict[int, str] = {}
    texts: list[str | None] = []
    for draft in drafts:
        headers = draft.headers
        if headers is first:
            texts.append(None)
            continue
        if id(headers) not in written:
            written[id(headers)] = headers_json(headers)
        texts.append(written[id(headers)])
    return headers_json(first), texts
