"""Rows that are due and rows that are ready share a hand-over; neither keeps the other waiting without end."""

from datetime import timedelta

import pytest

from faststream_outbox._values.outcome import Delivered, Released, Retry, Settlement

from .subject import PAST, Subject, claim, draft, fail_once, failing, ids, keys_together, parts, put, settle, shards


class Fairness:
    @pytest.mark.parametrize(
        ("due", "ready", "taken_due", "taken_ready"), [(5, 5, 2, 2), (1, 5, 1, 3), (5, 1, 3, 1), (5, 0, 4, 0)]
    )
    async def test_half_of_each_shard_is_for_rows_whose_time_has_come_and_what_one_half_does_not_use_the_other_gets(
        self, subject: Subject, due: int, ready: int, taken_due: int, taken_ready: int
    ) -> None:
        is_ready = await put(subject, *(draft(key="k") for _ in range(ready))) if ready else []
        times = (PAST - timedelta(hours=n) for n in range(due))
        is_due = (await put(subject, *(draft(key="k", activate_at=time) for time in times)))[::-1]
        async with subject.store.hand_over(shards(), limit=4) as hand_over:
            assert parts(hand_over) == sorted(is_due[:taken_due] + is_ready[:taken_ready])
            assert hand_over is not None
            assert hand_over.has_more
            await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        async with subject.store.hand_over(shards(), limit=100) as hand_over:
            assert len(parts(hand_over)) == due + ready - 4

    @pytest.mark.parametrize("limits", [{"limit": 10}, {"limit": 100, "max_bytes": 1050}])
    async def test_g4_what_a_handler_gave_back_comes_before_later_rows_of_its_key_though_it_is_more_than_half(
        self, subject: Subject, limits: dict[str, int]
    ) -> None:
        written = await put(subject, *(draft(key="k", body=b"x" * 100) for _ in range(20)))
        for row in reversed(await claim(subject, limit=8)):
            await settle(subject, [row], Released())
        carried: list[int] = []
        while True:
            async with subject.store.hand_over(shards(), **limits) as hand_over:
                if hand_over is None:
                    break
                carried += ids(hand_over.rows)
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert carried == written

    async def test_due_rows_of_one_time_are_taken_once(self, subject: Subject) -> None:
        due = await put(subject, *(draft(key="k", activate_at=PAST) for _ in range(7)))
        for limit in range(1, 9):
            async with failing(subject.store.hand_over(shards(), limit=limit)) as hand_over:
                taken = parts(hand_over)
            assert len(taken) == min(limit, len(due))
            assert len(set(taken)) == len(taken)

    async def test_retries_without_end_do_not_keep_the_ready_rows_of_their_shard_waiting(
        self, subject: Subject
    ) -> None:
        keys = await keys_together(subject, 20)
        refused = set(await fail_once(subject, *(draft(key=key) for key in keys[:14]), delay=0))
        written = await put(subject, *(draft(key=key) for key in keys[14:]))
        delivered: list[int] = []
        for _ in range(3):
            async with subject.store.hand_over(shards(), limit=4) as hand_over:
                assert hand_over is not None
                outcomes = [Retry(0) if row.id in refused else Delivered() for row in hand_over.rows]
                await hand_over.settle(list(map(Settlement, hand_over.rows, outcomes)))
                delivered += [row.id for row in hand_over.rows if row.id not in refused]
        assert delivered == written

    async def test_ready_rows_without_end_do_not_keep_the_retries_of_their_shard_waiting(
        self, subject: Subject
    ) -> None:
        keys = await keys_together(subject, 20)
        retried = await fail_once(subject, *(draft(key=key) for key in keys[:6]), delay=0)
        await put(subject, *(draft(key=key) for key in keys[6:]))
        taken: list[int] = []
        for _ in range(3):
            async with subject.store.hand_over(shards(), limit=4) as hand_over:
                taken += parts(hand_over)
                assert hand_over is not None
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert [row_id for row_id in taken if row_id in retried] == retried
