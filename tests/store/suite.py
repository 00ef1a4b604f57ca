"""What every store promises, as one suite. A store passes it by filling in a `Subject`.

Time is not waited for: a row is due because its time is past, a lease has run out because it was given zero seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import pytest

from faststream_outbox._store.protocol import (
    LONGEST_REST_SECONDS,
    PRESENCE_PREFIX,
    RESCUED_AT_ONCE,
    Announcement,
    DeadLetterStore,
    HandOver,
    LeftOut,
    Shard,
    Store,
    Writer,
)
from faststream_outbox._values.dead_letter import Selection
from faststream_outbox._values.draft import DEFAULT_MAX_PAYLOAD_BYTES, Draft, DraftMaker
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry, Settlement
from faststream_outbox._values.row import OutboxRow
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
    headers, content_type = options.pop("headers", None), options.pop("content_type", "text/plain")
    maker = DraftMaker(queue=queue, max_payload_bytes=DEFAULT_MAX_PAYLOAD_BYTES, **options)
    return maker.make(body, maker.make_headers(headers, content_type), **own)


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


class StoreSuite:
    # --- publishing

    async def test_a_row_exists_when_its_transaction_commits(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            row_id = await subject.writer.insert(session, draft())
        assert list(await subject.rows()) == [row_id]

    async def test_nothing_is_written_when_the_transaction_is_rolled_back(self, subject: Subject) -> None:
        async with failing(subject.transaction()) as session:
            await subject.writer.insert(session, draft())
            await subject.writer.insert_many(session, [draft(), draft()])
        assert await subject.rows() == {}

    async def test_nobody_sees_a_row_before_the_commit(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            await subject.writer.insert(session, draft(key="k"))
            assert await claim(subject) == []
            async with subject.store.hand_over(shards(), limit=10) as hand_over:
                assert hand_over is None
        assert len(await claim(subject)) == 1

    async def test_every_part_of_a_message_is_kept(self, subject: Subject) -> None:
        message = draft(
            body=bytes(range(256)),
            key="Schlüssel\u200d'\"%:",
            headers={"Größe": "5 µm", "empty": "", "quote": '"\\'},
            correlation_id="c",
            idempotency_key="i",
            timer_id="t",
        )
        [row_id] = await put(subject, message)
        stored = (await subject.rows())[row_id]
        assert stored.row.payload == bytes(range(256))
        assert stored.row.key == "Schlüssel\u200d'\"%:"
        assert stored.row.headers == message.headers
        assert (stored.row.idempotency_key, stored.row.timer_id) == ("i", "t")
        assert (stored.row.attempts_count, stored.row.deliveries_count) == (0, 0)
        assert stored.row.created_at.utcoffset() == timedelta(0)
        assert (stored.token, stored.next_attempt_at) == (None, None)
        [claimed] = await claim(subject)
        assert claimed._replace(acquired_at=None, deliveries_count=0) == stored.row

    async def test_ids_grow_in_publishing_order(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            first = await subject.writer.insert(session, draft(body=b"0"))
            many = await subject.writer.insert_many(session, [draft(body=b"%d" % n) for n in range(1, 51)])
            last = await subject.writer.insert(session, draft(body=b"51"))
        written = [first, *many, last]
        assert written == sorted(written)
        rows = await subject.rows()
        assert [rows[row_id].row.payload for row_id in written] == [b"%d" % n for n in range(52)]

    async def test_rows_of_a_batch_keep_their_own_parts(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            written = await subject.writer.insert_many(
                session,
                [draft(key="a", headers={"n": "1"}), draft(idempotency_key="mine"), draft(body=b"\x00\xff")],
            )
        rows = [stored.row for stored in (await subject.rows()).values()]
        assert ids(rows) == written
        assert [row.key for row in rows] == ["a", None, None]
        assert rows[0].headers["n"] == "1"
        assert rows[1].idempotency_key == "mine"
        assert rows[2].payload == b"\x00\xff"

    @pytest.mark.parametrize("options", [{"idempotency_key": "same"}, {"timer_id": "same"}])
    async def test_a_live_duplicate_is_left_out_and_the_transaction_stays_usable(
        self, subject: Subject, options: dict[str, str]
    ) -> None:
        async with subject.transaction() as session:
            first = await subject.writer.insert(session, draft(**options))
            assert await subject.writer.insert(session, draft(**options)) is None
            behind = await subject.writer.insert(session, draft())
        async with subject.transaction() as session:
            assert await subject.writer.insert(session, draft(**options)) is None
            last = await subject.writer.insert(session, draft())
        assert list(await subject.rows()) == [first, behind, last]

    @pytest.mark.parametrize("options", [{"idempotency_key": "same"}, {"timer_id": "same"}])
    async def test_duplicates_are_told_apart_by_queue(self, subject: Subject, options: dict[str, str]) -> None:
        assert len(await put(subject, draft("a", **options), draft("b", **options))) == 2

    async def test_live_duplicates_are_left_out_of_a_batch(self, subject: Subject) -> None:
        await put(subject, draft(idempotency_key="old"))
        async with subject.transaction() as session:
            keys = ["new", "old", "new", "newer"]
            written = await subject.writer.insert_many(session, [draft(idempotency_key=key) for key in keys])
        rows = await subject.rows()
        assert [rows[row_id].row.idempotency_key for row_id in written] == ["new", "newer"]

    async def test_a_batch_of_duplicates_writes_nothing(self, subject: Subject) -> None:
        [first] = await put(subject, draft(idempotency_key="same"))
        async with subject.transaction() as session:
            assert await subject.writer.insert_many(session, [draft(idempotency_key="same")] * 2) == []
        assert list(await subject.rows()) == [first]

    async def test_a_key_that_the_bridge_made_is_never_taken_for_a_duplicate(self, subject: Subject) -> None:
        made = draft()
        assert len(await put(subject, made, draft(idempotency_key=made.idempotency_key))) == 2

    async def test_a_leased_row_is_a_live_duplicate(self, subject: Subject) -> None:
        await put(subject, draft(idempotency_key="i"))
        await claim(subject)
        assert await put(subject, draft(idempotency_key="i")) == []

    async def test_a_finished_row_is_no_live_duplicate(self, subject: Subject) -> None:
        await put(subject, draft(idempotency_key="i", timer_id="t"))
        await settle(subject, await claim(subject), Delivered())
        assert len(await put(subject, draft(idempotency_key="i", timer_id="t"))) == 1

    @pytest.mark.parametrize("options", [{"idempotency_key": "same"}, {"timer_id": "same"}])
    async def test_a_dead_letter_is_a_live_duplicate_while_it_is_in_the_table(
        self, subject: Subject, options: dict[str, str]
    ) -> None:
        await put(subject, draft(**options))
        await settle(subject, await claim(subject), Dead("rejected"))
        assert bool(await put(subject, draft(**options))) is not subject.parks

    @pytest.mark.parametrize("argument", ["activate_in", "activate_at"])
    async def test_a_row_waits_for_its_time(self, subject: Subject, argument: str) -> None:
        hour = timedelta(hours=1)
        options: dict[str, Any] = {argument: hour if argument == "activate_in" else datetime.now(UTC) + hour}
        [single] = await put(subject, draft(**options))
        async with subject.transaction() as session:
            [batched] = await subject.writer.insert_many(session, [draft(**options)])
        rows = await subject.rows()
        for row_id in (single, batched):
            due = rows[row_id].next_attempt_at
            assert due is not None
            assert abs((due - datetime.now(UTC)).total_seconds() - 3600) < 60
        assert await claim(subject) == []
        async with subject.store.hand_over(shards(), limit=10) as hand_over:
            assert hand_over is None
        seconds = await subject.store.seconds_to_next_due(shards())
        assert seconds is not None
        assert 3500 < seconds <= 3600

    @pytest.mark.parametrize("options", [{"activate_in": timedelta(0)}, {"activate_at": PAST}], ids=["in", "at"])
    async def test_a_row_whose_time_has_come_is_given_out(self, subject: Subject, options: dict[str, Any]) -> None:
        written = await put(subject, draft(**options))
        assert ids(await claim(subject)) == written

    # --- copies

    async def test_a_message_and_its_copies_are_rows_of_one_identity(self, subject: Subject) -> None:
        message = draft(
            body=b"\x00\xff", key="k", headers={"a": "b"}, idempotency_key="i", timer_id="t", activate_at=PAST
        )
        async with subject.transaction() as session:
            row_id = await subject.writer.insert(session, message._replace(copies=("q=>a", "q=>b")))
        rows = await subject.rows()
        assert {stored.row.queue: row for row, stored in rows.items()}["q"] == row_id
        assert sorted(stored.row.queue for stored in rows.values()) == ["q", "q=>a", "q=>b"]
        own = rows[row_id].row
        for stored in rows.values():
            assert stored.row._replace(id=own.id, queue="q", created_at=own.created_at) == own
            assert stored.next_attempt_at == PAST
        assert ids(await claim(subject, "q=>b")) == [max(rows)]

    async def test_copies_of_a_batch_follow_its_order(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            messages = [draft(key="k", body=b"%d" % n)._replace(copies=("q=>a", "q=>b")) for n in range(30)]
            written = await subject.writer.insert_many(session, messages)
        bodies = [b"%d" % n for n in range(30)]
        own = await claim(subject)
        assert ids(own) == written
        for rows in (own, await claim(subject, "q=>a"), await claim(subject, "q=>b")):
            assert [row.payload for row in rows] == bodies

    @pytest.mark.parametrize("copies", [(), ("q=>a",)], ids=["alone", "with copies"])
    async def test_messages_of_a_batch_may_share_their_headers(self, subject: Subject, copies: tuple[str, ...]) -> None:
        first, other, third = draft(headers={"n": "1"}), draft(headers={"ü": '"\\'}), draft(headers={})
        messages = [first, first, other, first, third, other]
        async with subject.transaction() as session:
            batch = [message._replace(copies=copies) for message in messages]
            written = await subject.writer.insert_many(session, batch)
        rows = await subject.rows()
        assert [rows[row_id].row.headers for row_id in written] == [dict(message.headers) for message in messages]
        for queue in copies:
            assert [row.headers for row in await claim(subject, queue)] == [dict(m.headers) for m in messages]

    async def test_copies_come_and_go_with_their_transaction(self, subject: Subject) -> None:
        async with failing(subject.transaction()) as session:
            await subject.writer.insert(session, draft()._replace(copies=("q=>a",)))
            await subject.writer.insert_many(session, [draft()._replace(copies=("q=>a",))])
        assert await subject.rows() == {}

    @pytest.mark.parametrize("options", [{"idempotency_key": "same"}, {"timer_id": "same"}])
    async def test_a_live_duplicate_gets_no_copies(self, subject: Subject, options: dict[str, str]) -> None:
        await put(subject, draft(**options))
        message = draft(**options)._replace(copies=("q=>a",))
        async with subject.transaction() as session:
            assert await subject.writer.insert(session, message) is None
            fresh = draft(idempotency_key="fresh")._replace(copies=("q=>a",)) if "timer_id" not in options else message
            written = await subject.writer.insert_many(session, [message, fresh])
        rows = list((await subject.rows()).values())
        assert len(written) == (0 if fresh is message else 1)
        assert [s.row.queue for s in rows] == (["q"] if fresh is message else ["q", "q", "q=>a"])

    @pytest.mark.parametrize("options", [{"idempotency_key": "same"}, {"timer_id": "same"}])
    async def test_a_copy_that_is_still_alive_is_left_out_alone(
        self, subject: Subject, options: dict[str, str]
    ) -> None:
        message = draft(**options)._replace(copies=("q=>a", "q=>b"))
        async with subject.transaction() as session:
            await subject.writer.insert(session, message)
        for done in ("q", "q=>a"):
            await settle(subject, await claim(subject, done), Delivered())
        async with subject.transaction() as session:
            again = await subject.writer.insert(session, message)
            assert await subject.writer.insert(session, message) is None
        assert again is not None
        assert sorted(s.row.queue for s in (await subject.rows()).values()) == ["q", "q=>a", "q=>b"]

    async def test_a_cancelled_timer_takes_along_the_copies_that_nobody_has(self, subject: Subject) -> None:
        copies = ("q=>a", "q=>b")
        async with subject.transaction() as session:
            await subject.writer.insert(session, draft(timer_id="t")._replace(copies=copies))
        await claim(subject, "q=>a")
        async with subject.transaction() as session:
            assert await subject.writer.cancel_timer(session, queue="q", timer_id="t", copies=copies) is True
            assert await subject.writer.cancel_timer(session, queue="q", timer_id="t", copies=copies) is False
        assert [s.row.queue for s in (await subject.rows()).values()] == ["q=>a"]

    async def test_copies_are_taken_back_though_the_message_itself_is_gone(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            await subject.writer.insert(session, draft(timer_id="t")._replace(copies=("q=>a",)))
        await settle(subject, await claim(subject), Delivered())
        async with subject.transaction() as session:
            assert await subject.writer.cancel_timer(session, queue="q", timer_id="t", copies=("q=>a",)) is False
        assert await subject.rows() == {}

    async def test_a_look_at_a_queue_leaves_copies_out(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            row_id = await subject.writer.insert(session, draft()._replace(copies=("q=>a",)))
            assert ids(await subject.writer.fetch_unprocessed(session, queue="q", limit=9)) == [row_id]
            assert len(await subject.writer.fetch_unprocessed(session, queue=None, limit=9)) == 2

    # --- timers and looking

    async def test_a_waiting_timer_is_cancelled(self, subject: Subject) -> None:
        [_, other] = await put(
            subject,
            draft(timer_id="t", activate_in=timedelta(hours=1)),
            draft("other", timer_id="t", activate_in=timedelta(hours=1)),
        )
        async with subject.transaction() as session:
            assert await subject.writer.cancel_timer(session, queue="q", timer_id="t") is True
            assert await subject.writer.cancel_timer(session, queue="q", timer_id="t") is False
        assert list(await subject.rows()) == [other]
        assert len(await put(subject, draft(timer_id="t"))) == 1

    async def test_a_timer_of_the_same_transaction_is_cancelled(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            await subject.writer.insert(session, draft(timer_id="t"))
            assert await subject.writer.cancel_timer(session, queue="q", timer_id="t") is True
        assert await subject.rows() == {}

    async def test_a_cancellation_is_rolled_back(self, subject: Subject) -> None:
        written = await put(subject, draft(timer_id="t"))
        async with failing(subject.transaction()) as session:
            assert await subject.writer.cancel_timer(session, queue="q", timer_id="t") is True
        assert list(await subject.rows()) == written

    async def test_there_is_no_timer_to_cancel(self, subject: Subject) -> None:
        await put(subject, draft(idempotency_key="t"), draft("leased", timer_id="t"), draft("dead", timer_id="t"))
        await claim(subject, "leased")
        await settle(subject, await claim(subject, "dead"), Dead("rejected"))
        async with subject.transaction() as session:
            for queue in ("q", "leased", "dead", "unknown"):
                assert await subject.writer.cancel_timer(session, queue=queue, timer_id="t") is False
        assert len(await subject.rows()) == 2

    async def test_unprocessed_rows_are_looked_at_and_left_alone(self, subject: Subject) -> None:
        written = await put(
            subject, draft(), draft("other"), draft(activate_in=timedelta(hours=1)), draft("dead"), draft(key="k")
        )
        await settle(subject, await claim(subject, "dead"), Dead("rejected"))
        leased = await claim(subject, "other")
        before = await subject.rows()
        alive = [written[0], written[1], written[2], written[4]]
        async with subject.transaction() as session:
            found = await subject.writer.fetch_unprocessed(session, queue=None, limit=100)
            assert ids(found) == alive
            assert found[1] == leased[0]
            assert ids(await subject.writer.fetch_unprocessed(session, queue=None, limit=2)) == alive[:2]
            of_queue = await subject.writer.fetch_unprocessed(session, queue="q", limit=100)
            assert ids(of_queue) == [written[0], written[2], written[4]]
        assert await subject.rows() == before

    async def test_rows_of_the_same_transaction_are_looked_at(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            row_id = await subject.writer.insert(session, draft())
            assert ids(await subject.writer.fetch_unprocessed(session, queue=None, limit=10)) == [row_id]

    # --- claims

    async def test_a_claim_leases_rows_in_order(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key=f"k{n % 3}") for n in range(10)))
        claimed = await claim(subject)
        assert ids(claimed) == written
        assert {row.deliveries_count for row in claimed} == {1}
        assert all(row.acquired_at is not None for row in claimed)
        assert {stored.token for stored in (await subject.rows()).values()} == {ME}

    async def test_a_claim_takes_no_more_than_its_limit(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key=f"k{n}") for n in range(10)))
        first, second, third, fourth = [await claim(subject, limit=4) for _ in range(4)]
        assert [len(first), len(second), len(third), len(fourth)] == [4, 4, 2, 0]
        assert sorted(ids(first + second + third)) == written

    @pytest.mark.parametrize(
        ("due", "ready", "taken_due", "taken_ready"), [(5, 5, 2, 2), (1, 5, 1, 3), (5, 1, 3, 1), (5, 0, 4, 0)]
    )
    async def test_half_of_a_claim_is_for_rows_whose_time_has_come_and_what_one_half_does_not_use_the_other_gets(
        self, subject: Subject, due: int, ready: int, taken_due: int, taken_ready: int
    ) -> None:
        is_ready = await put(subject, *(draft(key="k") for _ in range(ready))) if ready else []
        # Of these the first is due since the shortest time.
        times = (PAST - timedelta(hours=n) for n in range(due))
        is_due = (await put(subject, *(draft(key="k", activate_at=time) for time in times)))[::-1]
        claimed = await claim(subject, limit=4)
        assert ids(claimed) == sorted(is_due[:taken_due] + is_ready[:taken_ready])
        assert len(await claim(subject, limit=100)) == due + ready - len(claimed)

    async def test_claims_of_one_row_take_both_kinds_from_each_shard_in_the_long_run(self, subject: Subject) -> None:
        keys = await keys_apart(subject, 2)
        kinds = dict.fromkeys(await put(subject, *(draft(key=key) for key in keys * 40)), "ready")
        kinds |= dict.fromkeys(await put(subject, *(draft(key=key, activate_at=PAST) for key in keys * 40)), "due")
        where = await shards_of(subject, *list(kinds)[:2])
        taken = set()
        # Lots are drawn: the test fails of itself once in 200 million runs.
        for turn in range(60):
            order = where if turn % 2 else where[::-1]
            [row], _has_more = await subject.store.claim(order, limit=1, lease_seconds=LONG, token=ME)
            taken.add((row.key, kinds[row.id]))
        assert taken == {(key, kind) for key in keys for kind in ("ready", "due")}

    async def test_retries_without_end_do_not_keep_ready_rows_waiting(self, subject: Subject) -> None:
        failing = set(await put(subject, *(draft() for _ in range(30))))
        await settle(subject, await claim(subject), Retry(0))
        written = await put(subject, *(draft() for _ in range(6)))
        handled: list[int] = []
        for _ in range(3):
            claimed = await claim(subject, limit=4)
            handled += [row.id for row in claimed if row.id not in failing]
            await settle(subject, [row for row in claimed if row.id in failing], Retry(0))
        assert sorted(handled) == written

    async def test_ready_rows_without_end_do_not_keep_retries_waiting(self, subject: Subject) -> None:
        failed = await put(subject, *(draft() for _ in range(6)))
        await settle(subject, await claim(subject), Retry(0))
        await put(subject, *(draft() for _ in range(30)))
        claimed = [row for _ in range(3) for row in await claim(subject, limit=4)]
        assert sorted(row.id for row in claimed if row.id in failed) == failed

    async def test_a_claim_keeps_to_its_shards(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        [in_a, in_b] = await put(subject, draft(key=a), draft(key=b))
        await put(subject, draft("other", key=a))
        for row_id in (in_a, in_b):
            where = await shards_of(subject, row_id)
            claimed = await subject.store.claim(where, limit=9, lease_seconds=9, token=ME)
            assert (ids(claimed.rows), claimed.has_more) == ([row_id], False)

    async def test_shards_are_claimed_in_their_order(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        for turn in (1, -1):
            order = (await put(subject, draft(key=a), draft(key=b)))[::turn]
            where = await shards_of(subject, *order)
            claimed, _has_more = await subject.store.claim(where, limit=1, lease_seconds=LONG, token=ME)
            assert ids(claimed) == order[:1]
            await settle(subject, claimed + await claim(subject), Delivered())

    async def test_a_claim_is_bounded_in_bytes_and_tells_that_it_left_rows_out(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key="k", body=b"x" * 600) for _ in range(5)))
        where = shards()
        for expected, has_more in ((written[:2], True), (written[2:4], True), (written[4:], False)):
            claimed = await subject.store.claim(where, limit=9, lease_seconds=LONG, token=ME, max_bytes=1500)
            assert (ids(claimed.rows), claimed.has_more) == (expected, has_more)
        rows = await subject.rows()
        assert {row.row.deliveries_count for row in rows.values()} == {1}, "what is left out is not touched"

    async def test_headers_count_among_the_bytes_of_a_claim(self, subject: Subject) -> None:
        # Of texts that cannot be compressed.
        headers = {"h": "".join(chr(33 + (n * n + n // 7) % 90) for n in range(700))}
        written = await put(subject, *(draft(key="k", headers=headers) for _ in range(3)))
        claimed = await subject.store.claim(shards(), limit=9, lease_seconds=LONG, token=ME, max_bytes=1000)
        assert ids(claimed.rows) == written[:1]

    async def test_a_row_that_is_larger_than_a_claim_may_be_is_claimed_alone(self, subject: Subject) -> None:
        small, large, last = await put(subject, draft(key="k"), draft(key="k", body=b"x" * 9000), draft(key="k"))
        claims = [
            await subject.store.claim(shards(), limit=9, lease_seconds=LONG, token=ME, max_bytes=1500) for _ in range(3)
        ]
        assert [ids(claimed.rows) for claimed in claims] == [[small], [large], [last]]

    async def test_few_bytes_of_a_claim_are_for_due_and_ready_rows_in_turns(self, subject: Subject) -> None:
        ready = await put(subject, *(draft(key="k", body=b"x" * 600) for _ in range(4)))
        due = await put(subject, *(draft(key="k", body=b"x" * 600, activate_at=PAST) for _ in range(4)))
        claimed = await subject.store.claim(shards(), limit=9, lease_seconds=LONG, token=ME, max_bytes=2600)
        assert len(set(ids(claimed.rows)) & set(ready)) == 2
        assert len(set(ids(claimed.rows)) & set(due)) == 2

    async def test_a_claim_up_to_its_limit_may_have_left_rows_out(self, subject: Subject) -> None:
        await put(subject, *(draft(key="k") for _ in range(3)))
        claims = [await subject.store.claim(shards(), limit=2, lease_seconds=LONG, token=ME) for _ in range(2)]
        assert [(len(claimed.rows), claimed.has_more) for claimed in claims] == [(2, True), (1, False)]

    async def test_a_claim_without_rows_is_empty(self, subject: Subject) -> None:
        assert await claim(subject) == []
        assert await subject.store.claim([], limit=1, lease_seconds=1, token=ME) == ([], False)

    async def test_concurrent_claims_never_share_a_row(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key=f"k{n % 20}") for n in range(100)))

        async def claim_all(token: str) -> list[int]:
            taken: list[int] = []
            while rows := await claim(subject, limit=3, token=token):
                taken += ids(rows)
            return taken

        # A claim passes by what another one is just locking, so a claimer may end early; the last one takes the rest.
        found = await asyncio.gather(*(claim_all(f"{PRESENCE_PREFIX}{n}") for n in range(5)))
        found.append(await claim_all(ME))
        assert sorted(row_id for taken in found for row_id in taken) == written

    # --- leases and fences

    @pytest.mark.parametrize("outcome", [Delivered(), Retry(0), Dead("rejected"), Released()], ids=repr)
    async def test_a_stale_token_changes_nothing(self, subject: Subject, outcome: Outcome) -> None:
        await put(subject)
        rows = await claim(subject)
        before = await subject.rows()
        await settle(subject, rows, outcome, token=OTHER)
        assert await subject.rows() == before
        assert await subject.dead() == {}

    @pytest.mark.parametrize("outcome", [Delivered(), Retry(0), Dead("rejected"), Released()], ids=repr)
    async def test_a_stale_delivery_of_the_same_token_changes_nothing(self, subject: Subject, outcome: Outcome) -> None:
        await put(subject)
        stale = await claim(subject)
        await settle(subject, stale, Released(started=True))
        [current] = await claim(subject)
        assert current.deliveries_count == 2
        before = await subject.rows()
        await settle(subject, stale, outcome)
        assert await subject.store.renew(stale, lease_seconds=LONG, token=ME) == set()
        assert await subject.rows() == before

    @pytest.mark.parametrize("outcome", [Delivered(), Retry(0), Dead("rejected"), Released()], ids=repr)
    async def test_a_row_that_nobody_holds_is_not_settled(self, subject: Subject, outcome: Outcome) -> None:
        await put(subject)
        rows = await claim(subject)
        await settle(subject, rows, Released())
        before = await subject.rows()
        await settle(subject, rows, outcome)
        assert await subject.rows() == before

    async def test_renewing_tells_which_leases_were_still_held(self, subject: Subject) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(3)))
        held, settled, lost = rows = await claim(subject, seconds=60)
        await settle(subject, [settled], Delivered())
        await settle(subject, [lost], Released(started=True))
        await claim(subject, token=OTHER)
        assert await subject.store.renew(rows, lease_seconds=LONG, token=ME) == {held.id}
        renewed = (await subject.rows())[held.id].next_attempt_at
        assert renewed is not None
        assert (renewed - datetime.now(UTC)).total_seconds() > 1800
        assert await subject.store.renew([], lease_seconds=LONG, token=ME) == set()

    async def test_leases_that_their_holder_does_not_know_of_are_given_back(self, subject: Subject) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(3)))
        known, *unknown = await claim(subject)
        await subject.store.give_back(["q"], known=[known.id], token=OTHER)
        await subject.store.give_back(["another"], known=[known.id], token=ME)
        assert await claim(subject, token=OTHER) == []
        await subject.store.give_back(["q"], known=[known.id], token=ME)
        again = await claim(subject, token=OTHER)
        assert ids(again) == ids(unknown)
        assert [row.deliveries_count for row in again] == [1, 1]

    async def test_a_lease_that_ran_out_is_given_back(self, subject: Subject) -> None:
        [expired] = await put(subject, draft("expired"))
        [living, renewed] = await put(subject, draft("living"), draft("renewed"))
        await claim(subject, "expired", seconds=0)
        await claim(subject, "living")
        await subject.store.renew(await claim(subject, "renewed", seconds=0), lease_seconds=LONG, token=ME)
        found = await subject.store.rescue(token=ME, suspects=frozenset())
        assert found.freed_queues == {"expired"}
        rows = await subject.rows()
        assert rows[expired].token is None
        assert (rows[living].token, rows[renewed].token) == (ME, ME)
        [again] = await claim(subject, "expired", token=OTHER)
        assert (again.id, again.deliveries_count, again.attempts_count) == (expired, 2, 0)
        assert (await subject.store.rescue(token=ME, suspects=frozenset())).freed_queues == frozenset()

    async def test_a_row_whose_holders_go_again_and_again_waits_longer_each_time(self, subject: Subject) -> None:
        """It may be what ends them, and the others of its queue are not to wait for it."""
        waits = {}
        for deliveries in (RESCUED_AT_ONCE, RESCUED_AT_ONCE + 1, RESCUED_AT_ONCE + 2, 40):
            queue = f"q{deliveries}"
            await put(subject, draft()._replace(queue=queue))
            for _ in range(deliveries - 1):
                await settle(subject, await claim(subject, queue), Released(started=True))
            await claim(subject, queue, seconds=0)
            await subject.store.rescue(token=ME, suspects=frozenset())
            waits[deliveries] = await subject.store.seconds_to_next_due(shards(queue))
        at_once, *longer = waits.values()
        assert at_once is not None
        assert at_once <= 0
        assert longer == [pytest.approx(2, abs=1), pytest.approx(4, abs=1), pytest.approx(LONGEST_REST_SECONDS, abs=2)]

    # --- outcomes

    async def test_a_delivered_row_leaves_the_table(self, subject: Subject) -> None:
        await put(subject)
        await settle(subject, await claim(subject), Delivered())
        assert await subject.rows() == {}
        assert await subject.dead() == {}

    async def test_a_row_waits_for_its_retry(self, subject: Subject) -> None:
        [row_id] = await put(subject)
        await settle(subject, await claim(subject), Retry(LONG, "ValueError: no"))
        stored = (await subject.rows())[row_id]
        assert (stored.row.attempts_count, stored.row.deliveries_count) == (1, 1)
        assert stored.row.first_attempt_at == stored.row.last_attempt_at is not None
        assert stored.token is None
        assert stored.row.acquired_at is None
        assert stored.next_attempt_at is not None
        assert abs((stored.next_attempt_at - stored.row.last_attempt_at).total_seconds() - LONG) < 1
        if subject.keeps_exceptions:
            assert stored.last_exception == "ValueError: no"
        assert await claim(subject) == []

    async def test_a_due_retry_is_claimed_again_and_counted(self, subject: Subject) -> None:
        [row_id] = await put(subject)
        await settle(subject, await claim(subject), Retry(0))
        first = (await subject.rows())[row_id].row
        [again] = await claim(subject)
        assert (again.id, again.attempts_count, again.deliveries_count) == (row_id, 1, 2)
        await settle(subject, [again], Retry(0))
        second = (await subject.rows())[row_id].row
        assert second.attempts_count == 2
        assert second.first_attempt_at == first.first_attempt_at
        assert first.last_attempt_at is not None
        assert second.last_attempt_at is not None
        assert second.last_attempt_at > first.last_attempt_at

    async def test_a_dead_row_lies_in_one_place_with_all_its_parts(self, subject: Subject) -> None:
        message = draft(
            body=b"\x00\xff", key="k", headers={"a": "b"}, idempotency_key="i", timer_id="t", correlation_id="c"
        )
        [row_id] = await put(subject, message)
        await settle(subject, await claim(subject), Retry(0))
        before = (await subject.rows())[row_id].row
        await settle(subject, await claim(subject), Dead("rejected", "ValueError: no"))
        assert await subject.rows() == {}
        [died] = (await subject.dead()).values()
        assert (died.reason, died.exception) == ("rejected", "ValueError: no")
        assert died.row == before._replace(
            attempts_count=2, deliveries_count=2, last_attempt_at=died.row.last_attempt_at
        )
        assert died.row.last_attempt_at is not None
        assert before.last_attempt_at is not None
        assert died.row.last_attempt_at > before.last_attempt_at

    async def test_nobody_is_given_a_dead_row(self, subject: Subject) -> None:
        await put(subject, draft(key="k"))
        await settle(subject, await claim(subject), Dead("rejected"))
        assert await claim(subject) == []
        assert await subject.store.seconds_to_next_due(shards()) is None
        assert (await subject.store.rescue(token=OTHER, suspects=frozenset({ME}))).freed_queues == frozenset()
        async with subject.store.hand_over(shards(), limit=10) as hand_over:
            assert hand_over is None

    @pytest.mark.parametrize("started", [False, True])
    async def test_a_released_row_can_be_taken_at_once(self, subject: Subject, started: bool) -> None:
        [row_id] = await put(subject)
        await settle(subject, await claim(subject), Released(started=started))
        stored = (await subject.rows())[row_id]
        assert (stored.row.attempts_count, stored.row.deliveries_count) == (0, int(started))
        assert (stored.token, stored.row.acquired_at) == (None, None)
        assert ids(await claim(subject)) == [row_id]

    async def test_one_write_takes_outcomes_of_all_kinds(self, subject: Subject) -> None:
        kinds = [Delivered(), Retry(LONG, "r"), Dead("rejected", "d"), Released(), Released(started=True), Retry(0)]
        await put(subject, *(draft(key=f"k{n}") for n in range(len(kinds) + 1)))
        *rows, lost = await claim(subject)
        delivered, retried, dead, released, started, due = rows
        await settle(subject, [lost], Released())
        [lost_again] = await claim(subject, token=OTHER)
        outcomes = [Settlement(row, outcome) for row, outcome in zip(rows, kinds, strict=True)]
        await subject.store.settle([*outcomes, Settlement(lost, Dead("rejected"))], token=ME)
        await subject.store.settle([], token=ME)
        left = await subject.rows()
        assert sorted(left) == [retried.id, released.id, started.id, due.id, lost.id]
        assert [left[row.id].row.attempts_count for row in (retried, released, started, due)] == [1, 0, 0, 1]
        assert [left[row.id].row.deliveries_count for row in (retried, released, started, due)] == [1, 0, 1, 1]
        assert left[lost.id].token == OTHER
        assert left[lost.id].row == lost_again
        assert [(died.row.id, died.exception) for died in (await subject.dead()).values()] == [(dead.id, "d")]
        assert delivered.id not in left

    async def test_equal_outcomes_of_different_rows_are_not_mixed_up(self, subject: Subject) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(20)))
        rows = await claim(subject)
        mixed = [Settlement(row, Dead(f"reason-{row.id}", f"exception-{row.id}")) for row in reversed(rows)]
        await subject.store.settle(mixed, token=ME)
        for row_id, died in (await subject.dead()).items():
            assert (died.reason, died.exception) == (f"reason-{row_id}", f"exception-{row_id}")

    # --- the next time

    async def test_the_first_waiting_row_of_the_shards_counts(self, subject: Subject) -> None:
        await put(
            subject,
            *(draft(key=f"k{n}", activate_in=timedelta(seconds=500 + n)) for n in range(5)),
            draft("other", activate_in=timedelta(seconds=100)),
        )
        seconds = await subject.store.seconds_to_next_due(shards())
        assert seconds is not None
        assert 450 < seconds <= 500
        assert await subject.store.seconds_to_next_due(shards("none")) is None
        assert await subject.store.seconds_to_next_due([]) is None

    async def test_an_overdue_row_is_due_since(self, subject: Subject) -> None:
        await put(subject, draft(activate_at=PAST))
        seconds = await subject.store.seconds_to_next_due(shards())
        assert seconds is not None
        assert seconds < 0

    async def test_ready_and_leased_rows_wait_for_nothing(self, subject: Subject) -> None:
        await put(subject, draft(activate_at=PAST))
        assert len(await claim(subject)) == 1
        await put(subject, draft())
        assert await subject.store.seconds_to_next_due(shards()) is None

    # --- hand-overs

    async def test_a_hand_over_gives_rows_of_one_shard_in_order(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        written = await put(subject, *(draft(key=key) for key in (a, b, a, b, a)))
        async with subject.store.hand_over(await shards_of(subject, written[0]), limit=10) as hand_over:
            assert parts(hand_over) == [written[0], written[2], written[4]]
            assert hand_over is not None
            assert {row.key for row in hand_over.rows} == {a}
            assert list(hand_over.shards) == await shards_of(subject, written[0])
            assert all(row.deliveries_count == 0 and row.acquired_at is not None for row in hand_over.rows)

    async def test_settled_rows_are_written_and_others_stay(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key="k") for _ in range(5)))
        async with subject.store.hand_over(shards(), limit=10) as hand_over:
            assert hand_over is not None
            delivered, retried, dead, *_ = hand_over.rows
            await hand_over.settle([Settlement(delivered, Delivered()), Settlement(retried, Retry(LONG, "r"))])
            await hand_over.settle([Settlement(dead, Dead("too_large", "d"))])
        rows = await subject.rows()
        assert list(rows) == [written[1], *written[3:]]
        assert rows[retried.id].row.attempts_count == 1
        assert rows[retried.id].row.deliveries_count == 0
        assert {stored.token for stored in rows.values()} == {None}
        assert rows[written[3]].next_attempt_at is None
        assert [(died.row.id, died.row.attempts_count, died.reason) for died in (await subject.dead()).values()] == [
            (dead.id, 1, "too_large")
        ]

    async def test_an_error_gives_all_rows_back_unchanged(self, subject: Subject) -> None:
        await put(subject, *(draft(key="k") for _ in range(4)))
        before = await subject.rows()
        async with failing(subject.store.hand_over(shards(), limit=10)) as hand_over:
            assert hand_over is not None
            kinds = [Delivered(), Retry(LONG), Dead("rejected"), Released()]
            await hand_over.settle([Settlement(row, kind) for row, kind in zip(hand_over.rows, kinds, strict=True)])
        assert await subject.rows() == before
        assert await subject.dead() == {}
        async with subject.store.hand_over(shards(), limit=10) as hand_over:
            assert parts(hand_over) == list(before)

    async def test_a_cancelled_hand_over_gives_all_rows_back(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key="k") for _ in range(3)))
        entered = asyncio.Event()

        async def hang() -> None:
            async with subject.store.hand_over(shards(), limit=10) as hand_over:
                assert hand_over is not None
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with subject.store.hand_over(shards(), limit=10) as hand_over:
            assert parts(hand_over) == written

    async def test_rows_that_are_left_out_make_room_for_those_behind_them(self, subject: Subject) -> None:
        due = await put(subject, *(draft(key="k", activate_at=PAST) for _ in range(3)))
        ready = await put(subject, *(draft(key="k") for _ in range(4)))
        [shard] = set(await shards_of(subject, *due, *ready))
        left_out = [LeftOut(shard, row_id) for row_id in (*due[:2], *ready[:2])]
        for expected in ([due[2], *ready[2:]], []):
            async with subject.store.hand_over([shard], limit=3, left_out=left_out) as hand_over:
                assert parts(hand_over) == expected
                assert hand_over is not None
                assert list(hand_over.row_shards()) == [shard] * len(expected)
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert hand_over.vacant == [shard]

    async def test_a_row_that_is_left_out_may_hold_its_key_in_its_shard(self, subject: Subject) -> None:
        rows = [draft(key="k"), draft(key="k", activate_at=PAST), draft(key="k"), draft("q2", key="k")]
        first, timer, second, elsewhere = await put(subject, *rows)
        [shard] = await shards_of(subject, first)
        await put(subject, *(draft(key=str(number)) for number in range(20 * SHARDS)))
        stored = (await subject.rows()).values()
        beside = next(each.row for each in stored if each.shard == shard.number and each.row.key != "k")
        left_out = [LeftOut(shard, first, "k"), LeftOut(Shard("q3", shard.number), beside.id, beside.key)]
        everywhere = {"limit": 1000, "breadth": 2 * SHARDS}
        async with subject.store.hand_over(shards("q", "q2"), left_out=left_out, **everywhere) as hand_over:
            assert {first, timer, second}.isdisjoint(parts(hand_over))
            assert hand_over is not None
            where = dict(zip(parts(hand_over), hand_over.row_shards(), strict=True))
            assert where[beside.id] == shard
        async with subject.store.hand_over(shards("q2"), limit=100, left_out=left_out) as hand_over:
            assert parts(hand_over) == [elsewhere]

    async def test_a_hand_over_takes_no_more_than_its_limit(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key="k") for _ in range(5)))
        for expected in (written[:2], written[2:4], written[4:]):
            async with subject.store.hand_over(shards(), limit=2) as hand_over:
                assert parts(hand_over) == expected
                assert hand_over is not None
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        async with subject.store.hand_over(shards(), limit=2) as hand_over:
            assert hand_over is None

    async def test_a_hand_over_is_bounded_in_bytes(self, subject: Subject) -> None:
        # Beyond 2 kB PostgreSQL keeps a payload out of line, and compressed if that helps; its own size counts.
        sizes = [4000, 4000, 4000, 30_000, 4000, 1, 1]
        written = await put(subject, *(draft(key="k", body=b"x" * size) for size in sizes))
        expected = [written[:2], written[2:3], written[3:4], written[4:]]
        for part in expected:
            async with subject.store.hand_over(shards(), limit=10, max_bytes=10_000) as hand_over:
                assert hand_over is not None
                assert ids(hand_over.rows) == part
                assert all(set(row.payload) == {ord("x")} for row in hand_over.rows)
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])

    async def test_headers_count_among_the_bytes_of_a_hand_over(self, subject: Subject) -> None:
        headers = {f"h{number}": "x" * 100 for number in range(10)}
        written = await put(subject, *(draft(key="k", headers=headers) for _ in range(4)))
        async with subject.store.hand_over(shards(), limit=10, max_bytes=2600) as hand_over:
            assert parts(hand_over) == written[:2]

    async def test_rows_left_out_for_their_bytes_come_in_their_turn(self, subject: Subject) -> None:
        [retried] = await fail_once(subject, draft(key="k", body=b"x" * 600), delay=0)
        later = await put(subject, *(draft(key="k", body=b"x" * 600) for _ in range(2)))
        taken = []
        for _ in range(3):
            async with subject.store.hand_over(shards(), limit=9, max_bytes=1000) as hand_over:
                assert hand_over is not None
                taken += ids(hand_over.rows)
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert taken == [retried, *later]

    # --- lag

    async def test_there_is_no_lag_without_rows(self, subject: Subject) -> None:
        await put(subject, draft("other"), draft(activate_in=timedelta(hours=1)), draft("q2"))
        await claim(subject, "q2")
        assert await subject.store.lag(shards("q", "q2")) == (0, 0.0)

    async def test_the_lag_counts_what_is_ready_or_due(self, subject: Subject) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(20)), draft("q2"), draft("other"))
        lag = await subject.store.lag(shards("q", "q2"))
        assert lag.rows == 21
        assert 0.0 <= lag.seconds < 60.0
        await put(subject, draft(activate_at=datetime.now(UTC) - timedelta(hours=1)))
        await fail_once(subject, draft("q2", key="k"), delay=0)
        await put(subject, draft("q2", key="k"))
        lag = await subject.store.lag(shards("q", "q2"))
        assert lag.rows == 24, "the one behind a retry of its key too"
        assert 3600.0 <= lag.seconds < 3660.0

    async def test_a_lag_can_be_counted_up_to_a_limit(self, subject: Subject) -> None:
        await put(subject, *(draft("q", key="k") for _ in range(7)))
        for hours in (1, 2, 3):
            await put(subject, draft("q", key="k", activate_at=datetime.now(UTC) - timedelta(hours=hours)))
        assert (await subject.store.lag(shards("q"))).rows == 10
        for at_most, rows in ((1, 2), (2, 4), (5, 8), (100, 10)):
            lag = await subject.store.lag(shards("q"), at_most=at_most)
            assert lag.rows == rows, "so many ready ones, and so many due ones"
            assert 3 * 3600.0 <= lag.seconds < 3 * 3600.0 + 60.0, "the one that waits longest is among them"

    # --- queues that nobody consumes

    async def test_queues_with_rows_to_be_taken_are_found_beside_those_that_are_consumed(
        self, subject: Subject
    ) -> None:
        for queue in ("a", "b", "b", "c", "orders=>redis:orders", "Zoë", "z"):
            await put(subject, draft()._replace(queue=queue))
        find = subject.store.unconsumed
        assert sorted(await find([], limit=100)) == sorted(["a", "b", "c", "orders=>redis:orders", "Zoë", "z"])
        assert sorted(await find(["b", "nowhere", "0", "zz"], limit=100)) == sorted(
            ["a", "c", "orders=>redis:orders", "Zoë", "z"]
        )
        assert await find(["z", "orders=>redis:orders", "b", "a", "Zoë"], limit=100) == ["c"]
        assert await find(["a", "b", "c", "orders=>redis:orders", "Zoë", "z", "a"], limit=100) == []
        assert len(await find([], limit=2)) == 2

    async def test_what_cannot_be_taken_now_is_no_backlog(self, subject: Subject) -> None:
        await put(subject, draft("timer", activate_in=timedelta(hours=1)))
        await put(subject, draft("dead"))
        await settle(subject, await claim(subject, "dead"), Dead("rejected"))
        await put(subject, draft("held", key="k"))
        await settle(subject, await claim(subject, "held"), Dead("rejected", holds_key=True))
        await put(subject, draft("leased"))
        await claim(subject, "leased")
        await put(subject, draft("waits"))
        await settle(subject, await claim(subject, "waits"), Retry(3600.0))
        assert await subject.store.unconsumed([], limit=100) == []

    async def test_what_is_due_is_backlog_too(self, subject: Subject) -> None:
        await put(subject, draft("timer", activate_at=datetime.now(UTC) - timedelta(hours=1), key="k"))
        await fail_once(subject, draft("retry", key="other"), delay=0)
        await put(subject, draft("later", activate_in=timedelta(hours=1)))
        assert sorted(await subject.store.unconsumed([], limit=100)) == ["retry", "timer"]
        assert await subject.store.unconsumed(["retry"], limit=100) == ["timer"]

    async def test_what_a_process_consumes_is_heard_by_all(self, subject: Subject) -> None:
        queues = ["orders", "orders=>redis:orders", 'a "b"\n', *(f"{number:03}{'é' * 120}" for number in range(60))]
        async with asyncio.timeout(10), subject.store.listen(ME) as line, subject.store.listen(OTHER) as other:
            assert line is not None
            assert other is not None
            await subject.store.announce([])
            await subject.store.announce(queues)
            for each in (line, other):
                heard: set[str] = set()
                async for signal in each:
                    assert isinstance(signal, Announcement)
                    heard |= signal.queues
                    if heard == set(queues):
                        break

    async def test_dead_letters_are_no_lag(self, subject: Subject) -> None:
        await put(subject, draft())
        await settle(subject, await claim(subject), Dead("rejected"))
        assert (await subject.store.lag(shards())).rows == 0

    async def test_no_shard_is_taken_without_work(self, subject: Subject) -> None:
        await put(subject, draft("other"), draft(activate_in=timedelta(hours=1)), draft("leased"))
        await claim(subject, "leased")
        for where in (shards(), shards("leased"), []):
            async with subject.store.hand_over(where, limit=10) as hand_over:
                assert hand_over is None

    async def test_a_shard_has_one_taker(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        [in_a, in_b, also_in_a] = await put(subject, draft(key=a), draft(key=b), draft(key=a))
        where = await shards_of(subject, in_a, in_b)
        async with subject.store.hand_over(where, limit=1) as first:
            assert parts(first) == [in_a]
            async with subject.store.hand_over(where, limit=1) as second:
                assert parts(second) == [in_b]
                async with subject.store.hand_over(where, limit=1) as third:
                    assert third is None
        async with subject.store.hand_over(where, limit=2) as again:
            assert parts(again) == [in_a, also_in_a]

    async def test_the_first_shard_with_work_is_taken(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        [in_a, in_b] = await put(subject, draft(key=a), draft(key=b))
        for order in ([in_a, in_b], [in_b, in_a]):
            async with subject.store.hand_over(await shards_of(subject, *order), limit=9) as hand_over:
                assert parts(hand_over) == order[:1]

    # --- hand-overs of several shards

    async def test_a_hand_over_takes_as_many_shards_as_it_is_to(self, subject: Subject) -> None:
        keys = await keys_apart(subject, 3)
        in_a, in_b, _, also_in_a = written = await put(subject, *(draft(key=key) for key in (*keys, keys[0])))
        where = await shards_of(subject, *written)
        async with subject.store.hand_over(where, limit=100, breadth=2) as hand_over:
            assert hand_over is not None
            assert list(hand_over.shards) == where[:2]
            assert ids(hand_over.rows) == [in_a, in_b, also_in_a], "in the order of their ids"
            async with subject.store.hand_over(shards(), limit=100, breadth=SHARDS) as beside:
                assert parts(beside) == [written[2]], "from what the other has left"
        async with subject.store.hand_over(shards(), limit=100, breadth=SHARDS) as hand_over:
            assert parts(hand_over) == written
            assert hand_over is not None
            assert (hand_over.has_more, list(hand_over.vacant)) == (False, [])
            await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert ids_of_queue(await subject.rows()) == []

    async def test_each_shard_gives_its_share(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        in_a = await put(subject, *(draft(key=a) for _ in range(5)))
        in_b = await put(subject, *(draft(key=b) for _ in range(5)))
        async with subject.store.hand_over(shards(), limit=5, breadth=SHARDS) as hand_over:
            assert parts(hand_over) == [*in_a[:2], *in_b[:2]]
            assert hand_over is not None
            assert hand_over.has_more
        async with subject.store.hand_over(shards(), limit=1, breadth=SHARDS) as hand_over:
            assert len(parts(hand_over)) == 1
        async with subject.store.hand_over(shards(), limit=12, breadth=SHARDS) as hand_over:
            assert parts(hand_over) == [*in_a, *in_b]
            assert hand_over is not None
            assert not hand_over.has_more

    @pytest.mark.parametrize(
        ("breadth", "limit", "is_whole"), [(1, 9, False), (2, 9, False), (3, 9, True), (SHARDS, 2, False)]
    )
    async def test_a_hand_over_tells_whether_all_shards_were_looked_at(
        self, subject: Subject, breadth: int, limit: int, is_whole: bool
    ) -> None:
        await put(subject, *(draft(key=key) for key in await keys_apart(subject, 2)))
        async with subject.store.hand_over(shards(), limit=limit, breadth=breadth) as hand_over:
            assert hand_over is not None
            assert hand_over.is_whole is is_whole

    async def test_several_shards_together_are_bounded_in_bytes(self, subject: Subject) -> None:
        keys = await keys_apart(subject, 3)
        written = await put(subject, *(draft(key=key, body=b"x" * 600) for key in keys))
        async with subject.store.hand_over(shards(), limit=100, breadth=SHARDS, max_bytes=1500) as hand_over:
            assert parts(hand_over) == written[:2]
            assert hand_over is not None
            assert hand_over.has_more
            assert list(hand_over.vacant) == [], "the third shard has a row that was left out for its bytes"

    async def test_few_bytes_are_for_due_and_ready_rows_of_several_shards_in_turns(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        ready = await put(subject, *(draft(key=a, body=b"x" * 600) for _ in range(4)))
        due = await put(subject, *(draft(key=b, body=b"x" * 600, activate_at=PAST) for _ in range(4)))
        async with subject.store.hand_over(shards(), limit=100, breadth=SHARDS, max_bytes=2600) as hand_over:
            assert parts(hand_over) == [*ready[:2], *due[:2]]

    async def test_where_bytes_are_for_one_row_alone_both_kinds_are_taken_in_the_long_run(
        self, subject: Subject
    ) -> None:
        [ready] = await put(subject, draft(key="k", body=b"x" * 600))
        [due] = await put(subject, draft(key="k", body=b"x" * 600, activate_at=PAST))
        taken = set()
        # Lots are drawn, as for claims.
        for _ in range(30):
            async with subject.store.hand_over(shards(), limit=100, max_bytes=500) as hand_over:
                taken.update(parts(hand_over))
        assert taken == {ready, due}

    async def test_a_shard_whose_rows_all_wait_is_vacant(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        await fail_once(subject, draft(key=a))
        [held, free] = await put(subject, draft(key=a), draft(key=b))
        async with subject.store.hand_over(shards(), limit=100, breadth=SHARDS) as hand_over:
            assert parts(hand_over) == [free]
            assert hand_over is not None
            assert list(hand_over.vacant) == await shards_of(subject, held)
        async with subject.store.hand_over(await shards_of(subject, held), limit=100) as hand_over:
            assert hand_over is not None
            assert list(hand_over.vacant) == list(hand_over.shards)

    async def test_several_shards_are_given_back_together(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key=key) for key in await keys_apart(subject, 3)))
        async with failing(subject.store.hand_over(shards(), limit=100, breadth=SHARDS)) as hand_over:
            assert hand_over is not None
            await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        async with subject.store.hand_over(shards(), limit=100, breadth=SHARDS) as hand_over:
            assert parts(hand_over) == written

    async def test_a_claim_passes_by_rows_of_a_hand_over(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key="k") for _ in range(3)))
        async with subject.store.hand_over(shards(), limit=2) as hand_over:
            assert parts(hand_over) == written[:2]
            assert ids(await claim(subject)) == written[2:]

    async def test_a_hand_over_passes_by_leased_rows(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key="k") for _ in range(3)))
        assert ids(await claim(subject, limit=1)) == written[:1]
        async with subject.store.hand_over(shards(), limit=9) as hand_over:
            assert parts(hand_over) == written[1:]

    async def test_a_waiting_retry_holds_back_the_later_rows_of_its_key_alone(self, subject: Subject) -> None:
        [early] = await put(subject, draft(key="k", activate_in=timedelta(hours=1)))
        [waiting] = await fail_once(subject, draft(key="k"))
        [held, keyless, elsewhere] = await put(subject, draft(key="k"), draft(), draft("other", key="k"))
        others = await put(subject, *(draft(key=f"k{n}") for n in range(2 * SHARDS)))
        taken: list[int] = []
        where = shards()
        while where:
            async with subject.store.hand_over(where, limit=100) as hand_over:
                if hand_over is None:
                    break
                taken += ids(hand_over.rows)
                where = [shard for shard in where if shard not in hand_over.shards]
        assert sorted(taken) == [keyless, *others]
        async with subject.store.hand_over(shards("other"), limit=9) as hand_over:
            assert parts(hand_over) == [elsewhere]
        assert {early, waiting, held} <= set(await subject.rows())

    async def test_a_waiting_retry_holds_back_due_rows_too(self, subject: Subject) -> None:
        [waiting] = await fail_once(subject, draft(key="k"))
        await put(subject, draft(key="k", activate_at=PAST))
        async with subject.store.hand_over(await shards_of(subject, waiting), limit=9) as hand_over:
            assert parts(hand_over) == []

    async def test_a_waiting_retry_does_not_hold_back_earlier_rows(self, subject: Subject) -> None:
        earlier, later = await put(subject, draft(key="k"), draft(key="k"))
        async with subject.store.hand_over(shards(), limit=9) as hand_over:
            assert hand_over is not None
            await hand_over.settle([Settlement(hand_over.rows[1], Retry(LONG))])
        async with subject.store.hand_over(await shards_of(subject, later), limit=9) as hand_over:
            assert parts(hand_over) == [earlier]

    async def test_a_due_retry_goes_before_the_later_rows_of_its_key(self, subject: Subject) -> None:
        [retried] = await fail_once(subject, draft(key="k"), delay=0)
        [later] = await put(subject, draft(key="k"))
        taken = []
        for _ in range(2):
            async with subject.store.hand_over(shards(), limit=9) as hand_over:
                assert hand_over is not None
                taken += ids(hand_over.rows)
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert taken == [retried, later]

    async def test_due_retries_of_one_key_keep_their_order_under_any_limit(self, subject: Subject) -> None:
        # The later row is due since longer, so a look at due times alone would take it first.
        first, second = await put(subject, draft(key="k"), draft(key="k"))
        async with subject.store.hand_over(shards(), limit=9) as hand_over:
            assert hand_over is not None
            await hand_over.settle([Settlement(hand_over.rows[1], Retry(0))])
        async with subject.store.hand_over(await shards_of(subject, first), limit=9) as hand_over:
            assert hand_over is not None
            await hand_over.settle([Settlement(row, Retry(0)) for row in hand_over.rows if row.id == first])
        taken = []
        for _ in range(2):
            async with subject.store.hand_over(shards(), limit=1) as hand_over:
                assert hand_over is not None
                taken += ids(hand_over.rows)
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert taken == [first, second]

    async def test_a_dead_row_holds_nothing_back(self, subject: Subject) -> None:
        await put(subject, draft(key="k"))
        await settle(subject, await claim(subject), Dead("rejected"))
        [later] = await put(subject, draft(key="k"))
        async with subject.store.hand_over(shards(), limit=9) as hand_over:
            assert parts(hand_over) == [later]

    async def test_a_held_dead_letter_holds_back_the_later_rows_of_its_key_alone(self, subject: Subject) -> None:
        [held] = await hold(subject, "k")
        due, _later = await put(subject, draft(key="k", activate_at=PAST), draft(key="k"))
        other, _keyless, _elsewhere = await put(subject, draft(key="l"), draft(), draft("other", key="k"))
        assert await visit(subject) == sorted([other, _keyless])
        assert await visit(subject, "other") == [_elsewhere]
        assert list(await subject.dead()) == [held]
        assert due in await subject.rows()

    async def test_a_replayed_one_comes_first_of_its_key_with_fresh_attempts_and_its_id(self, subject: Subject) -> None:
        [held] = await hold(subject, "k")
        [letter] = await subject.dead_letters.list(None, Selection(), limit=9)
        timer, *later = await put(subject, draft(key="k", activate_at=PAST), *(draft(key="k") for _ in range(3)))
        assert await subject.dead_letters.replay(None, Selection(key="k"), limit=9) == 1
        assert await subject.dead() == {}
        again = (await subject.rows())[held].row
        assert again == letter.row._replace(attempts_count=0, deliveries_count=0, first_attempt_at=None)
        taken = []
        for _ in range(5):
            # One at a time, and the timer of its key is due since longer.
            async with subject.store.hand_over(shards(), limit=1) as hand_over:
                taken += parts(hand_over)
                assert hand_over is not None
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert taken[0] == held
        assert sorted(taken) == [held, timer, *later]
        assert [row_id for row_id in taken if row_id in later] == later

    async def test_a_replayed_one_that_fails_again_holds_again(self, subject: Subject) -> None:
        [held] = await hold(subject, "k")
        [later] = await put(subject, draft(key="k"))
        for outcome in (Retry(0), Dead("rejected", holds_key=True)):
            await subject.dead_letters.replay(None, Selection(), limit=9)
            async with subject.store.hand_over(shards(), limit=9) as hand_over:
                assert parts(hand_over) == [held]
                assert hand_over is not None
                await hand_over.settle([Settlement(row, outcome) for row in hand_over.rows])
        assert await visit(subject) == []
        assert await subject.dead_letters.discard(None, Selection(), limit=9) == 1
        assert await visit(subject) == [later]

    async def test_two_held_ones_of_a_key_go_one_after_the_other(self, subject: Subject) -> None:
        first, second = await put(subject, draft(key="k"), draft(key="k"))
        async with subject.store.hand_over(shards(), limit=9) as hand_over:
            assert hand_over is not None
            await hand_over.settle([Settlement(row, Dead("invalid", holds_key=True)) for row in hand_over.rows])
        [later] = await put(subject, draft(key="k"))
        assert await subject.dead_letters.replay(None, Selection(), limit=1) == 1
        assert await visit(subject) == [first]
        assert await subject.dead_letters.replay(None, Selection(), limit=9) == 1
        assert await visit(subject) == [first]
        await deliver(subject)
        assert await visit(subject) == [second]
        await deliver(subject)
        assert await visit(subject) == [later]

    async def test_a_discarded_one_lets_its_key_go_and_rings(self, subject: Subject) -> None:
        await hold(subject, "k")
        [later] = await put(subject, draft(key="k"))
        assert await visit(subject) == []
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            assert await subject.dead_letters.discard(None, Selection(), limit=9) == 1
            assert await anext(aiter(line)) == "q"
        assert await visit(subject) == [later]

    async def test_held_and_other_dead_letters_are_seen_as_one(self, subject: Subject) -> None:
        [other] = await die(subject, (draft(key="k", body=b"other"), "rejected"))
        [held] = await hold(subject, "k")
        [later] = await put(subject, draft(key="k", body=b"later"))
        letters = await subject.dead_letters.list(None, Selection(queue="q", key="k"), limit=9)
        assert [(letter.row.id, letter.holds_key) for letter in letters] == [(other, False), (held, True)]
        assert await subject.dead_letters.count(None, Selection(reason="rejected")) == 2
        assert await subject.dead_letters.replay(None, Selection(), limit=9) == 2
        assert await subject.dead() == {}
        bodies = [stored.row.payload for stored in (await subject.rows()).values()]
        assert bodies == [b"body", b"later", b"other"]
        assert await visit(subject) == [held]
        await deliver(subject)
        assert (await visit(subject))[0] == later

    async def test_a_limit_counts_both_kinds_of_dead_letters(self, subject: Subject) -> None:
        await die(subject, (draft(), "rejected"), (draft(), "rejected"))
        await hold(subject, "k")
        await hold(subject, "l")
        assert await subject.dead_letters.discard(None, Selection(), limit=3) == 3
        assert await subject.dead_letters.replay(None, Selection(), limit=9) == 1
        assert await subject.dead_letters.count(None, Selection()) == 0

    async def test_claims_and_looks_leave_a_held_dead_letter_alone(self, subject: Subject) -> None:
        [held] = await hold(subject, "k")
        assert await claim(subject) == []
        assert await subject.store.seconds_to_next_due(shards()) is None
        assert (await subject.store.rescue(token=OTHER, suspects=frozenset({ME}))).freed_queues == frozenset()
        async with subject.transaction() as session:
            assert await subject.writer.fetch_unprocessed(session, queue=None, limit=9) == []
        [later] = await put(subject, draft(key="k"))
        assert ids(await claim(subject)) == [later], "handlers know no order"
        assert list(await subject.dead()) == [held]

    async def test_a_timer_holds_nothing_back(self, subject: Subject) -> None:
        await put(subject, draft(key="k", activate_in=timedelta(hours=1)))
        [later] = await put(subject, draft(key="k"))
        async with subject.store.hand_over(shards(), limit=9) as hand_over:
            assert parts(hand_over) == [later]

    @pytest.mark.parametrize(
        ("due", "ready", "taken_due", "taken_ready"), [(5, 5, 2, 2), (1, 5, 1, 3), (5, 1, 3, 1), (5, 0, 4, 0)]
    )
    async def test_half_of_each_shard_is_for_rows_whose_time_has_come_and_what_one_half_does_not_use_the_other_gets(
        self, subject: Subject, due: int, ready: int, taken_due: int, taken_ready: int
    ) -> None:
        is_ready = await put(subject, *(draft(key="k") for _ in range(ready))) if ready else []
        times = (PAST - timedelta(hours=n) for n in range(due))
        is_due = (await put(subject, *(draft(key="k", activate_at=time) for time in times)))[::-1]
        async with subject.store.hand_over(shards(), limit=4) as hand_over:
            assert parts(hand_over) == sorted(is_due[:taken_due] + is_ready[:taken_ready])
            assert hand_over is not None
            assert hand_over.has_more
            await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        async with subject.store.hand_over(shards(), limit=100) as hand_over:
            assert len(parts(hand_over)) == due + ready - 4

    @pytest.mark.parametrize("limits", [{"limit": 10}, {"limit": 100, "max_bytes": 1050}])
    async def test_g4_what_a_handler_gave_back_comes_before_later_rows_of_its_key_though_it_is_more_than_half(
        self, subject: Subject, limits: dict[str, int]
    ) -> None:
        written = await put(subject, *(draft(key="k", body=b"x" * 100) for _ in range(20)))
        for row in reversed(await claim(subject, limit=8)):
            await settle(subject, [row], Released())
        carried: list[int] = []
        while True:
            async with subject.store.hand_over(shards(), **limits) as hand_over:
                if hand_over is None:
                    break
                carried += ids(hand_over.rows)
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert carried == written

    async def test_rows_that_somebody_has_settled_are_told_from_those_that_are_as_they_were(
        self, subject: Subject
    ) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(5)))
        rows = [stored.row for stored in (await subject.rows()).values()]
        same, gone, tried, dead, other = ids(rows)
        outcomes = {gone: Delivered(), tried: Retry(LONG), dead: Dead("rejected")}
        async with subject.store.hand_over(shards(), limit=100, breadth=SHARDS) as hand_over:
            assert hand_over is not None
            await hand_over.settle([Settlement(row, outcomes[row.id]) for row in hand_over.rows if row.id in outcomes])
        assert await subject.store.unsettled(rows) == {same, other}
        assert await subject.store.unsettled([]) == set()
        assert ids(await claim(subject)) == [same, other]
        assert await subject.store.unsettled(rows) == set(), "a handler's process has them"

    async def test_due_rows_of_one_time_are_taken_once(self, subject: Subject) -> None:
        due = await put(subject, *(draft(key="k", activate_at=PAST) for _ in range(7)))
        for limit in range(1, 9):
            async with failing(subject.store.hand_over(shards(), limit=limit)) as hand_over:
                taken = parts(hand_over)
            assert len(taken) == min(limit, len(due))
            assert len(set(taken)) == len(taken)

    async def test_retries_without_end_do_not_keep_the_ready_rows_of_their_shard_waiting(
        self, subject: Subject
    ) -> None:
        keys = await keys_together(subject, 20)
        refused = set(await fail_once(subject, *(draft(key=key) for key in keys[:14]), delay=0))
        written = await put(subject, *(draft(key=key) for key in keys[14:]))
        delivered: list[int] = []
        for _ in range(3):
            async with subject.store.hand_over(shards(), limit=4) as hand_over:
                assert hand_over is not None
                outcomes = [Retry(0) if row.id in refused else Delivered() for row in hand_over.rows]
                await hand_over.settle(list(map(Settlement, hand_over.rows, outcomes)))
                delivered += [row.id for row in hand_over.rows if row.id not in refused]
        assert delivered == written

    async def test_ready_rows_without_end_do_not_keep_the_retries_of_their_shard_waiting(
        self, subject: Subject
    ) -> None:
        keys = await keys_together(subject, 20)
        retried = await fail_once(subject, *(draft(key=key) for key in keys[:6]), delay=0)
        await put(subject, *(draft(key=key) for key in keys[6:]))
        taken: list[int] = []
        for _ in range(3):
            async with subject.store.hand_over(shards(), limit=4) as hand_over:
                taken += parts(hand_over)
                assert hand_over is not None
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert [row_id for row_id in taken if row_id in retried] == retried

    async def test_lanes_keep_each_keys_order_and_send_nothing_twice(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key=f"k{n % 12}", body=b"%d" % n) for n in range(240)))
        sent: list[OutboxRow] = []

        async def lane() -> None:
            while True:
                async with subject.store.hand_over(shards(), limit=7) as hand_over:
                    if hand_over is None:
                        return
                    for row in hand_over.rows:
                        await asyncio.sleep(0)
                        sent.append(row)
                    await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])

        await asyncio.gather(*(lane() for _ in range(4)))
        # A lane ends when all shards with work are taken; what the last takers left is for one more.
        await lane()
        assert sorted(ids(sent)) == written
        for key in {row.key for row in sent}:
            of_key = [row.id for row in sent if row.key == key]
            assert of_key == sorted(of_key)
        assert await subject.rows() == {}

    # --- wake-ups

    async def test_a_listener_hears_of_rows_when_they_are_committed(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            heard = aiter(line)
            async with subject.transaction() as session:
                await subject.writer.insert(session, draft("first"))
                # Were the first heard of before its commit, it would come before this one.
                await put(subject, draft("second"))
            assert [await anext(heard), await anext(heard)] == ["second", "first"]

    async def test_a_listener_hears_nothing_of_what_is_rolled_back(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            async with failing(subject.transaction()) as session:
                await subject.writer.insert(session, draft("rolled back"))
                await subject.writer.insert_many(session, [draft("rolled back")])
            await put(subject, draft("committed"))
            assert await anext(aiter(line)) == "committed"

    async def test_a_listener_hears_of_batches(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            async with subject.transaction() as session:
                await subject.writer.insert_many(session, [draft("batch"), draft("batch")])
            await put(subject, draft("after"))
            heard = aiter(line)
            assert [await anext(heard), await anext(heard)] == ["batch", "after"]

    async def test_a_listener_hears_of_copies(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            heard = aiter(line)
            async with subject.transaction() as session:
                await subject.writer.insert(session, draft()._replace(copies=("q=>a", "q=>b")))
            assert {await anext(heard) for _ in range(3)} == {"q", "q=>a", "q=>b"}

    async def test_all_listeners_hear(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as mine, subject.store.listen(OTHER) as other:
            assert mine is not None
            assert other is not None
            await put(subject, draft("q"))
            assert [await anext(aiter(mine)), await anext(aiter(other))] == ["q", "q"]

    async def test_a_store_can_be_reached(self, subject: Subject) -> None:
        assert await subject.store.ping() is True

    async def test_dead_letters_are_found_by_what_is_given(self, subject: Subject) -> None:
        await put(subject, draft("alive"))
        first, second, third = await die(
            subject,
            (draft("a", key="k"), "rejected"),
            (draft("a"), "too_large"),
            (draft("b", key="k"), "rejected"),
        )
        everything = await subject.dead_letters.list(None, Selection(), limit=10)
        assert [letter.row.id for letter in everything] == [first, second, third]
        assert [letter.reason for letter in everything] == ["rejected", "too_large", "rejected"]
        assert {letter.exception for letter in everything} == {"of what it died"}
        middle = everything[1].failed_at
        for selection, expected in (
            (Selection(queue="a"), [first, second]),
            (Selection(key="k"), [first, third]),
            (Selection(reason="too_large"), [second]),
            (Selection(failed_after=middle), [second, third]),
            (Selection(failed_before=middle), [first]),
            (Selection(queue="b", key="k", reason="rejected", failed_after=middle), [third]),
            (Selection(queue="alive"), []),
        ):
            found = await subject.dead_letters.list(None, selection, limit=10)
            assert [letter.row.id for letter in found] == expected, selection
            assert await subject.dead_letters.count(None, selection) == len(expected)
        assert len(await subject.dead_letters.list(None, Selection(), limit=2)) == 2

    async def test_a_replayed_dead_letter_is_the_same_message_with_fresh_attempts(self, subject: Subject) -> None:
        message = draft(key="k", body=b"\x00bytes", headers={"a": "b"}, idempotency_key="identity")
        [dead] = await die(subject, (message, "rejected"))
        [before] = await subject.dead_letters.list(None, Selection(), limit=1)
        [waiting] = await put(subject, draft(key="k"))
        assert await subject.dead_letters.replay(None, Selection(queue="q"), limit=10) == 1
        assert await subject.dead() == {}
        ahead, again = await claim(subject)
        assert ahead.id == waiting, "behind what already waited"
        assert again.id > max(dead, waiting)
        assert again == before.row._replace(
            id=again.id,
            attempts_count=0,
            deliveries_count=1,
            first_attempt_at=None,
            last_attempt_at=None,
            acquired_at=again.acquired_at,
        )

    async def test_dead_letters_come_back_in_their_order_and_in_batches(self, subject: Subject) -> None:
        dead = await die(subject, *((draft(key="k", body=str(n).encode()), "rejected") for n in range(5)))
        assert len(dead) == 5
        assert await subject.dead_letters.replay(None, Selection(), limit=3) == 3
        assert await subject.dead_letters.replay(None, Selection(), limit=3) == 2
        assert await subject.dead_letters.replay(None, Selection(), limit=3) == 0
        assert [row.payload for row in await claim(subject)] == [b"0", b"1", b"2", b"3", b"4"]

    async def test_a_discarded_dead_letter_is_gone_and_nothing_else_is(self, subject: Subject) -> None:
        [alive] = await put(subject, draft("a"))
        _, other = await die(subject, (draft("a"), "rejected"), (draft("b"), "rejected"))
        assert await subject.dead_letters.discard(None, Selection(queue="a"), limit=10) == 1
        assert list(await subject.dead()) == [other]
        assert list(await subject.rows()) == [alive]

    async def test_a_dead_letter_that_a_live_message_stands_for_stays(self, subject: Subject) -> None:
        if subject.parks:
            # Parked, it is itself the live duplicate: no other can have been published.
            return
        await die(subject, (draft(idempotency_key="once"), "rejected"), (draft(timer_id="t"), "rejected"))
        await die(subject, (draft(idempotency_key="once"), "rejected"))
        assert await subject.dead_letters.replay(None, Selection(), limit=10) == 2, "of the twins, the older one"
        assert await subject.dead_letters.replay(None, Selection(), limit=10) == 0
        assert len(await subject.dead()) == 1


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
