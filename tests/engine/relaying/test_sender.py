"""What is sent of the rows of a hand-over, and in which order when they are sent other than published."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from faststream_outbox._engine.relaying import sender as sender_module
from faststream_outbox._engine.relaying.sender import Prepare, Sender
from faststream_outbox._values.outcome import Accepted, Dropped, Refused, Unsent
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.unreadable import Unreadable
from tests.engine.fakes import Clock, Lines, ScriptedDestination, Trouble, outage, poison, refuse
from tests.rows import make_row

TROUBLE = Trouble("cannot be prepared")


@pytest.fixture
async def destination(log: Lines) -> ScriptedDestination:
    return ScriptedDestination(log)


def rows(*keys: str | None) -> list[OutboxRow]:
    return [make_row(number, key=key) for number, key in enumerate(keys, start=1)]


def sent_as(**keys: str | None) -> Prepare:
    """Send rows with other keys, by their number: `sent_as(_2="x")`."""
    return lambda row: Parcel(row._replace(key=keys.get(f"_{row.id}", row.key)))


def kinds(verdicts: Any) -> list[str]:
    return [type(verdict).__name__ for verdict in verdicts]


async def test_without_preparing_rows_go_as_they_are(destination: ScriptedDestination) -> None:
    published = rows("a", "a", None)
    sent = await Sender(destination, 10).send(published)
    assert destination.parcels == [[Parcel(row) for row in published]]
    assert kinds(sent.verdicts) == ["Accepted"] * 3
    assert (sent.has_answer, sent.trouble) == (True, None)


async def test_nothing_is_not_sent(destination: ScriptedDestination) -> None:
    assert (await Sender(destination, 10).send([])).verdicts == ()
    assert destination.sent == []


async def test_a_destination_is_not_asked_when_nothing_is_left_to_send(destination: ScriptedDestination) -> None:
    sent = await Sender(destination, 10, lambda row: Dropped()).send(rows("a", None))
    assert kinds(sent.verdicts) == ["Dropped"] * 2
    assert (sent.has_answer, sent.trouble) == (False, None)
    assert destination.sent == []


async def test_addresses_go_along(destination: ScriptedDestination) -> None:
    published = rows(None, None)
    await Sender(destination, 10, lambda row: Parcel(row, f"to-{row.id}")).send(published)
    assert [[parcel.address for parcel in wave] for wave in destination.parcels] == [["to-1", "to-2"]]


async def test_rows_behind_one_that_cannot_be_prepared_are_not_sent(destination: ScriptedDestination) -> None:
    calls: Counter[int] = Counter()

    def prepare(row: OutboxRow) -> Parcel | Refused:
        calls[row.id] += 1
        return Refused(TROUBLE) if row.id in {2, 3} else Parcel(row)

    sent = await Sender(destination, 10, prepare).send(rows("a", "a", None, "a", "b", None, "a"))
    assert kinds(sent.verdicts) == ["Accepted", "Refused", "Refused", "Unsent", "Accepted", "Accepted", "Unsent"]
    assert destination.sent == [[1, 5, 6]]
    assert set(calls) == {1, 2, 3, 5, 6}
    assert sent.trouble is None


async def test_what_cannot_be_prepared_is_no_answer_of_the_destination(destination: ScriptedDestination) -> None:
    sent = await Sender(destination, 10, lambda row: Refused(TROUBLE)).send(rows("a"))
    assert (sent.has_answer, sent.trouble) == (False, None)


def unreadable(published: list[OutboxRow], number: int) -> list[OutboxRow]:
    return [row._replace(headers=Unreadable("why")) if row.id == number else row for row in published]


@pytest.mark.parametrize("prepare", [None, Parcel])
async def test_a_row_that_cannot_be_read_is_poison_and_nobody_is_asked_about_it(
    destination: ScriptedDestination, prepare: Prepare | None
) -> None:
    prepared: list[int] = []

    def noting(row: OutboxRow) -> Parcel:
        prepared.append(row.id)
        return Parcel(row)

    sent = await Sender(destination, 10, prepare and noting).send(unreadable(rows("a", "a", None, "a"), 2))
    assert kinds(sent.verdicts) == ["Accepted", "Poison", "Accepted", "Accepted"]
    assert (sent.verdicts[1].reason, str(sent.verdicts[1].exception)) == ("invalid", "the headers cannot be read: why")  # type: ignore[union-attr]
    assert destination.sent == [[1, 3, 4]]
    assert prepared == ([] if prepare is None else [1, 3, 4])


async def test_a_row_that_cannot_be_read_is_no_answer_of_the_destination(destination: ScriptedDestination) -> None:
    sent = await Sender(destination, 10).send(unreadable(rows("a"), 1))
    assert (sent.has_answer, sent.trouble) == (False, None)
    assert destination.sent == []


async def test_where_dead_letters_hold_keys_nothing_follows_a_row_that_cannot_be_read(
    destination: ScriptedDestination,
) -> None:
    sent = await Sender(destination, 10, singly=True).send(unreadable(rows("a", "a", "b", None, "a"), 2))
    assert kinds(sent.verdicts) == ["Accepted", "Poison", "Accepted", "Accepted", "Unsent"]
    assert destination.sent == [[1, 3, 4]]


async def test_rows_of_one_key_that_go_different_ways_go_in_waves(destination: ScriptedDestination) -> None:
    sent = await Sender(destination, 10, sent_as(_2="x", _5="x")).send(rows("a", "a", "a", "b", "a"))
    assert destination.sent == [[1, 4], [2], [3], [5]]
    assert kinds(sent.verdicts) == ["Accepted"] * 5


async def test_rows_of_one_key_that_go_the_same_way_go_together(destination: ScriptedDestination) -> None:
    await Sender(destination, 10, lambda row: Parcel(row._replace(key=f"new-{row.key}"), "there")).send(rows(*"aabab"))
    assert destination.sent == [[1, 2, 3, 4, 5]]


async def test_different_addresses_are_different_ways(destination: ScriptedDestination) -> None:
    await Sender(destination, 10, lambda row: Parcel(row, "odd" if row.id % 2 else "even")).send(rows(*"aaba"))
    assert destination.sent == [[1, 3], [2, 4]]


async def test_rows_whose_key_is_removed_have_no_order(destination: ScriptedDestination) -> None:
    await Sender(destination, 10, sent_as(_1=None, _2=None, _3=None)).send(rows("a", "a", "a", "a"))
    assert destination.sent == [[1, 2, 3, 4]]


async def test_rows_without_a_key_may_be_given_one(destination: ScriptedDestination) -> None:
    await Sender(destination, 10, sent_as(_1="x", _2="y", _3="x")).send(rows(None, None, None))
    assert destination.sent == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("answer", "kind"), [(refuse, "Refused"), (lambda row: Unsent(), "Unsent"), (poison, "Poison")]
)
async def test_a_row_that_was_not_accepted_holds_back_the_next_waves_of_its_key(
    destination: ScriptedDestination, answer: Callable[[OutboxRow], Any], kind: str
) -> None:
    destination.answer = lambda row: answer(row) if row.id == 1 else Accepted()
    sent = await Sender(destination, 10, sent_as(_2="x", _4="x")).send(rows("a", "a", "b", "b", "a"))
    assert destination.sent == [[1, 3], [4]]
    assert kinds(sent.verdicts) == [kind, "Unsent", "Accepted", "Accepted", "Unsent"]
    assert sent.has_answer


@pytest.mark.parametrize("prepare", [None, sent_as(_2=None)])
async def test_singly_the_nth_row_of_each_key_goes_in_the_nth_wave(
    destination: ScriptedDestination, prepare: Prepare | None
) -> None:
    sent = await Sender(destination, 10, prepare, singly=True).send(rows("a", "a", "b", None, "a", None, "b"))
    assert destination.sent == [[1, 3, 4, 6], [2, 7], [5]]
    assert kinds(sent.verdicts) == ["Accepted"] * 7


@pytest.mark.parametrize(("answer", "kind"), [(refuse, "Refused"), (poison, "Poison")])
async def test_singly_nothing_goes_behind_a_row_that_was_not_accepted(
    destination: ScriptedDestination, answer: Callable[[OutboxRow], Any], kind: str
) -> None:
    destination.answer = lambda row: answer(row) if row.id in {2, 6} else Accepted()
    sent = await Sender(destination, 10, singly=True).send(rows("a", "a", "a", "b", "b", None, None))
    assert destination.sent == [[1, 4, 6, 7], [2, 5]]
    assert kinds(sent.verdicts) == ["Accepted", kind, "Unsent", "Accepted", "Accepted", kind, "Accepted"]


async def test_after_trouble_there_is_no_next_wave(destination: ScriptedDestination) -> None:
    destination.answer = lambda row: outage(row) if row.id == 1 else Accepted()
    sent = await Sender(destination, 10, sent_as(_2="x", _4="x")).send(rows("a", "a", "b", "b"))
    assert destination.sent == [[1, 3]]
    assert kinds(sent.verdicts) == ["Unsent", "Unsent", "Accepted", "Unsent"]
    assert sent.has_answer
    assert str(sent.trouble) == "down"


async def test_waves_end_in_time(destination: ScriptedDestination, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(sender_module, "time", clock)

    async def slowly() -> None:
        clock.now += 0.6

    destination.before_answer = slowly
    sent = await Sender(destination, 10, lambda row: Parcel(row, str(row.id))).send(rows(*"aaaa"))
    assert destination.sent == [[1], [2]]
    assert kinds(sent.verdicts) == ["Accepted", "Accepted", "Unsent", "Unsent"]
    assert sent.trouble is None


async def test_a_wave_that_takes_too_long_is_given_up(destination: ScriptedDestination) -> None:
    destination.script.hanging.add("send")
    sent = await Sender(destination, 0.01, Parcel).send(rows("a", None))
    assert kinds(sent.verdicts) == ["Unsent", "Unsent"]
    assert isinstance(sent.trouble, TimeoutError)
    await destination.script.let_go("send")


async def test_a_cancellation_goes_through(destination: ScriptedDestination) -> None:
    destination.script.hanging.add("send")
    sending = asyncio.create_task(Sender(destination, 10, Parcel).send(rows("a")))
    while not destination.sent:
        await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await destination.script.let_go("send")


async def test_a_part_that_is_down_is_told_apart_and_ends_no_waves(destination: ScriptedDestination) -> None:
    down = Unsent(Trouble("a part"), part="x")
    destination.answer = lambda row: down if row.id == 1 else Accepted()
    sent = await Sender(destination, 10, sent_as(_3="x")).send(rows(None, "a", "a"))
    assert list(sent.verdicts) == [down, Accepted(), Accepted()]
    assert (sent.has_answer, sent.trouble, sent.partly) == (True, None, down.exception)
    whole = Unsent(Trouble("all of it"))
    destination.answer = lambda row: {1: down, 2: whole}.get(row.id, Accepted())
    sent = await Sender(destination, 10).send(rows(None, None))
    assert (sent.has_answer, sent.trouble, sent.partly) == (False, whole.exception, down.exception)
