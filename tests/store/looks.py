"""What looks of people promise, for every store."""

from datetime import timedelta
from typing import Any, Protocol

import pytest

from faststream_outbox._store.protocol import Onlooker
from faststream_outbox._values.dead_letter import Selection
from faststream_outbox._values.figures import Count, QueueFigures, RowState
from faststream_outbox._values.outcome import Dead, Retry

from .suite import LONG, Subject, claim, draft, put, settle


class LookedAt(Subject, Protocol):
    onlooker: Onlooker


async def figures_of(subject: LookedAt, queue: str = "q", **options: Any) -> QueueFigures:
    found = await subject.onlooker.queues(**{"limit": 100, "at_most": 100} | options)
    [figures] = [each for each in found if each.queue == queue]
    return figures


async def fill_each_state(subject: LookedAt) -> dict[RowState, int]:
    """One row of the queue in each state."""
    [leased] = await put(subject, draft(key="leased"))
    await claim(subject, seconds=LONG)
    [parked] = await put(subject, draft(key="parked"))
    await settle(subject, await claim(subject), Dead("rejected", "ValueError: no"))
    [retry] = await put(subject, draft(key="retry"))
    await settle(subject, await claim(subject), Retry(LONG))
    [due] = await put(subject, draft(key="due"))
    await settle(subject, await claim(subject), Retry(0.0))
    [timer] = await put(subject, draft(key="timer", activate_in=timedelta(hours=1)))
    [ready] = await put(subject, draft(key="ready", body=b"0123456789"))
    return {
        RowState.READY: ready,
        RowState.DUE: due,
        RowState.TIMER: timer,
        RowState.RETRY: retry,
        RowState.LEASED: leased,
        RowState.PARKED: parked,
    }


class LooksSuite:
    async def test_each_row_is_counted_in_its_state(self, looked_at: LookedAt) -> None:
        await fill_each_state(looked_at)
        await put(looked_at, draft("other"))
        figures = await figures_of(looked_at)
        one = Count(1)
        assert (figures.ready, figures.due, figures.timers, figures.retries, figures.leased) == (one,) * 5
        assert figures.dead == one
        assert figures.parked == Count(int(looked_at.parks))
        assert figures.moved == Count(int(not looked_at.parks))
        assert figures.backlog == Count(2)
        assert (figures.leases_run_out, figures.held, figures.forwarder) == (0, 0, None)
        assert 0 < (figures.next_due_seconds or 0) <= LONG
        assert (await figures_of(looked_at, "other")).ready == one

    async def test_a_timer_is_no_backlog_and_does_not_age(self, looked_at: LookedAt) -> None:
        await put(looked_at, draft(activate_in=timedelta(hours=1)))
        figures = await figures_of(looked_at)
        assert (figures.timers, figures.backlog, figures.oldest_seconds) == (Count(1), Count(0), None)

    async def test_the_age_is_that_of_the_takeable_row_that_waits_longest(self, looked_at: LookedAt) -> None:
        for key in "abcdef":
            await put(looked_at, draft(key=key))
        before = (await figures_of(looked_at)).oldest_seconds
        for key in "ghi":
            await put(looked_at, draft(key=key))
        after = (await figures_of(looked_at)).oldest_seconds
        assert before is not None
        assert after is not None
        assert after > before, "later rows make it no younger"
        await put(looked_at, draft(activate_in=timedelta(milliseconds=1)))
        while not (figures := await figures_of(looked_at)).due.rows:
            pass
        assert figures.oldest_seconds is not None
        assert figures.oldest_seconds > after, "a timer that came due makes it no younger"

    async def test_leases_that_ran_out_are_seen(self, looked_at: LookedAt) -> None:
        await put(looked_at, draft(), draft())
        await claim(looked_at, limit=1, seconds=-1.0)
        await claim(looked_at, limit=1, seconds=LONG)
        figures = await figures_of(looked_at)
        assert (figures.leased, figures.leases_run_out) == (Count(2), 1)

    async def test_queues_come_by_name_and_in_pages(self, looked_at: LookedAt) -> None:
        await put(looked_at, *(draft(name) for name in ("c", "a", "b", "a")))
        await claim(looked_at, "b")
        pages = []
        behind = ""
        while page := await looked_at.onlooker.queues(limit=2, at_most=10, behind=behind):
            pages.append([figures.queue for figures in page])
            behind = page[-1].queue
        assert pages == [["a", "b"], ["c"]]

    @pytest.mark.parametrize("state", RowState)
    async def test_rows_are_seen_by_state(self, looked_at: LookedAt, state: RowState) -> None:
        row_ids = await fill_each_state(looked_at)
        await put(looked_at, draft("other"))
        found = await looked_at.onlooker.seen("q", state, limit=10, max_bytes=4)
        if state is RowState.PARKED and not looked_at.parks:
            assert found == []
            return
        assert [(each.row.id, each.state) for each in found] == [(row_ids[state], state)]
        assert (found[0].next_attempt_at is None) == (state in {RowState.READY, RowState.PARKED})
        if state is RowState.READY:
            assert (found[0].row.payload, found[0].size) == (b"0123", 10)

    async def test_the_first_rows_of_all_shards_are_seen_first(self, looked_at: LookedAt) -> None:
        row_ids = await put(looked_at, *(draft(key=str(number)) for number in range(40)))
        found = await looked_at.onlooker.seen("q", RowState.READY, limit=7, max_bytes=1)
        assert [each.row.id for each in found] == row_ids[:7]

    async def test_dead_letters_are_found_by_id_exception_and_age(self, looked_at: LookedAt) -> None:
        await put(looked_at, draft("a"), draft("b"))
        await settle(looked_at, await claim(looked_at, "a"), Dead("rejected", "ValueError: no such order"))
        await settle(looked_at, await claim(looked_at, "b"), Dead("rejected", "KeyError: 'order_id'"))
        first, second = await looked_at.dead_letters.list(None, Selection(), limit=9)
        for selection, expected in (
            (Selection(ids=(second.row.id,)), [second]),
            (Selection(ids=()), []),
            (Selection(exception="such order"), [first]),
            (Selection(exception="%order%"), []),
            (Selection(exception="KeyError", ids=(first.row.id,)), []),
            (Selection(older_than=timedelta(0)), [first, second]),
            (Selection(older_than=timedelta(hours=1)), []),
        ):
            assert await looked_at.dead_letters.list(None, selection, limit=9) == expected, selection
        assert await looked_at.dead_letters.discard(None, Selection(exception="KeyError"), limit=9) == 1
        assert await looked_at.dead_letters.replay(None, Selection(ids=(first.row.id,)), limit=9) == 1
        assert await looked_at.dead_letters.count(None, Selection()) == 0

    async def test_dead_letters_are_grouped(self, looked_at: LookedAt) -> None:
        await put(looked_at, *(draft("a", key=str(number)) for number in range(3)), draft("b"), draft("b"))
        for number, row in enumerate(await claim(looked_at, "a")):
            await settle(looked_at, [row], Dead("rejected", f"ValueError: no order {number}\nNote: second line"))
        for reason, row in zip(("too_large", "rejected"), await claim(looked_at, "b"), strict=True):
            await settle(looked_at, [row], Dead(reason))
        found = await looked_at.dead_letters.groups(None, Selection(), limit=9, at_most=9)
        assert [(group.queue, group.reason, group.kind, group.count) for group in found.groups] == [
            ("a", "rejected", "ValueError", 3),
            ("b", "rejected", None, 1),
            ("b", "too_large", None, 1),
        ]
        largest = found.groups[0]
        assert largest.example is not None
        assert largest.example.startswith("ValueError: no order 0")
        assert largest.first_failed_at < largest.last_failed_at
        assert found.looked_at == Count(5)
        few = await looked_at.dead_letters.groups(None, Selection(), limit=1, at_most=4)
        assert (len(few.groups), few.looked_at) == (1, Count(4, is_whole=False))
        of_b = await looked_at.dead_letters.groups(None, Selection(queue="b"), limit=9, at_most=9)
        assert [group.queue for group in of_b.groups] == ["b", "b"]
