"""Keys that are paused: their rows wait, and nothing else does."""

from faststream_outbox._values.control import PausedKey
from faststream_outbox._values.outcome import Delivered, Settlement

from .subject import ME, PAST, Subject, draft, fail_once, ids, keys_together, parts, put, shards

PAUSED = [PausedKey("q", "k"), PausedKey("q", "another"), PausedKey(None, "everywhere")]


async def claimed(subject: Subject, *queues: str, limit: int = 100, paused: list[PausedKey] = PAUSED) -> list[int]:
    claim = await subject.store.claim(shards(*queues), limit=limit, lease_seconds=60, token=ME, paused=paused)
    return ids(claim.rows)


async def taken(
    subject: Subject, *queues: str, limit: int = 100, forwarder: str | None = None, paused: list[PausedKey] = PAUSED
) -> list[int]:
    """Deliver what one hand-over over all shards takes."""
    asked = shards(*queues)
    async with subject.store.hand_over(
        asked, limit=limit, breadth=len(asked), paused=paused, forwarder=forwarder
    ) as hand_over:
        if hand_over is None:
            return []
        await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        return sorted(parts(hand_over))


class PausedKeys:
    async def test_handlers_get_no_row_of_a_paused_key(self, subject: Subject) -> None:
        drafts = [draft(key="k"), draft(key="l"), draft(), draft(key="k", activate_at=PAST), draft(key="everywhere")]
        k, free, keyless, due, everywhere = await put(subject, *drafts)
        [elsewhere, no] = await put(subject, draft("other", key="k"), draft("other", key="everywhere"))
        assert await claimed(subject, "q", "other") == sorted([free, keyless, elsewhere])
        rows = await subject.rows()
        assert [(rows[id_].row.deliveries_count, rows[id_].token) for id_ in (k, due, everywhere, no)] == [
            (0, None)
        ] * 4
        assert await claimed(subject, "q", "other", paused=[]) == sorted([k, due, everywhere, no])

    async def test_forwarders_take_no_row_of_a_paused_key(self, subject: Subject) -> None:
        drafts = [draft(key="k"), draft(key="l"), draft(), draft(key="k", activate_at=PAST), draft(key="everywhere")]
        k, free, keyless, due, everywhere = await put(subject, *drafts)
        [elsewhere, no] = await put(subject, draft("other", key="k"), draft("other", key="everywhere"))
        assert await taken(subject, "q", "other") == sorted([free, keyless, elsewhere])
        rows = await subject.rows()
        assert sorted(rows) == sorted([k, due, everywhere, no])
        assert {each.row.attempts_count for each in rows.values()} == {0}
        assert await taken(subject, "q", "other", paused=[]) == sorted([k, due, everywhere, no])

    async def test_what_stands_behind_rows_of_a_paused_key_is_found(self, subject: Subject) -> None:
        paused, free = await keys_together(subject, 2)
        drafts = [draft(key=paused) for _ in range(20)]
        await put(subject, *drafts)
        [one, two] = await put(subject, draft(key=free), draft(key=free))
        left_out = [PausedKey("q", paused)]
        assert await taken(subject, limit=1, paused=left_out) == [one]
        assert await claimed(subject, limit=1, paused=left_out) == [two]
        assert await claimed(subject, limit=1, paused=left_out) == []

    async def test_a_paused_key_keeps_its_order(self, subject: Subject) -> None:
        [first] = await fail_once(subject, draft(key="k"), delay=0)
        [second] = await put(subject, draft(key="k"))
        assert await taken(subject, paused=[PausedKey("q", "k")]) == []
        [third] = await put(subject, draft(key="k"))
        order = []
        for _ in range(3):
            async with subject.store.hand_over(shards(), limit=1) as hand_over:
                order += parts(hand_over)
                assert hand_over is not None
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        assert order == [first, second, third]
