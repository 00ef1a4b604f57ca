"""Which shards a hand-over takes, and that each has one taker."""

from datetime import timedelta

import pytest

from faststream_outbox._values.outcome import Delivered, Settlement
from faststream_outbox.schema import SHARDS

from .subject import (
    PAST,
    Subject,
    claim,
    draft,
    fail_once,
    failing,
    ids,
    ids_of_queue,
    keys_apart,
    parts,
    put,
    shards,
    shards_of,
)


class Takers:
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
