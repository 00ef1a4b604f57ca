"""Dead letters that hold their key."""

import asyncio

from faststream_outbox._values.dead_letter import Selection
from faststream_outbox._values.outcome import Dead, Delivered, Retry, Settlement

from .subject import (
    ME,
    OTHER,
    PAST,
    Subject,
    claim,
    deliver,
    die,
    draft,
    hold,
    ids,
    parts,
    put,
    seconds_to_due,
    settle,
    shards,
    visit,
)


class HeldKeys:
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
        assert await seconds_to_due(subject, shards()) is None
        assert (await subject.store.rescue(token=OTHER, suspects=frozenset({ME}))).freed_queues == frozenset()
        async with subject.transaction() as session:
            assert await subject.writer.fetch_unprocessed(session, queue=None, limit=9) == []
        [later] = await put(subject, draft(key="k"))
        assert ids(await claim(subject)) == [later], "handlers know no order"
        assert list(await subject.dead()) == [held]
