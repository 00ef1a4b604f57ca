"""A store under test, and what tests do with one."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import pytest

from faststream_outbox._store.protocol import PRESENCE_PREFIX, DeadLetterStore, HandOver, Store, Writer
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.limits import DEFAULT_MAX_PAYLOAD_BYTES
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry, Settlement
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.publisher.drafter import Drafter
from faststream_outbox.schema import SHARDS

T = TypeVar("T")

ME = f"{PRESENCE_PREFIX}me"
OTHER = f"{PRESENCE_PREFIX}other"
LONG = 3600.0
PAST = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Stored:
    """A living row as it stands in the table."""

    row: OutboxRow
    shard: int
    token: str | None
    next_attempt_at: datetime | None
    last_exception: str | None = None


@dataclass(frozen=True)
class Died:
    """A dead letter, wherever it lies."""

    row: OutboxRow
    reason: str
    exception: str | None


class Subject(Protocol):
    """A store under test."""

    store: Store
    writer: Writer
    dead_letters: DeadLetterStore
    parks: bool
    """Dead letters stay in the table, and go on counting as live duplicates."""
    keeps_exceptions: bool
    """`last_exception` of a row that will be tried again can be read."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A transaction of the caller: committed at the end of the block, rolled back when it raises."""

    async def rows(self) -> dict[int, Stored]:
        """Living rows by id, looked at past the store."""

    async def dead(self) -> dict[int, Died]:
        """Dead letters by id, looked at past the store."""


class Failed(Exception):
    """What was begun fails at its end."""


@asynccontextmanager
async def failing(begun: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Let a transaction or a hand-over fail when the block is over."""
    with pytest.raises(Failed):  # noqa: PT012 - it is the end of the inner block that raises
        async with begun as entered:
            yield entered
            raise Failed


def draft(queue: str = "q", body: bytes = b"body", **options: Any) -> Draft:
    own = {name: options.pop(name) for name in ("key", "idempotency_key") if name in options}
    content_type = options.pop("content_type", "text/plain")
    drafter = Drafter(queue=queue, max_payload_bytes=DEFAULT_MAX_PAYLOAD_BYTES, **options)
    return drafter.draft(body, content_type, **own)


def shards(*queues: str) -> list[Shard]:
    return [Shard(queue, number) for queue in queues or ("q",) for number in range(SHARDS)]


def ids(rows: Sequence[OutboxRow]) -> list[int]:
    return [row.id for row in rows]


async def put(subject: Subject, *drafts: Draft) -> list[int]:
    """Publish messages in one committed transaction; none may be a duplicate."""
    async with subject.transaction() as session:
        written = [await subject.writer.insert(session, message) for message in drafts or (draft(),)]
    return [row_id for row_id in written if row_id is not None]


async def claim(subject: Subject, *queues: str, limit: int = 100, seconds: float = LONG, token: str = ME) -> list[Any]:
    claimed = await subject.store.claim(shards(*queues), limit=limit, lease_seconds=seconds, token=token)
    return claimed.rows


async def settle(subject: Subject, rows: Sequence[OutboxRow], outcome: Outcome, *, token: str = ME) -> None:
    await subject.store.settle([Settlement(row, outcome) for row in rows], token=token)


async def fail_once(subject: Subject, *drafts: Draft, delay: float = LONG) -> list[int]:
    """Publish messages that then fail and wait for their next attempt."""
    written = await put(subject, *drafts)
    async with subject.store.hand_over(await shards_of(subject, *written), limit=100) as hand_over:
        assert hand_over is not None
        rows = [row for row in hand_over.rows if row.id in written]
        await hand_over.settle([Settlement(row, Retry(delay)) for row in rows])
    assert ids(rows) == written
    return written


async def shards_of(subject: Subject, *row_ids: int) -> list[Shard]:
    rows = await subject.rows()
    return list(dict.fromkeys(Shard(rows[row_id].row.queue, rows[row_id].shard) for row_id in row_ids))


async def keys_apart(subject: Subject, count: int) -> list[str]:
    """Keys of which no two have one shard."""
    candidates = [f"key-{number}" for number in range(20 * count)]
    written = await put(subject, *(draft("probe", key=key) for key in candidates))
    rows = await subject.rows()
    by_shard = {rows[row_id].shard: key for row_id, key in zip(written, candidates, strict=True)}
    return list(by_shard.values())[:count]


async def keys_together(subject: Subject, count: int) -> list[str]:
    """Keys that all have one shard."""
    candidates = [f"key-{number}" for number in range(3 * SHARDS * count)]
    written = await put(subject, *(draft("probe", key=key) for key in candidates))
    rows = await subject.rows()
    together = [key for row_id, key in zip(written, candidates, strict=True) if rows[row_id].shard == 0]
    assert len(together) >= count
    return together[:count]


def ids_of_queue(rows: Mapping[int, Stored], queue: str = "q") -> list[int]:
    return [row_id for row_id, stored in rows.items() if stored.row.queue == queue]


def parts(hand_over: HandOver | None) -> list[int]:
    assert hand_over is not None
    return ids(hand_over.rows)


async def hold(subject: Subject, key: str, queue: str = "q") -> list[int]:
    """Publish a message that fails for good and holds its key."""
    [row_id] = await put(subject, draft(queue, key=key))
    async with subject.store.hand_over(await shards_of(subject, row_id), limit=100) as hand_over:
        assert hand_over is not None
        dead = Dead("rejected", "of what it died", holds_key=True)
        await hand_over.settle([Settlement(row, dead) for row in hand_over.rows if row.id == row_id])
    return [row_id]


async def visit(subject: Subject, *queues: str) -> list[int]:
    """Take rows from every shard, and give all of them back."""
    where, taken = shards(*queues), []
    while where:
        async with subject.store.hand_over(where, limit=100) as hand_over:
            if hand_over is None:
                break
            taken += ids(hand_over.rows)
            where = [shard for shard in where if shard not in hand_over.shards]
    return sorted(taken)


async def deliver(subject: Subject) -> None:
    """Make one hand-over."""
    async with subject.store.hand_over(shards(), limit=100) as hand_over:
        assert hand_over is not None
        await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])


async def die(subject: Subject, *messages: tuple[Draft, str]) -> list[int]:
    """Publish messages that fail for good, one after the other; give their ids."""
    dead = []
    for message, reason in messages:
        [row_id] = await put(subject, message)
        [row] = [row for row in await claim(subject, message.queue) if row.id == row_id]
        await settle(subject, [row], Dead(reason, "of what it died"))
        others = await subject.rows()
        await settle(subject, [stored.row for stored in others.values()], Released())
        dead.append(row_id)
    return dead


async def seconds_to_due(subject: Subject, wanted: Sequence[Shard]) -> float | None:
    """The seconds until the first waiting row of these shards is due."""
    found = [outlook.seconds for outlook in (await subject.store.outlook(wanted)).values()]
    return min((seconds for seconds in found if seconds is not None), default=None)
