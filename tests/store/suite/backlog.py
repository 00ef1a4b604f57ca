"""How many rows wait for a consumer, and in which queues nobody takes them."""

import asyncio
from datetime import UTC, datetime, timedelta

from faststream_outbox._store.protocol import Announcement
from faststream_outbox._values.outcome import Dead, Retry

from .subject import LONG, ME, OTHER, Subject, claim, draft, fail_once, ids, put, settle, shards


class Backlog:
    async def test_what_was_tried_before_is_tried_again_at_once(self, subject: Subject) -> None:
        await put(subject, draft(key="k")._replace(copies=("q=>redis",)), draft("other"))
        for queue in ("q", "q=>redis", "other"):
            await settle(subject, await claim(subject, queue), Retry(LONG, "no"))
        [timer, behind] = await put(subject, draft(activate_in=timedelta(hours=1)), draft(key="k"))
        assert await subject.store.retry_now("q") == {"q": 1, "q=>redis": 1}
        assert await subject.store.retry_now("q") == {}
        claimed = await claim(subject, "q", "q=>redis", "other")
        assert sorted((row.queue, row.attempts_count) for row in claimed) == [("q", 0), ("q", 1), ("q=>redis", 1)]
        assert timer not in ids(claimed)
        assert behind in ids(claimed)
        # What a consumer has is left alone.
        assert await subject.store.retry_now(None) == {"other": 1}

    async def test_dead_letters_are_not_tried_again(self, subject: Subject) -> None:
        await put(subject, draft(key="k"))
        await settle(subject, await claim(subject), Dead("rejected", "no", holds_key=True))
        assert await subject.store.retry_now("q") == {}

    async def test_there_is_no_lag_without_rows(self, subject: Subject) -> None:
        await put(subject, draft("other"), draft(activate_in=timedelta(hours=1)), draft("q2"))
        await claim(subject, "q2")
        assert await subject.store.lag(shards("q", "q2")) == (0, 0.0)

    async def test_the_lag_counts_what_is_ready_or_due(self, subject: Subject) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(20)), draft("q2"), draft("other"))
        lag = await subject.store.lag(shards("q", "q2"))
        assert lag.rows == 21
        assert 0.0 <= lag.seconds < 60.0
        await put(subject, draft(activate_at=datetime.now(UTC) - timedelta(hours=1)))
        await fail_once(subject, draft("q2", key="k"), delay=0)
        await put(subject, draft("q2", key="k"))
        lag = await subject.store.lag(shards("q", "q2"))
        assert lag.rows == 24, "the one behind a retry of its key too"
        assert 3600.0 <= lag.seconds < 3660.0

    async def test_a_lag_can_be_counted_up_to_a_limit(self, subject: Subject) -> None:
        await put(subject, *(draft("q", key="k") for _ in range(7)))
        for hours in (1, 2, 3):
            await put(subject, draft("q", key="k", activate_at=datetime.now(UTC) - timedelta(hours=hours)))
        assert (await subject.store.lag(shards("q"))).rows == 10
        for at_most, rows in ((1, 2), (2, 4), (5, 8), (100, 10)):
            lag = await subject.store.lag(shards("q"), at_most=at_most)
            assert lag.rows == rows, "so many ready ones, and so many due ones"
            assert 3 * 3600.0 <= lag.seconds < 3 * 3600.0 + 60.0, "the one that waits longest is among them"

    async def test_queues_with_rows_to_be_taken_are_found_beside_those_that_are_consumed(
        self, subject: Subject
    ) -> None:
        for queue in ("a", "b", "b", "c", "orders=>redis:orders", "Zoë", "z"):
            await put(subject, draft()._replace(queue=queue))
        find = subject.store.unconsumed
        assert sorted(await find([], limit=100)) == sorted(["a", "b", "c", "orders=>redis:orders", "Zoë", "z"])
        assert sorted(await find(["b", "nowhere", "0", "zz"], limit=100)) == sorted(
            ["a", "c", "orders=>redis:orders", "Zoë", "z"]
        )
        assert await find(["z", "orders=>redis:orders", "b", "a", "Zoë"], limit=100) == ["c"]
        assert await find(["a", "b", "c", "orders=>redis:orders", "Zoë", "z", "a"], limit=100) == []
        assert len(await find([], limit=2)) == 2

    async def test_what_cannot_be_taken_now_is_no_backlog(self, subject: Subject) -> None:
        await put(subject, draft("timer", activate_in=timedelta(hours=1)))
        await put(subject, draft("dead"))
        await settle(subject, await claim(subject, "dead"), Dead("rejected"))
        await put(subject, draft("held", key="k"))
        await settle(subject, await claim(subject, "held"), Dead("rejected", holds_key=True))
        await put(subject, draft("leased"))
        await claim(subject, "leased")
        await put(subject, draft("waits"))
        await settle(subject, await claim(subject, "waits"), Retry(3600.0))
        assert await subject.store.unconsumed([], limit=100) == []

    async def test_what_is_due_is_backlog_too(self, subject: Subject) -> None:
        await put(subject, draft("timer", activate_at=datetime.now(UTC) - timedelta(hours=1), key="k"))
        await fail_once(subject, draft("retry", key="other"), delay=0)
        await put(subject, draft("later", activate_in=timedelta(hours=1)))
        assert sorted(await subject.store.unconsumed([], limit=100)) == ["retry", "timer"]
        assert await subject.store.unconsumed(["retry"], limit=100) == ["timer"]

    async def test_what_a_process_consumes_is_heard_by_all(self, subject: Subject) -> None:
        queues = ["orders", "orders=>redis:orders", 'a "b"\n', *(f"{number:03}{'é' * 120}" for number in range(60))]
        async with asyncio.timeout(10), subject.store.listen(ME) as line, subject.store.listen(OTHER) as other:
            assert line is not None
            assert other is not None
            await subject.store.announce([])
            await subject.store.announce(queues)
            for each in (line, other):
                heard: set[str] = set()
                async for signal in each:
                    assert isinstance(signal, Announcement)
                    heard |= signal.queues
                    if heard == set(queues):
                        break

    async def test_dead_letters_are_no_lag(self, subject: Subject) -> None:
        await put(subject, draft())
        await settle(subject, await claim(subject), Dead("rejected"))
        assert (await subject.store.lag(shards())).rows == 0

    async def test_a_store_can_be_reached(self, subject: Subject) -> None:
        assert await subject.store.ping() is True
