"""Rows that wait for a part of their destination."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from faststream_outbox._values.outcome import Deferred, Delivered, Settlement

from .subject import PAST, Subject, draft, fail_once, parts, put, shards, visit

SLOT = 12_345_678


async def defer(subject: Subject, *row_ids: int, delay: float | None = None) -> None:
    """Take all rows there are, and defer some of them."""
    async with subject.store.hand_over(shards(), limit=1000, breadth=len(shards())) as hand_over:
        assert hand_over is not None
        chosen = [row for row in hand_over.rows if row.id in row_ids]
        assert len(chosen) == len(row_ids)
        assert not await hand_over.settle([Settlement(row, Deferred(SLOT, delay)) for row in chosen])


async def _drain(subject: Subject) -> Sequence[int]:
    """Take all there is, in small hand-overs, and return the ids in the order in which they were taken."""
    taken: list[int] = []
    while True:
        async with subject.store.hand_over(shards(), limit=2) as hand_over:
            if hand_over is None or not hand_over.rows:
                return taken
            taken += parts(hand_over)
            await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])


class DeferredRows:
    async def test_a_deferred_row_waits_with_its_key_and_nothing_is_counted(self, subject: Subject) -> None:
        first, later, other, keyless = await put(subject, draft(key="k"), draft(key="k"), draft(key="l"), draft())
        before = (await subject.rows())[first].row
        await defer(subject, first)
        assert later not in await visit(subject)
        assert await visit(subject) == [other, keyless]
        stored = (await subject.rows())[first]
        assert stored.row.last_attempt_at is not None
        assert stored.row == before._replace(last_attempt_at=stored.row.last_attempt_at)
        assert stored.next_attempt_at is not None
        seconds = (stored.next_attempt_at - stored.row.last_attempt_at).total_seconds()
        assert 30.0 <= seconds <= 90.0
        assert (stored.next_attempt_at.second, stored.next_attempt_at.microsecond) == divmod(SLOT, 1_000_000)

    async def test_its_order_holds_when_it_is_due_again(self, subject: Subject) -> None:
        row_ids = await put(subject, *[draft(key="k") for _ in range(7)])
        await defer(subject, row_ids[0], delay=0.0)
        assert await _drain(subject) == row_ids

    async def test_rows_of_a_slot_are_made_due_together_and_no_others(self, subject: Subject) -> None:
        keys = [f"key-{number}" for number in range(12)]
        row_ids = await put(subject, *[draft(key=key) for key in keys])
        [failed] = await fail_once(subject, draft("other", key="f"))
        timer, in_another_queue = await put(
            subject, draft(activate_at=datetime.now(UTC) + timedelta(hours=1)), draft("other", key="a")
        )
        await defer(subject, *row_ids)
        assert await visit(subject) == []
        assert await subject.store.make_due(shards(), slot=SLOT + 1, limit=100) == 0
        assert await subject.store.make_due(shards("other"), slot=SLOT, limit=100) == 0
        assert await subject.store.make_due(shards(), slot=SLOT, limit=5) == 5
        assert len(await visit(subject)) == 5
        assert await subject.store.make_due(shards(), slot=SLOT, limit=100) == 7
        assert await visit(subject) == row_ids
        assert await subject.store.make_due(shards(), slot=SLOT, limit=100) == 0
        assert {timer, failed, in_another_queue} <= set(await subject.rows())

    async def test_a_timer_of_the_same_microsecond_is_not_due_earlier(self, subject: Subject) -> None:
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        at = [now + timedelta(minutes=minutes, microseconds=SLOT) for minutes in range(4)]
        await put(subject, *[draft(activate_at=each) for each in at if each > datetime.now(UTC) + timedelta(seconds=5)])
        assert await subject.store.make_due(shards(), slot=SLOT, limit=100) == 0

    async def test_a_row_that_was_tried_before_keeps_its_times_and_counts(self, subject: Subject) -> None:
        [row_id] = await fail_once(subject, draft(key="k"), delay=0.0)
        before = (await subject.rows())[row_id].row
        await defer(subject, row_id)
        assert (await subject.rows())[row_id].row == before

    async def test_a_timer_that_is_due_is_deferred_like_any_other(self, subject: Subject) -> None:
        [timer] = await put(subject, draft(key="k", activate_at=PAST, timer_id="t"))
        await defer(subject, timer)
        assert await visit(subject) == []
        assert await subject.store.make_due(shards(), slot=SLOT, limit=100) == 1
        assert await visit(subject) == [timer]
