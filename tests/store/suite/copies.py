"""A message and its copies for forwarders that tee."""

import pytest

from faststream_outbox._values.outcome import Delivered

from .subject import PAST, Subject, claim, draft, failing, ids, put, settle


class Copies:
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
