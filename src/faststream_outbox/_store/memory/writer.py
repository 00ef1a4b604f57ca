"""Writes messages to memory."""

import itertools
from collections.abc import Sequence
from typing import Any

from faststream_outbox._store.memory.table import MemoryTable
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.staged import Noted, StagedMessage


class MemoryWriter(MemoryTable):
    """What the broker publishes through; ``session`` is a ``MemoryTransaction``, or anything.

    Without a ``MemoryTransaction``, each message is written at once.
    """

    async def insert(self, session: Any, draft: Draft) -> int | None:
        return self.insert_sync(session, draft)

    def insert_sync(self, session: Any, draft: Draft) -> int | None:
        written = self.write(session, [draft])
        return written[0].id if written else None

    def stage(self, session: Any, draft: Draft, message: StagedMessage, noted: Noted) -> None:
        """Write one message at once: nothing here has a flush."""
        message.id, message.is_written = self.insert_sync(session, draft), True
        duplicates = int(message.id is None)
        noted(draft.queue, rows=1 - duplicates, duplicates=duplicates, seconds=0.0)

    async def insert_alone(self, draft: Draft) -> int | None:
        return self.insert_sync(None, draft)

    async def insert_many(self, session: Any, drafts: Sequence[Draft]) -> list[int]:
        return [row.id for row in self.write(session, drafts) if row.queue == drafts[0].queue]

    async def cancel_timer(self, session: Any, *, queue: str, timer_id: str, copies: Sequence[str] = ()) -> bool:
        cancelled = [
            record
            for record in self._visible_to(session)
            if record.row.queue in (queue, *copies) and record.row.timer_id == timer_id and record.is_untouched
        ]
        for record in cancelled:
            self._cancel(session, record)
        return any(record.row.queue == queue for record in cancelled)

    async def fetch_unprocessed(self, session: Any, *, queue: str | None, limit: int) -> list[OutboxRow]:
        alive = (record.row for record in self._visible_to(session) if record.dead is None)
        return list(itertools.islice((row for row in alive if queue is None or row.queue == queue), limit))
