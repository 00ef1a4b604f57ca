"""Timers that are cancelled, and rows that are looked at and left alone."""

from datetime import timedelta

from faststream_outbox._values.outcome import Dead

from .subject import Subject, claim, draft, failing, ids, put, settle


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
