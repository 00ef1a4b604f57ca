"""G4: a row that waits for its retry keeps back the later rows of its key."""

import asyncio
from datetime import timedelta

from faststream_outbox._values.outcome import Delivered, Retry, Settlement
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.schema import SHARDS

from .subject import LONG, PAST, Subject, draft, fail_once, ids, parts, put, shards, shards_of


class Order:
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

    async def test_a_timer_holds_nothing_back(self, subject: Subject) -> None:
        await put(subject, draft(key="k", activate_in=timedelta(hours=1)))
        [later] = await put(subject, draft(key="k"))
        async with subject.store.hand_over(shards(), limit=9) as hand_over:
            assert parts(hand_over) == [later]

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
