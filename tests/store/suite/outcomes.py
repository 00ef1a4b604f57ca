"""What becomes of a row when its outcome is written, and which row is due next."""

from datetime import timedelta

import pytest

from faststream_outbox._values.outcome import Dead, Delivered, Released, Retry, Settlement
from faststream_outbox.schema import SHARDS

from .subject import LONG, ME, OTHER, PAST, Subject, claim, draft, ids, put, seconds_to_due, settle, shards


class Outcomes:
    async def test_a_delivered_row_leaves_the_table(self, subject: Subject) -> None:
        await put(subject)
        await settle(subject, await claim(subject), Delivered())
        assert await subject.rows() == {}
        assert await subject.dead() == {}

    async def test_a_row_waits_for_its_retry(self, subject: Subject) -> None:
        [row_id] = await put(subject)
        await settle(subject, await claim(subject), Retry(LONG, "ValueError: no"))
        stored = (await subject.rows())[row_id]
        assert (stored.row.attempts_count, stored.row.deliveries_count) == (1, 1)
        assert stored.row.first_attempt_at == stored.row.last_attempt_at is not None
        assert stored.token is None
        assert stored.row.acquired_at is None
        assert stored.next_attempt_at is not None
        assert abs((stored.next_attempt_at - stored.row.last_attempt_at).total_seconds() - LONG) < 1
        if subject.keeps_exceptions:
            assert stored.last_exception == "ValueError: no"
        assert await claim(subject) == []

    async def test_a_due_retry_is_claimed_again_and_counted(self, subject: Subject) -> None:
        [row_id] = await put(subject)
        await settle(subject, await claim(subject), Retry(0))
        first = (await subject.rows())[row_id].row
        [again] = await claim(subject)
        assert (again.id, again.attempts_count, again.deliveries_count) == (row_id, 1, 2)
        await settle(subject, [again], Retry(0))
        second = (await subject.rows())[row_id].row
        assert second.attempts_count == 2
        assert second.first_attempt_at == first.first_attempt_at
        assert first.last_attempt_at is not None
        assert second.last_attempt_at is not None
        assert second.last_attempt_at > first.last_attempt_at

    async def test_a_dead_row_lies_in_one_place_with_all_its_parts(self, subject: Subject) -> None:
        message = draft(
            body=b"\x00\xff", key="k", headers={"a": "b"}, idempotency_key="i", timer_id="t", correlation_id="c"
        )
        [row_id] = await put(subject, message)
        await settle(subject, await claim(subject), Retry(0))
        before = (await subject.rows())[row_id].row
        await settle(subject, await claim(subject), Dead("rejected", "ValueError: no"))
        assert await subject.rows() == {}
        [died] = (await subject.dead()).values()
        assert (died.reason, died.exception) == ("rejected", "ValueError: no")
        assert died.row == before._replace(
            attempts_count=2, deliveries_count=2, last_attempt_at=died.row.last_attempt_at
        )
        assert died.row.last_attempt_at is not None
        assert before.last_attempt_at is not None
        assert died.row.last_attempt_at > before.last_attempt_at

    async def test_nobody_is_given_a_dead_row(self, subject: Subject) -> None:
        await put(subject, draft(key="k"))
        await settle(subject, await claim(subject), Dead("rejected"))
        assert await claim(subject) == []
        assert await seconds_to_due(subject, shards()) is None
        assert (await subject.store.rescue(token=OTHER, suspects=frozenset({ME}))).freed_queues == frozenset()
        async with subject.store.hand_over(shards(), limit=10) as hand_over:
            assert hand_over is None

    @pytest.mark.parametrize("started", [False, True])
    async def test_a_released_row_can_be_taken_at_once(self, subject: Subject, started: bool) -> None:
        [row_id] = await put(subject)
        await settle(subject, await claim(subject), Released(started=started))
        stored = (await subject.rows())[row_id]
        assert (stored.row.attempts_count, stored.row.deliveries_count) == (0, int(started))
        assert (stored.token, stored.row.acquired_at) == (None, None)
        assert ids(await claim(subject)) == [row_id]

    async def test_one_write_takes_outcomes_of_all_kinds(self, subject: Subject) -> None:
        kinds = [Delivered(), Retry(LONG, "r"), Dead("rejected", "d"), Released(), Released(started=True), Retry(0)]
        await put(subject, *(draft(key=f"k{n}") for n in range(len(kinds) + 1)))
        *rows, lost = await claim(subject)
        delivered, retried, dead, released, started, due = rows
        await settle(subject, [lost], Released())
        [lost_again] = await claim(subject, token=OTHER)
        outcomes = [Settlement(row, outcome) for row, outcome in zip(rows, kinds, strict=True)]
        await subject.store.settle([*outcomes, Settlement(lost, Dead("rejected"))], token=ME)
        await subject.store.settle([], token=ME)
        left = await subject.rows()
        assert sorted(left) == [retried.id, released.id, started.id, due.id, lost.id]
        assert [left[row.id].row.attempts_count for row in (retried, released, started, due)] == [1, 0, 0, 1]
        assert [left[row.id].row.deliveries_count for row in (retried, released, started, due)] == [1, 0, 1, 1]
        assert left[lost.id].token == OTHER
        assert left[lost.id].row == lost_again
        assert [(died.row.id, died.exception) for died in (await subject.dead()).values()] == [(dead.id, "d")]
        assert delivered.id not in left

    async def test_equal_outcomes_of_different_rows_are_not_mixed_up(self, subject: Subject) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(20)))
        rows = await claim(subject)
        mixed = [Settlement(row, Dead(f"reason-{row.id}", f"exception-{row.id}")) for row in reversed(rows)]
        await subject.store.settle(mixed, token=ME)
        for row_id, died in (await subject.dead()).items():
            assert (died.reason, died.exception) == (f"reason-{row_id}", f"exception-{row_id}")

    async def test_the_first_waiting_row_of_the_shards_counts(self, subject: Subject) -> None:
        await put(
            subject,
            *(draft(key=f"k{n}", activate_in=timedelta(seconds=500 + n)) for n in range(5)),
            draft("other", activate_in=timedelta(seconds=100)),
        )
        seconds = await seconds_to_due(subject, shards())
        assert seconds is not None
        assert 450 < seconds <= 500
        assert await seconds_to_due(subject, shards("none")) is None
        assert await seconds_to_due(subject, []) is None

    async def test_the_outlook_says_of_each_queue_what_there_is_to_do(self, subject: Subject) -> None:
        await put(
            subject,
            draft("waits", activate_in=timedelta(seconds=100)),
            draft("both", activate_in=timedelta(seconds=100)),
            draft("both"),
            draft("claimed"),
            *(draft("ready", key=f"k{number}") for number in range(3)),
        )
        assert ids(await claim(subject, "claimed"))
        queues = ["waits", "both", "ready", "claimed", "empty"]
        found = await subject.store.outlook([shard for queue in queues for shard in shards(queue)])
        assert {queue: outlook.is_ready for queue, outlook in found.items()} == {
            "waits": False,
            "both": True,
            "ready": True,
        }
        assert found["ready"].seconds is None
        assert found["waits"].seconds == pytest.approx(100, abs=20)
        assert found["both"].seconds == pytest.approx(100, abs=20)

    async def test_an_overdue_row_is_due_since(self, subject: Subject) -> None:
        await put(subject, draft(activate_at=PAST))
        seconds = await seconds_to_due(subject, shards())
        assert seconds is not None
        assert seconds < 0

    async def test_ready_and_leased_rows_wait_for_nothing(self, subject: Subject) -> None:
        await put(subject, draft(activate_at=PAST))
        assert len(await claim(subject)) == 1
        await put(subject, draft())
        assert await seconds_to_due(subject, shards()) is None

    async def test_rows_that_somebody_has_settled_are_told_from_those_that_are_as_they_were(
        self, subject: Subject
    ) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(5)))
        rows = [stored.row for stored in (await subject.rows()).values()]
        same, gone, tried, dead, other = ids(rows)
        outcomes = {gone: Delivered(), tried: Retry(LONG), dead: Dead("rejected")}
        async with subject.store.hand_over(shards(), limit=100, breadth=SHARDS) as hand_over:
            assert hand_over is not None
            await hand_over.settle([Settlement(row, outcomes[row.id]) for row in hand_over.rows if row.id in outcomes])
        assert await subject.store.unsettled(rows) == {same, other}
        assert await subject.store.unsettled([]) == set()
        assert ids(await claim(subject)) == [same, other]
        assert await subject.store.unsettled(rows) == set(), "a handler's process has them"
