"""Timers that are cancelled, and rows that are looked at and left alone."""

from datetime import timedelta
from typing import Any

from faststream_outbox._values.draft import Draft
from faststream_outbox._values.outcome import Dead, Delivered, Retry

from .subject import LONG, Subject, claim, draft, failing, ids, put, settle, shards


def extending(**options: Any) -> Draft:
    return draft(timer_id="t", timer_conflict="extend", **options)


class Timers:
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

    async def test_a_timer_takes_the_place_of_a_live_one(self, subject: Subject) -> None:
        [first, other] = await put(
            subject,
            draft(timer_id="t", activate_in=timedelta(hours=1), key="a", headers={"old": "yes"}),
            draft("other", timer_id="t", activate_in=timedelta(hours=1)),
        )
        before = (await subject.rows())[first].row
        again = extending(body=b"new", activate_in=timedelta(hours=3), key="b", headers={"new": "yes"})
        [second] = await put(subject, again)
        rows = await subject.rows()
        assert list(rows) == [other, second]
        moved = rows[second]
        assert second > first
        assert (moved.row.payload, moved.row.key, moved.row.headers) == (b"new", "b", again.headers)
        assert (moved.row.idempotency_key, moved.row.timer_id) == (again.idempotency_key, "t")
        assert moved.row.created_at > before.created_at
        assert moved.next_attempt_at is not None
        assert timedelta(hours=2.9) < moved.next_attempt_at - moved.row.created_at < timedelta(hours=3.1)
        # It stands where rows of its key are looked for.
        [third] = await put(subject, extending(activate_in=timedelta(0), key="c"))
        assert ids(await claim(subject)) == [third]

    async def test_a_timer_that_is_not_there_is_published(self, subject: Subject) -> None:
        assert await put(subject, extending(activate_in=timedelta(hours=1))) == list(await subject.rows())

    async def test_a_timer_that_waits_no_longer_is_taken_at_once(self, subject: Subject) -> None:
        await put(subject, draft(timer_id="t", activate_in=timedelta(hours=1)))
        # Consumers know by now that nothing is ready below its id.
        [between] = await put(subject)
        await settle(subject, await claim(subject), Delivered())
        await subject.store.survey(shards())
        [moved] = await put(subject, extending())
        assert moved > between
        assert ids(await claim(subject)) == [moved]

    async def test_a_timer_that_a_handler_has_stays(self, subject: Subject) -> None:
        [leased] = await put(subject, draft(timer_id="t"))
        await claim(subject)
        before = await subject.rows()
        assert await put(subject, extending(activate_in=timedelta(hours=1))) == []
        assert await subject.rows() == before
        assert list(before) == [leased]

    async def test_a_parked_timer_stays(self, subject: Subject) -> None:
        await put(subject, draft(timer_id="t"))
        await settle(subject, await claim(subject), Dead("rejected"))
        assert bool(await put(subject, extending())) is not subject.parks
        assert len(await subject.dead()) == 1

    async def test_a_timer_that_failed_before_begins_anew(self, subject: Subject) -> None:
        await put(subject, draft(timer_id="t", key="k"))
        await settle(subject, await claim(subject), Retry(LONG, "no"))
        [moved] = await put(subject, extending(key="k"))
        row = (await subject.rows())[moved].row
        assert (row.attempts_count, row.deliveries_count) == (0, 0)
        assert (row.first_attempt_at, row.last_attempt_at) == (None, None)
        # Nor does it hold back the rows of its key.
        [behind] = await put(subject, draft(key="k"))
        assert sorted(ids(await claim(subject))) == [moved, behind]

    async def test_a_move_is_rolled_back(self, subject: Subject) -> None:
        await put(subject, draft(timer_id="t", activate_in=timedelta(hours=1)))
        before = await subject.rows()
        async with failing(subject.transaction()) as session:
            assert await subject.writer.insert(session, extending()) is not None
        assert await subject.rows() == before

    async def test_a_timer_of_the_same_transaction_is_moved(self, subject: Subject) -> None:
        async with subject.transaction() as session:
            await subject.writer.insert(session, draft(timer_id="t", activate_in=timedelta(hours=1)))
            moved = await subject.writer.insert(session, extending())
        assert list(await subject.rows()) == [moved]

    async def test_copies_move_along_as_far_as_nobody_has_them(self, subject: Subject) -> None:
        copies = ("q=>a", "q=>b")
        await put(subject, draft(timer_id="t")._replace(copies=copies))
        [leased] = await claim(subject, "q=>b")
        [moved] = await put(subject, extending(body=b"new")._replace(copies=copies))
        rows = {stored.row.queue: stored.row for stored in (await subject.rows()).values()}
        assert (rows["q"].id, rows["q"].payload, rows["q=>a"].payload) == (moved, b"new", b"new")
        assert rows["q=>a"].idempotency_key == rows["q"].idempotency_key
        assert rows["q=>b"] == leased

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
