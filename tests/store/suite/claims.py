"""Which rows a claim takes, in which order and how many."""

import asyncio
from datetime import timedelta

import pytest

from faststream_outbox._store.protocol import PRESENCE_PREFIX
from faststream_outbox._values.outcome import Delivered, Retry

from .subject import LONG, ME, PAST, Subject, claim, draft, ids, keys_apart, put, settle, shards, shards_of


class Claims:
    async def test_a_claim_leases_rows_in_order(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key=f"k{n % 3}") for n in range(10)))
        claimed = await claim(subject)
        assert ids(claimed) == written
        assert {row.deliveries_count for row in claimed} == {1}
        assert all(row.acquired_at is not None for row in claimed)
        assert {stored.token for stored in (await subject.rows()).values()} == {ME}

    async def test_a_claim_takes_no_more_than_its_limit(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key=f"k{n}") for n in range(10)))
        first, second, third, fourth = [await claim(subject, limit=4) for _ in range(4)]
        assert [len(first), len(second), len(third), len(fourth)] == [4, 4, 2, 0]
        assert sorted(ids(first + second + third)) == written

    @pytest.mark.parametrize(
        ("due", "ready", "taken_due", "taken_ready"), [(5, 5, 2, 2), (1, 5, 1, 3), (5, 1, 3, 1), (5, 0, 4, 0)]
    )
    async def test_half_of_a_claim_is_for_rows_whose_time_has_come_and_what_one_half_does_not_use_the_other_gets(
        self, subject: Subject, due: int, ready: int, taken_due: int, taken_ready: int
    ) -> None:
        is_ready = await put(subject, *(draft(key="k") for _ in range(ready))) if ready else []
        # Of these the first is due since the shortest time.
        times = (PAST - timedelta(hours=n) for n in range(due))
        is_due = (await put(subject, *(draft(key="k", activate_at=time) for time in times)))[::-1]
        claimed = await claim(subject, limit=4)
        assert ids(claimed) == sorted(is_due[:taken_due] + is_ready[:taken_ready])
        assert len(await claim(subject, limit=100)) == due + ready - len(claimed)

    async def test_claims_of_one_row_take_both_kinds_from_each_shard_in_the_long_run(self, subject: Subject) -> None:
        keys = await keys_apart(subject, 2)
        kinds = dict.fromkeys(await put(subject, *(draft(key=key) for key in keys * 40)), "ready")
        kinds |= dict.fromkeys(await put(subject, *(draft(key=key, activate_at=PAST) for key in keys * 40)), "due")
        where = await shards_of(subject, *list(kinds)[:2])
        taken = set()
        # Lots are drawn: the test fails of itself once in 200 million runs.
        for turn in range(60):
            order = where if turn % 2 else where[::-1]
            [row], _has_more = await subject.store.claim(order, limit=1, lease_seconds=LONG, token=ME)
            taken.add((row.key, kinds[row.id]))
        assert taken == {(key, kind) for key in keys for kind in ("ready", "due")}

    async def test_retries_without_end_do_not_keep_ready_rows_waiting(self, subject: Subject) -> None:
        failing = set(await put(subject, *(draft() for _ in range(30))))
        await settle(subject, await claim(subject), Retry(0))
        written = await put(subject, *(draft() for _ in range(6)))
        handled: list[int] = []
        for _ in range(3):
            claimed = await claim(subject, limit=4)
            handled += [row.id for row in claimed if row.id not in failing]
            await settle(subject, [row for row in claimed if row.id in failing], Retry(0))
        assert sorted(handled) == written

    async def test_ready_rows_without_end_do_not_keep_retries_waiting(self, subject: Subject) -> None:
        failed = await put(subject, *(draft() for _ in range(6)))
        await settle(subject, await claim(subject), Retry(0))
        await put(subject, *(draft() for _ in range(30)))
        claimed = [row for _ in range(3) for row in await claim(subject, limit=4)]
        assert sorted(row.id for row in claimed if row.id in failed) == failed

    async def test_a_claim_keeps_to_its_shards(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        [in_a, in_b] = await put(subject, draft(key=a), draft(key=b))
        await put(subject, draft("other", key=a))
        for row_id in (in_a, in_b):
            where = await shards_of(subject, row_id)
            claimed = await subject.store.claim(where, limit=9, lease_seconds=9, token=ME)
            assert (ids(claimed.rows), claimed.has_more) == ([row_id], False)

    async def test_shards_are_claimed_in_their_order(self, subject: Subject) -> None:
        [a, b] = await keys_apart(subject, 2)
        for turn in (1, -1):
            order = (await put(subject, draft(key=a), draft(key=b)))[::turn]
            where = await shards_of(subject, *order)
            claimed, _has_more = await subject.store.claim(where, limit=1, lease_seconds=LONG, token=ME)
            assert ids(claimed) == order[:1]
            await settle(subject, claimed + await claim(subject), Delivered())

    async def test_a_claim_is_bounded_in_bytes_and_tells_that_it_left_rows_out(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key="k", body=b"x" * 600) for _ in range(5)))
        where = shards()
        for expected, has_more in ((written[:2], True), (written[2:4], True), (written[4:], False)):
            claimed = await subject.store.claim(where, limit=9, lease_seconds=LONG, token=ME, max_bytes=1500)
            assert (ids(claimed.rows), claimed.has_more) == (expected, has_more)
        rows = await subject.rows()
        assert {row.row.deliveries_count for row in rows.values()} == {1}, "what is left out is not touched"

    async def test_headers_count_among_the_bytes_of_a_claim(self, subject: Subject) -> None:
        # Of texts that cannot be compressed.
        headers = {"h": "".join(chr(33 + (n * n + n // 7) % 90) for n in range(700))}
        written = await put(subject, *(draft(key="k", headers=headers) for _ in range(3)))
        claimed = await subject.store.claim(shards(), limit=9, lease_seconds=LONG, token=ME, max_bytes=1000)
        assert ids(claimed.rows) == written[:1]

    async def test_a_row_that_is_larger_than_a_claim_may_be_is_claimed_alone(self, subject: Subject) -> None:
        small, large, last = await put(subject, draft(key="k"), draft(key="k", body=b"x" * 9000), draft(key="k"))
        claims = [
            await subject.store.claim(shards(), limit=9, lease_seconds=LONG, token=ME, max_bytes=1500) for _ in range(3)
        ]
        assert [ids(claimed.rows) for claimed in claims] == [[small], [large], [last]]

    async def test_few_bytes_of_a_claim_are_for_due_and_ready_rows_in_turns(self, subject: Subject) -> None:
        ready = await put(subject, *(draft(key="k", body=b"x" * 600) for _ in range(4)))
        due = await put(subject, *(draft(key="k", body=b"x" * 600, activate_at=PAST) for _ in range(4)))
        claimed = await subject.store.claim(shards(), limit=9, lease_seconds=LONG, token=ME, max_bytes=2600)
        assert len(set(ids(claimed.rows)) & set(ready)) == 2
        assert len(set(ids(claimed.rows)) & set(due)) == 2

    async def test_a_claim_up_to_its_limit_may_have_left_rows_out(self, subject: Subject) -> None:
        await put(subject, *(draft(key="k") for _ in range(3)))
        claims = [await subject.store.claim(shards(), limit=2, lease_seconds=LONG, token=ME) for _ in range(2)]
        assert [(len(claimed.rows), claimed.has_more) for claimed in claims] == [(2, True), (1, False)]

    async def test_a_claim_without_rows_is_empty(self, subject: Subject) -> None:
        assert await claim(subject) == []
        assert await subject.store.claim([], limit=1, lease_seconds=1, token=ME) == ([], False)

    async def test_concurrent_claims_never_share_a_row(self, subject: Subject) -> None:
        written = await put(subject, *(draft(key=f"k{n % 20}") for n in range(100)))

        async def claim_all(token: str) -> list[int]:
            taken: list[int] = []
            while rows := await claim(subject, limit=3, token=token):
                taken += ids(rows)
            return taken

        # A claim passes by what another one is just locking, so a claimer may end early; the last one takes the rest.
        found = await asyncio.gather(*(claim_all(f"{PRESENCE_PREFIX}{n}") for n in range(5)))
        found.append(await claim_all(ME))
        assert sorted(row_id for taken in found for row_id in taken) == written
