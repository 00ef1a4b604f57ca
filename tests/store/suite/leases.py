"""Who holds a leased row, and when its lease is over."""

from datetime import UTC, datetime

import pytest

from faststream_outbox._store.protocol import LONGEST_REST_SECONDS, RESCUED_AT_ONCE
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry

from .subject import LONG, ME, OTHER, Subject, claim, draft, ids, put, seconds_to_due, settle, shards


class Leases:
    @pytest.mark.parametrize("outcome", [Delivered(), Retry(0), Dead("rejected"), Released()], ids=repr)
    async def test_a_stale_token_changes_nothing(self, subject: Subject, outcome: Outcome) -> None:
        await put(subject)
        rows = await claim(subject)
        before = await subject.rows()
        await settle(subject, rows, outcome, token=OTHER)
        assert await subject.rows() == before
        assert await subject.dead() == {}

    @pytest.mark.parametrize("outcome", [Delivered(), Retry(0), Dead("rejected"), Released()], ids=repr)
    async def test_a_stale_delivery_of_the_same_token_changes_nothing(self, subject: Subject, outcome: Outcome) -> None:
        await put(subject)
        stale = await claim(subject)
        await settle(subject, stale, Released(started=True))
        [current] = await claim(subject)
        assert current.deliveries_count == 2
        before = await subject.rows()
        await settle(subject, stale, outcome)
        assert await subject.store.renew(stale, lease_seconds=LONG, token=ME) == set()
        assert await subject.rows() == before

    @pytest.mark.parametrize("outcome", [Delivered(), Retry(0), Dead("rejected"), Released()], ids=repr)
    async def test_a_row_that_nobody_holds_is_not_settled(self, subject: Subject, outcome: Outcome) -> None:
        await put(subject)
        rows = await claim(subject)
        await settle(subject, rows, Released())
        before = await subject.rows()
        await settle(subject, rows, outcome)
        assert await subject.rows() == before

    async def test_renewing_tells_which_leases_were_still_held(self, subject: Subject) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(3)))
        held, settled, lost = rows = await claim(subject, seconds=60)
        await settle(subject, [settled], Delivered())
        await settle(subject, [lost], Released(started=True))
        await claim(subject, token=OTHER)
        assert await subject.store.renew(rows, lease_seconds=LONG, token=ME) == {held.id}
        renewed = (await subject.rows())[held.id].next_attempt_at
        assert renewed is not None
        assert (renewed - datetime.now(UTC)).total_seconds() > 1800
        assert await subject.store.renew([], lease_seconds=LONG, token=ME) == set()

    async def test_leases_that_their_holder_does_not_know_of_are_given_back(self, subject: Subject) -> None:
        await put(subject, *(draft(key=f"k{n}") for n in range(3)))
        known, *unknown = await claim(subject)
        await subject.store.give_back(["q"], known=[known.id], token=OTHER)
        await subject.store.give_back(["another"], known=[known.id], token=ME)
        assert await claim(subject, token=OTHER) == []
        await subject.store.give_back(["q"], known=[known.id], token=ME)
        again = await claim(subject, token=OTHER)
        assert ids(again) == ids(unknown)
        assert [row.deliveries_count for row in again] == [1, 1]

    async def test_a_lease_that_ran_out_is_given_back(self, subject: Subject) -> None:
        [expired] = await put(subject, draft("expired"))
        [living, renewed] = await put(subject, draft("living"), draft("renewed"))
        await claim(subject, "expired", seconds=0)
        await claim(subject, "living")
        await subject.store.renew(await claim(subject, "renewed", seconds=0), lease_seconds=LONG, token=ME)
        found = await subject.store.rescue(token=ME, suspects=frozenset())
        assert found.freed_queues == {"expired"}
        rows = await subject.rows()
        assert rows[expired].token is None
        assert (rows[living].token, rows[renewed].token) == (ME, ME)
        [again] = await claim(subject, "expired", token=OTHER)
        assert (again.id, again.deliveries_count, again.attempts_count) == (expired, 2, 0)
        assert (await subject.store.rescue(token=ME, suspects=frozenset())).freed_queues == frozenset()

    async def test_a_row_whose_holders_go_again_and_again_waits_longer_each_time(self, subject: Subject) -> None:
        """It may be what ends them, and the others of its queue are not to wait for it."""
        waits = {}
        for deliveries in (RESCUED_AT_ONCE, RESCUED_AT_ONCE + 1, RESCUED_AT_ONCE + 2, 40):
            queue = f"q{deliveries}"
            await put(subject, draft()._replace(queue=queue))
            for _ in range(deliveries - 1):
                await settle(subject, await claim(subject, queue), Released(started=True))
            await claim(subject, queue, seconds=0)
            await subject.store.rescue(token=ME, suspects=frozenset())
            waits[deliveries] = await seconds_to_due(subject, shards(queue))
        at_once, *longer = waits.values()
        assert at_once is not None
        assert at_once <= 0
        assert longer == [pytest.approx(2, abs=1), pytest.approx(4, abs=1), pytest.approx(LONGEST_REST_SECONDS, abs=2)]
