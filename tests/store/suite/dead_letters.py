"""Dead letters are found, replayed and discarded."""

from faststream_outbox._values.dead_letter import Selection

from .subject import Subject, claim, die, draft, put


class DeadLetters:
    async def test_dead_letters_are_found_by_what_is_given(self, subject: Subject) -> None:
        await put(subject, draft("alive"))
        first, second, third = await die(
            subject,
            (draft("a", key="k"), "rejected"),
            (draft("a"), "too_large"),
            (draft("b", key="k"), "rejected"),
        )
        everything = await subject.dead_letters.list(None, Selection(), limit=10)
        assert [letter.row.id for letter in everything] == [first, second, third]
        assert [letter.reason for letter in everything] == ["rejected", "too_large", "rejected"]
        assert {letter.exception for letter in everything} == {"of what it died"}
        middle = everything[1].failed_at
        for selection, expected in (
            (Selection(queue="a"), [first, second]),
            (Selection(key="k"), [first, third]),
            (Selection(reason="too_large"), [second]),
            (Selection(failed_after=middle), [second, third]),
            (Selection(failed_before=middle), [first]),
            (Selection(queue="b", key="k", reason="rejected", failed_after=middle), [third]),
            (Selection(queue="alive"), []),
        ):
            found = await subject.dead_letters.list(None, selection, limit=10)
            assert [letter.row.id for letter in found] == expected, selection
            assert await subject.dead_letters.count(None, selection) == len(expected)
        assert len(await subject.dead_letters.list(None, Selection(), limit=2)) == 2

    async def test_dead_letters_are_found_by_the_type_that_groups_show(self, subject: Subject) -> None:
        await die(subject, (draft("a"), "rejected"), (draft("a"), "rejected"))
        [group] = (await subject.dead_letters.groups(None, Selection(), limit=10, at_most=10)).groups
        assert group.kind == "of what it died"
        assert await subject.dead_letters.count(None, Selection(kind=group.kind)) == 2
        assert await subject.dead_letters.count(None, Selection(kind="of what")) == 0, "a part of it is another type"
        assert await subject.dead_letters.count(None, Selection(kind="")) == 0, "they have an exception"

    async def test_a_look_at_a_dead_letter_may_be_at_a_part_of_its_body(self, subject: Subject) -> None:
        await die(subject, (draft(body=b"0123456789"), "rejected"))
        [whole] = await subject.dead_letters.list(None, Selection(), limit=1)
        [part] = await subject.dead_letters.list(None, Selection(), limit=1, max_bytes=4)
        assert (whole.row.payload, whole.size) == (b"0123456789", 10)
        assert (part.row.payload, part.size) == (b"0123", 10)

    async def test_a_replayed_dead_letter_is_the_same_message_with_fresh_attempts(self, subject: Subject) -> None:
        message = draft(key="k", body=b"\x00bytes", headers={"a": "b"}, idempotency_key="identity")
        [dead] = await die(subject, (message, "rejected"))
        [before] = await subject.dead_letters.list(None, Selection(), limit=1)
        [waiting] = await put(subject, draft(key="k"))
        assert await subject.dead_letters.replay(None, Selection(queue="q"), limit=10) == 1
        assert await subject.dead() == {}
        ahead, again = await claim(subject)
        assert ahead.id == waiting, "behind what already waited"
        assert again.id > max(dead, waiting)
        assert again == before.row._replace(
            id=again.id,
            attempts_count=0,
            deliveries_count=1,
            first_attempt_at=None,
            last_attempt_at=None,
            acquired_at=again.acquired_at,
        )

    async def test_dead_letters_come_back_in_their_order_and_in_batches(self, subject: Subject) -> None:
        dead = await die(subject, *((draft(key="k", body=str(n).encode()), "rejected") for n in range(5)))
        assert len(dead) == 5
        assert await subject.dead_letters.replay(None, Selection(), limit=3) == 3
        assert await subject.dead_letters.replay(None, Selection(), limit=3) == 2
        assert await subject.dead_letters.replay(None, Selection(), limit=3) == 0
        assert [row.payload for row in await claim(subject)] == [b"0", b"1", b"2", b"3", b"4"]

    async def test_a_discarded_dead_letter_is_gone_and_nothing_else_is(self, subject: Subject) -> None:
        [alive] = await put(subject, draft("a"))
        _, other = await die(subject, (draft("a"), "rejected"), (draft("b"), "rejected"))
        assert await subject.dead_letters.discard(None, Selection(queue="a"), limit=10) == 1
        assert list(await subject.dead()) == [other]
        assert list(await subject.rows()) == [alive]

    async def test_a_dead_letter_that_a_live_message_stands_for_stays(self, subject: Subject) -> None:
        if subject.parks:
            # Parked, it is itself the live duplicate: no other can have been published.
            return
        await die(subject, (draft(idempotency_key="once"), "rejected"), (draft(timer_id="t"), "rejected"))
        await die(subject, (draft(idempotency_key="once"), "rejected"))
        assert await subject.dead_letters.replay(None, Selection(), limit=10) == 2, "of the twins, the older one"
        assert await subject.dead_letters.replay(None, Selection(), limit=10) == 0
        assert len(await subject.dead()) == 1
