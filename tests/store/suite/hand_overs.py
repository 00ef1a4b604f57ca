"""Which rows a hand-over takes, and what is written of them when it ends well or badly."""

import asyncio

import pytest

from faststream_outbox._store.protocol import LeftOut
from faststream_outbox._values.outcome import Dead, Delivered, Released, Retry, Settlement
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS

from .subject import LONG, PAST, Subject, draft, fail_once, failing, ids, keys_apart, parts, put, shards, shards_of


class HandOvers:
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

    async def test_rows_are_taken_by_their_ids_wherever_they_stand(self, subject: Subject) -> None:
        [waiting] = await fail_once(subject, draft(key="k"), delay=LONG)
        ready = await put(subject, *(draft(key="k") for _ in range(6)))
        [due] = await put(subject, draft(key="k", activate_at=PAST))
        [elsewhere, other] = await put(subject, draft("q2", key="k"), draft("q2", key="k"))
        [shard] = set(await shards_of(subject, waiting, *ready, due))
        only = [due, ready[5], ready[2], waiting, elsewhere, 0]
        async with subject.store.hand_over([shard], limit=6, only=only) as hand_over:
            assert parts(hand_over) == [ready[2], ready[5], due]
            assert hand_over is not None
            assert not hand_over.has_more
            assert list(hand_over.shards) == [shard]
            assert list(hand_over.row_shards()) == [shard] * 3
            async with subject.store.hand_over([shard], limit=6, only=only) as second:
                assert second is None, "another one has the shard"
            rows = [row for row in hand_over.rows if row.id != ready[2]]
            await hand_over.settle([Settlement(row, Delivered()) for row in rows])
        assert [*await subject.rows()] == [waiting, *ready[:5], elsewhere, other]
        async with subject.store.hand_over([shard], limit=1, only=ready) as hand_over:
            assert parts(hand_over) == ready[:1]
            assert hand_over is not None
            assert hand_over.has_more

    async def test_rows_that_are_taken_by_their_ids_are_bounded_in_bytes(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key="k", body=b"x" * 600) for _ in range(3)))
        [shard] = set(await shards_of(subject, *written))
        async with subject.store.hand_over([shard], limit=9, max_bytes=1000, only=written) as hand_over:
            assert parts(hand_over) == written[:1]
            assert hand_over is not None
            assert hand_over.has_more

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
