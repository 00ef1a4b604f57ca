"""The table in memory: its rows, the writes of a transaction, and the callbacks for new rows."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from faststream_outbox._store.memory.records import LONG_AGO, Record, deferred_until, failed, to_record, utc_now
from faststream_outbox._store.protocol import Announcement, PausesChanged
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.outcome import Dead, Deferred, Delivered, Released, Retry
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard


class MemoryTransaction:
    """Messages that are written, and timers that are cancelled, together or not at all."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.cancelled: set[int] = set()


class MemoryTable:
    """Rows in a dict, in the order of their ids."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._ids = itertools.count(1)
        self._locked: set[Shard] = set()
        self._listeners: set[MemoryListener] = set()

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        """Write messages together: at the end of the block, unless it raises."""
        transaction = MemoryTransaction()
        yield transaction
        for row_id in transaction.cancelled:
            self._records.pop(row_id, None)
        self._commit(transaction.records)

    @property
    def rows(self) -> list[OutboxRow]:
        """All rows that are not dead, in the order of their ids."""
        return [record.row for record in self._records.values() if record.dead is None]

    @property
    def records(self) -> Sequence[Record]:
        """All rows with what the table keeps beside them, in the order of their ids."""
        return [*self._records.values()]

    @property
    def dead_letters(self) -> list[tuple[OutboxRow, Dead]]:
        """Rows that failed for good, each with its reason."""
        return [(record.row, record.dead) for record in self._records.values() if record.dead is not None]

    def ready_among(self, ids: Sequence[int]) -> list[OutboxRow]:
        """Return the rows that wait for nothing."""
        records = (self._records[row_id] for row_id in ids)
        return [record.row for record in records if record.is_ready or record.is_due(utc_now())]

    def forget(self, row_id: int) -> None:
        """Take a row out, as if it had been delivered."""
        self._records.pop(row_id, None)

    def revive(self, ids: Sequence[int]) -> None:
        """Replay dead letters: in place if they held their key, otherwise behind all rows."""
        revived = []
        for record in (self._records.pop(row_id) for row_id in ids):
            row = record.row._replace(attempts_count=0, deliveries_count=0, first_attempt_at=None)
            if record.dead is not None and record.dead.holds_key:
                revived.append(Record(row, record.shard_number, record.deduplicate, utc_now()))
            else:
                row = row._replace(id=next(self._ids), last_attempt_at=None)
                revived.append(Record(row, record.shard_number, record.deduplicate, None))
        self._commit(revived)

    def discard(self, ids: Sequence[int]) -> None:
        """Delete dead letters; what they held back can be taken."""
        self._ring({self._records.pop(row_id).row.queue for row_id in ids})

    def write(self, session: Any, drafts: Sequence[Draft]) -> list[OutboxRow]:
        """Write messages; give their rows, each followed by its copies."""
        visible = self._visible_to(session)
        records: list[Record] = []
        for draft in drafts:
            if draft.moves_timer:
                visible = self._without_timers(session, draft, visible)
            if self._is_duplicate(draft, itertools.chain(visible, records)):
                continue
            for message in (draft, *(draft._replace(queue=queue) for queue in draft.copies)):
                if not self._is_duplicate(message, itertools.chain(visible, records)):
                    records.append(to_record(next(self._ids), message))
        if isinstance(session, MemoryTransaction):
            session.records.extend(records)
        else:
            self._commit(records)
        return [record.row for record in records]

    def _without_timers(self, session: Any, draft: Draft, visible: Sequence[Record]) -> list[Record]:
        """Take out the timer of this name, and its copies, as far as no consumer has them."""
        timers = [
            record
            for record in visible
            if record.row.queue in (draft.queue, *draft.copies)
            and record.row.timer_id == draft.timer_id
            and record.is_untouched
        ]
        if all(record.row.queue != draft.queue for record in timers) and self._is_duplicate(draft, visible):
            return [*visible]
        for record in timers:
            self._cancel(session, record)
        return [record for record in visible if record not in timers]

    @staticmethod
    def _is_duplicate(draft: Draft, records: Iterable[Record]) -> bool:
        for record in records:
            row = record.row
            if row.queue != draft.queue:
                continue
            if draft.deduplicate and record.deduplicate and row.idempotency_key == draft.idempotency_key:
                return True
            if draft.timer_id is not None and row.timer_id == draft.timer_id:
                return True
        return False

    def _visible_to(self, session: Any) -> list[Record]:
        if not isinstance(session, MemoryTransaction):
            return list(self._records.values())
        kept = [record for record in self._records.values() if record.row.id not in session.cancelled]
        return kept + session.records

    def _cancel(self, session: Any, record: Record) -> None:
        if not isinstance(session, MemoryTransaction):
            del self._records[record.row.id]
        elif record in session.records:
            session.records.remove(record)
        else:
            session.cancelled.add(record.row.id)

    def _commit(self, records: Sequence[Record]) -> None:
        for record in records:
            self._records[record.row.id] = record
        self._records = dict(sorted(self._records.items()))
        self._ring({record.row.queue for record in records})

    def _ring(self, queues: set[str]) -> None:
        for queue in queues:
            for listener in self._listeners:
                listener.signals.put_nowait(queue)

    def _at(self, shards: Sequence[Shard], wanted: Callable[[Record], bool]) -> list[Record]:
        """Choose records in the order of the shards, then of their times, then of their ids."""
        order = {shard: position for position, shard in enumerate(shards)}

        def rank(record: Record) -> tuple[int, datetime, int]:
            return order[record.shard], record.next_attempt_at or LONG_AGO, record.row.id

        return sorted((r for r in self._records.values() if r.shard in order and wanted(r)), key=rank)

    def _apply(self, record: Record, outcome: Any) -> None:
        now = utc_now()
        row = record.row
        match outcome:
            case Delivered():
                del self._records[row.id]
            case Retry(delay, _):
                record.row = failed(row, now)
                self._free(record, next_attempt_at=now + timedelta(seconds=delay))
            case Dead():
                record.row = failed(row, now)
                record.dead = outcome
                self._free(record, next_attempt_at=None)
            case Released(started):
                record.row = row if started else row._replace(deliveries_count=row.deliveries_count - 1)
                self._free(record, next_attempt_at=record.row.created_at)
            case Deferred(slot, delay):
                until = deferred_until(now, slot) if delay is None else now + timedelta(seconds=delay)
                self._free(record, next_attempt_at=until)
                record.row = record.row._replace(last_attempt_at=record.row.last_attempt_at or now)

    @staticmethod
    def _free(record: Record, *, next_attempt_at: datetime | None) -> None:
        record.token = None
        record.next_attempt_at = next_attempt_at
        record.row = record.row._replace(acquired_at=None)


class MemoryListener:
    def __init__(self) -> None:
        self.signals: asyncio.Queue[str | Announcement | PausesChanged] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[str | Announcement | PausesChanged]:
        while True:
            yield await self.signals.get()
