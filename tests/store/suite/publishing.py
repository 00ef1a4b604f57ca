"""What is published is in the table when its transaction commits, and not before; what is live already is left out."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from faststream_outbox._values.outcome import Dead, Delivered
from faststream_outbox._values.staged import StagedMessage

from .subject import PAST, Subject, claim, draft, failing, ids, put, seconds_to_due, settle, shards


class Publishing:
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

    async def test_what_is_staged_is_written_by_the_commit(self, subject: Subject) -> None:
        noted: Counter[str] = Counter()

        def note(queue: str, *, rows: int, duplicates: int, seconds: float) -> None:
            noted[queue] += rows
            noted["duplicates"] += duplicates

        same = {"queue": "mails", "idempotency_key": "same"}
        drafts = [draft(key="k", body=b"0"), draft(**same), draft(**same), draft(activate_at=PAST, timer_id="t")]
        staged = [StagedMessage(each.queue, each.idempotency_key) for each in drafts]
        async with subject.transaction() as session:
            for each, message in zip(drafts, staged, strict=True):
                subject.writer.stage(session, each, message, note)
        rows = await subject.rows()
        assert [message.is_written for message in staged] == [True] * 4
        assert [message.id for message in staged if message.id] == list(rows)
        assert staged[2].id is None
        assert [stored.row.queue for stored in rows.values()] == ["q", "mails", "q"]
        assert [stored.next_attempt_at for stored in rows.values()] == [None, None, PAST]
        assert noted == {"q": 2, "mails": 1, "duplicates": 1}

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
        seconds = await seconds_to_due(subject, shards())
        assert seconds is not None
        assert 3500 < seconds <= 3600

    @pytest.mark.parametrize("options", [{"activate_in": timedelta(0)}, {"activate_at": PAST}], ids=["in", "at"])
    async def test_a_row_whose_time_has_come_is_given_out(self, subject: Subject, options: dict[str, Any]) -> None:
        written = await put(subject, draft(**options))
        assert ids(await claim(subject)) == written
