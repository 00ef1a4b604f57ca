"""The store in memory, for tests of applications: the same protocol, one process, nothing kept."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from faststream_outbox._store.memory_records import (
    LONG_AGO,
    Record,
    failed,
    fitting,
    in_turns,
    shared_out,
    to_record,
    utc_now,
)
from faststream_outbox._store.protocol import (
    DEFAULT_BATCH_BYTES,
    LONGEST_REST_SECONDS,
    RESCUED_AT_ONCE,
    Announcement,
    Claim,
    Holder,
    Lag,
    LeftOut,
    Listener,
    Place,
    Rescue,
)
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.explanation import Explanation, unexplained
from faststream_outbox._values.outcome import Dead, Delivered, Released, Retry, Settlement, Unwritten
from faststream_outbox._values.row import OutboxRow


class MemoryTransaction:
    """Messages that are written, and timers that are cancelled, together or not at all."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.cancelled: set[int] = set()


class MemoryStore:
    """Rows in a dict. It is both the writer and the store; ``session`` is a ``MemoryTransaction``, or anything.

    Without a ``MemoryTransaction``, each message is written at once.
    """

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._ids = itertools.count(1)
        self._locked: set[Place] = set()
        self._listeners: set[_MemoryListener] = set()

    # Writer

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        """Write messages together: at the end of the block, unless it raises."""
        transaction = MemoryTransaction()
        yield transaction
        for row_id in transaction.cancelled:
            self._records.pop(row_id, None)
        self._commit(transaction.records)

    async def insert(self, session: Any, draft: Draft) -> int | None:
        return self.insert_sync(session, draft)

    def insert_sync(self, session: Any, draft: Draft) -> int | None:
        written = self.write(session, [draft])
        return written[0].id if written else None

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

    # Store

    async def claim(
        self,
        places: Sequence[Place],
        *,
        limit: int,
        lease_seconds: float,
        token: str,
        max_bytes: int = DEFAULT_BATCH_BYTES,
    ) -> Claim:
        now = utc_now()
        due = self._at(places, lambda record: record.is_due(now) and not record.locked)
        ready = self._at(places, lambda record: record.is_ready and not record.locked)
        found = shared_out(due, ready, limit)
        taken = fitting(in_turns(found), max_bytes)
        rows = []
        for record in taken:
            record.token = token
            record.next_attempt_at = now + timedelta(seconds=lease_seconds)
            record.row = record.row._replace(deliveries_count=record.row.deliveries_count + 1, acquired_at=now)
            rows.append(record.row)
        return Claim(sorted(rows, key=lambda row: row.id), has_more=len(taken) < len(found) or len(rows) == limit)

    async def settle(self, settlements: Sequence[Settlement], *, token: str | None) -> Sequence[Unwritten]:
        for row, outcome in settlements:
            record = self._records.get(row.id)
            if record is None or record.token != token or record.row.deliveries_count != row.deliveries_count:
                continue
            self._apply(record, outcome)
        return []

    async def unsettled(self, rows: Sequence[OutboxRow]) -> set[int]:
        return {row.id for row in rows if self._is_unsettled(row)}

    def _is_unsettled(self, row: OutboxRow) -> bool:
        record = self._records.get(row.id)
        counts = (row.deliveries_count, row.attempts_count)
        return (
            record is not None
            and record.dead is None
            and counts
            == (
                record.row.deliveries_count,
                record.row.attempts_count,
            )
        )

    async def renew(self, rows: Sequence[OutboxRow], *, lease_seconds: float, token: str) -> set[int]:
        renewed = set()
        for row in rows:
            record = self._records.get(row.id)
            if record and record.token == token and record.row.deliveries_count == row.deliveries_count:
                record.next_attempt_at = utc_now() + timedelta(seconds=lease_seconds)
                renewed.add(row.id)
        return renewed

    async def give_back(self, queues: Sequence[str], *, known: Sequence[int], token: str) -> None:
        for record in self._records.values():
            if record.token == token and record.row.queue in queues and record.row.id not in known:
                self._apply(record, Released(started=False))

    async def rescue(self, *, token: str, suspects: frozenset[str]) -> Rescue:
        now = utc_now()
        freed = set()
        for record in self._records.values():
            if record.token is not None and record.next_attempt_at is not None and record.next_attempt_at <= now:
                self._free(record, next_attempt_at=_rescued_until(record.row, now))
                freed.add(record.row.queue)
        return Rescue(freed_queues=frozenset(freed), absent=frozenset())

    most_connections = None

    def reserve(self) -> None:
        """Memory has no connections."""

    async def let_go(self) -> None:
        """Memory has none to close."""

    async def seconds_to_next_due(self, places: Sequence[Place]) -> float | None:
        times = [r.next_attempt_at for r in self._at(places, lambda record: record.is_waiting) if r.next_attempt_at]
        return (min(times) - utc_now()).total_seconds() if times else None

    async def lag(self, places: Sequence[Place], *, at_most: int | None = None) -> Lag:
        now = utc_now()
        since = []
        for place in places:
            for kind in (self._at([place], lambda r: r.is_ready), self._at([place], lambda r: r.is_due(now))):
                since += [record.next_attempt_at or record.row.created_at for record in kind[:at_most]]
        return Lag(len(since), (now - min(since)).total_seconds() if since else 0.0)

    async def holders(self, places: Sequence[Place]) -> list[Holder]:
        """Name nobody: who shares the memory is no stranger."""
        return []

    async def unconsumed(self, consumed: Sequence[str], *, limit: int) -> list[str]:
        now = utc_now()
        waiting = {r.row.queue for r in self._records.values() if r.is_ready or r.is_due(now)}
        return sorted(waiting - {*consumed})[:limit]

    async def announce(self, queues: Sequence[str]) -> None:
        for listener in self._listeners:
            listener.signals.put_nowait(Announcement(frozenset(queues)))

    @asynccontextmanager
    async def hand_over(
        self,
        places: Sequence[Place],
        *,
        limit: int,
        breadth: int = 1,
        max_bytes: int = DEFAULT_BATCH_BYTES,
        idle_seconds: float = 0.0,
        left_out: Sequence[LeftOut] = (),
    ) -> AsyncIterator["MemoryHandOver | None"]:
        now = utc_now()
        locked = list(itertools.islice((p for p in places if self._has_work(p, now)), min(breadth, limit)))
        if not locked:
            yield None
            return
        share = limit // len(locked)
        found = {place: self._take(place, share, now, left_out) for place in locked}
        taken = fitting(in_turns(itertools.chain(*found.values())), max_bytes)
        is_cut = len(taken) < sum(map(len, found.values()))
        hand_over = MemoryHandOver(
            places=locked,
            vacant=[] if is_cut else [place for place in locked if not found[place]],
            has_more=is_cut or any(len(records) == share for records in found.values()),
            is_whole=len(locked) < min(breadth, limit),
            records=sorted(taken, key=lambda record: record.row.id),
            acquired_at=now,
        )
        self._locked.update(locked)
        for record in taken:
            record.locked = True
        try:
            yield hand_over
            await self.settle(hand_over.settlements, token=None)
        finally:
            self._locked.difference_update(locked)
            for record in taken:
                record.locked = False

    @asynccontextmanager
    async def listen(self, token: str) -> AsyncIterator[Listener | None]:
        listener = _MemoryListener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def ping(self) -> bool:
        return True

    def explain(self, error: BaseException) -> Explanation:
        return unexplained(error)

    async def differences(self) -> dict[str, list[str]]:
        return {}

    # For tests

    @property
    def rows(self) -> list[OutboxRow]:
        """All rows that are not dead, in the order of their ids."""
        return [record.row for record in self._records.values() if record.dead is None]

    @property
    def dead_letters(self) -> list[tuple[OutboxRow, Dead]]:
        """Rows that failed for good, each with its reason."""
        return [(record.row, record.dead) for record in self._records.values() if record.dead is not None]

    def ready_among(self, ids: Sequence[int]) -> list[OutboxRow]:
        """Those of the rows that wait for nothing."""
        records = (self._records[row_id] for row_id in ids)
        return [record.row for record in records if record.is_ready or record.is_due(utc_now())]

    def forget(self, row_id: int) -> None:
        """Take a row out, as if it had been delivered."""
        self._records.pop(row_id, None)

    def revive(self, ids: Sequence[int]) -> None:
        """Make dead letters ordinary rows again: in place where they held their key, others behind all."""
        revived = []
        for record in (self._records.pop(row_id) for row_id in ids):
            row = record.row._replace(attempts_count=0, deliveries_count=0, first_attempt_at=None)
            if record.dead is not None and record.dead.holds_key:
                revived.append(Record(row, record.shard, record.deduplicate, utc_now()))
            else:
                row = row._replace(id=next(self._ids), last_attempt_at=None)
                revived.append(Record(row, record.shard, record.deduplicate, None))
        self._commit(revived)

    def discard(self, ids: Sequence[int]) -> None:
        """Delete dead letters; what they held back can be taken."""
        self._ring({self._records.pop(row_id).row.queue for row_id in ids})

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

    def write(self, session: Any, drafts: Sequence[Draft]) -> list[OutboxRow]:
        """Write messages; give their rows, each followed by its copies."""
        visible = self._visible_to(session)
        records: list[Record] = []
        for draft in drafts:
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

    def _commit(self, records: Sequence[Record]) -> None:
        for record in records:
            self._records[record.row.id] = record
        self._records = dict(sorted(self._records.items()))
        self._ring({record.row.queue for record in records})

    def _ring(self, queues: set[str]) -> None:
        for queue in queues:
            for listener in self._listeners:
                listener.signals.put_nowait(queue)

    def _at(self, places: Sequence[Place], wanted: Callable[[Record], bool]) -> list[Record]:
        """Choose records in the order of the places, then of their times, then of their ids."""
        order = {place: position for position, place in enumerate(places)}

        def rank(record: Record) -> tuple[int, datetime, int]:
            return order[record.place], record.next_attempt_at or LONG_AGO, record.row.id

        return sorted((r for r in self._records.values() if r.place in order and wanted(r)), key=rank)

    def _has_work(self, place: Place, now: datetime) -> bool:
        return place not in self._locked and bool(self._at([place], lambda r: r.is_ready or r.is_due(now)))

    def _take(self, place: Place, limit: int, now: datetime, left_out: Sequence[LeftOut]) -> list[Record]:
        here = [each for each in left_out if each.place == place]
        left = {each.id for each in here}
        held = {each.held_key for each in here} - {None}
        # The first row of each key that failed and is not settled holds back those behind it.
        first: dict[str, int] = {}
        for record in self._at([place], lambda r: r.holds_key):
            if record.row.key is not None:
                first[record.row.key] = min(record.row.id, first.get(record.row.key, record.row.id))

        def is_free(record: Record) -> bool:
            if record.row.id in left or record.row.key in held:
                return False
            return record.row.key is None or record.row.id <= first.get(record.row.key, record.row.id)

        due = self._at([place], lambda r: r.is_due(now) and is_free(r))
        ready = self._at([place], lambda r: r.is_ready and is_free(r))
        # Ready rows of their keys may stand behind those that a handler has given back.
        given_back = sum(record.is_given_back for record in due[:limit])
        return shared_out(due, ready, limit, at_least=given_back)

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

    @staticmethod
    def _free(record: Record, *, next_attempt_at: datetime | None) -> None:
        record.token = None
        record.next_attempt_at = next_attempt_at
        record.row = record.row._replace(acquired_at=None)


def _rescued_until(row: OutboxRow, now: datetime) -> datetime:
    deliveries = row.deliveries_count - RESCUED_AT_ONCE
    if deliveries <= 0:
        return row.created_at
    return now + timedelta(seconds=min(LONGEST_REST_SECONDS, 2 ** min(deliveries, 30)))


@dataclass
class MemoryHandOver:
    """Rows that no one else is given until the hand-over ends."""

    places: Sequence[Place]
    vacant: Sequence[Place]
    has_more: bool
    is_whole: bool
    records: Sequence[Record]
    acquired_at: datetime
    settlements: list[Settlement] = field(default_factory=list)
    rows: Sequence[OutboxRow] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [record.row._replace(acquired_at=self.acquired_at) for record in self.records]

    def row_places(self) -> Sequence[Place]:
        return [record.place for record in self.records]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Unwritten]:
        self.settlements.extend(settlements)
        return []


class _MemoryListener:
    def __init__(self) -> None:
        self.signals: asyncio.Queue[str | Announcement] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[str | Announcement]:
        while True:
            yield await self.signals.get()
