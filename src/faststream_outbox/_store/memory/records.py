"""A row of the store in memory, and what becomes of it."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zlib import crc32

from faststream_outbox._store.halves import halves
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.outcome import Dead
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS

LONG_AGO = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Record:
    """A row with what the table keeps beside it."""

    row: OutboxRow
    shard_number: int
    deduplicate: bool
    next_attempt_at: datetime | None
    token: str | None = None
    locked: bool = False
    dead: Dead | None = None

    @property
    def shard(self) -> Shard:
        return Shard(self.row.queue, self.shard_number)

    @property
    def is_ready(self) -> bool:
        return self.next_attempt_at is None and self.dead is None

    @property
    def is_waiting(self) -> bool:
        return self.next_attempt_at is not None and self.token is None and self.dead is None

    @property
    def holds_key(self) -> bool:
        """The later rows of its key wait: it failed before and waits itself, or it is a dead letter that holds them."""
        if self.row.key is None or self.row.last_attempt_at is None:
            return False
        return self.next_attempt_at is not None if self.dead is None else self.dead.holds_key

    @property
    def is_given_back(self) -> bool:
        """It waits, since a handler had it and did not settle it."""
        if not self.is_waiting or self.next_attempt_at is None or self.row.last_attempt_at is not None:
            return False
        return self.row.deliveries_count > 0 or self.next_attempt_at == self.row.created_at

    @property
    def is_untouched(self) -> bool:
        """No consumer has it, or had it to the end."""
        return self.token is None and self.dead is None and not self.locked

    def is_due(self, now: datetime) -> bool:
        return self.is_waiting and self.next_attempt_at is not None and self.next_attempt_at <= now


def to_record(row_id: int, draft: Draft) -> Record:
    """Return the record of a published message."""
    now = utc_now()
    at = draft.activate_at if draft.activate_in is None else now + draft.activate_in
    key = None if draft.key is None else draft.key.encode()
    row = OutboxRow(
        id=row_id,
        queue=draft.queue,
        key=draft.key,
        idempotency_key=draft.idempotency_key,
        payload=draft.payload,
        headers=dict(draft.headers),
        attempts_count=0,
        deliveries_count=0,
        created_at=now,
        timer_id=draft.timer_id,
    )
    number = row_id % SHARDS if key is None else crc32(key) % SHARDS
    return Record(row, number, draft.deduplicate, at)


def fitting(records: Sequence[Record], max_bytes: int) -> Sequence[Record]:
    """Return as many from the front as have so many bytes together, but at least one."""
    sizes = (len(r.row.payload) + sum(len(n) + len(v) for n, v in r.row.headers.items()) for r in records)
    count = sum(1 for size in itertools.accumulate(sizes) if size <= max_bytes)
    return records[: max(1, count)]


def shared_out(due: Sequence[Record], ready: Sequence[Record], limit: int, *, at_least: int = 0) -> list[Record]:
    """Choose half from each, and at least so many due ones, from the front; what one does not use the other gets."""
    taken_ready = ready[: limit - min(len(due), max(halves(limit).due_share, at_least))]
    return [*due[: limit - len(taken_ready)], *taken_ready]


def in_turns(records: Iterable[Record]) -> list[Record]:
    """Order those of a claim or hand-over: one whose time has come, one that is ready, and so on."""
    ordered = sorted(records, key=lambda record: (record.next_attempt_at or NEVER, record.row.id))
    first = [record for record in ordered if record.is_given_back]
    due = [record for record in ordered if not record.is_ready and not record.is_given_back]
    ready = [record for record in ordered if record.is_ready]
    pair = (due, ready) if halves(1).due_first else (ready, due)
    return first + [record for turn in itertools.zip_longest(*pair) for record in turn if record is not None]


def failed(row: OutboxRow, now: datetime) -> OutboxRow:
    """Count an attempt that failed."""
    return row._replace(
        attempts_count=row.attempts_count + 1,
        first_attempt_at=row.first_attempt_at or now,
        last_attempt_at=now,
    )


def deferred_until(now: datetime, slot: int, *, at_least: timedelta = timedelta(seconds=30)) -> datetime:
    """Return the first time that is a slot's own and further away than that."""
    origin = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=slot)
    minutes = (now + at_least - origin) // timedelta(minutes=1)
    return origin + timedelta(minutes=minutes + 1)


def utc_now() -> datetime:
    return datetime.now(UTC)
